// Speed of rms_norm as a layer uses it (residual added and stored, output quantised). Bytes = each
// operand once.
#include "hadal/rms_norm.h"

#include <fmt/format.h>

#include <cmath>

#include "hadal/reference/rms_norm.h"
#include "support/bench.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

void run_case(Bench& bench, uint32_t rows, uint32_t n, bool layer) {
  const std::string name =
      fmt::format("rms_norm rows={} n={} {}", rows, n, layer ? "residual, h, q" : "y");
  if (!bench.selected(name)) return;
  RmsNormShape s = RmsNormShape::packed(rows, n);
  s.add_residual = s.write_h = s.quantize = layer;
  const uint64_t elems = uint64_t{rows} * n;
  const Buffer x = bench.floats(elems, -1.0f, 1.0f), residual = bench.floats(elems, -1.0f, 2.0f);
  const Buffer weight = bench.floats(n, 0.5f, 1.5f);
  const Buffer h = bench.buffer(elems * 4), y = bench.buffer(elems * 4);
  const Buffer q = bench.buffer(uint64_t{rows} * s.q_stride);
  const Buffer scale = bench.buffer(uint64_t{rows} * s.scale_stride * 4);
  const RmsNormConfig config = rms_norm_choose(s, bench.device().caps());
  const auto kernel = require(RmsNorm::create(bench.device(), config));
  const RmsNormArgs args{x.address(), residual.address(), weight.address(), h.address(),
                         y.address(), q.address(),        scale.address()};
  const auto check = [&] {
    const std::vector<float> actual = bench.read_floats(y, elems);
    const std::vector<float> xs = bench.read_floats(x, elems),
                             rs = bench.read_floats(residual, elems);
    const std::vector<float> ws = bench.read_floats(weight, n);
    const auto expected = reference::rms_norm(s, {xs.data(), rs.data(), ws.data()});
    for (size_t i = 0; i < actual.size(); ++i) {
      const double bound =
          test::rms_norm_bound(n, expected.y[i], expected.inverse_rms[i / n], ws[i % n]);
      if (!(std::fabs(actual[i] - expected.y[i]) <= bound)) return false;
    }
    return true;
  };
  // The check needs y; the layer's timing does without it.
  Recorder first = require(Recorder::create(bench.device()));
  require(kernel.record(first, s, args));
  require(first.end());
  require(bench.device().run(first));
  s.write_y = !layer;
  bench.time(
      {name, 5.0 * double(elems), double(elems) * (layer ? 13 : 8)},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); }, check);
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Options options = bench::parse_options(argc, argv);
  bench::Bench bench("rms_norm", options);
  for (uint32_t rows : {1u, 16u, 512u, 4096u}) {
    for (uint32_t n : {256u, 1536u, 7168u}) {
      if (options.quick && rows > 16) continue;
      for (bool layer : {false, true}) bench::run_case(bench, rows, n, layer);
    }
  }
  return 0;
}
