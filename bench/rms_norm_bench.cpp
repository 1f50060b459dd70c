// Speed of rms_norm as a layer uses it (residual added and stored, output quantised). Bytes = each
// operand once.
#include "hadal/rms_norm.h"

#include <cmath>

#include "hadal/reference/rms_norm.h"
#include "support/bench.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

void run_case(Bench& bench, uint32_t rows, uint32_t n, bool layer) {
  RmsNormShape s = RmsNormShape::packed(rows, n);
  s.add_residual = s.write_h = s.quantize = layer;
  require(rms_norm_check(s, bench.caps()));
  const uint64_t elems = uint64_t{rows} * n;
  const Buffer x = bench.floats(elems, -1.0f, 1.0f), residual = bench.floats(elems, -1.0f, 2.0f);
  const Buffer weight = bench.floats(n, 0.5f, 1.5f);
  const Buffer h = bench.buffer(elems * 4), y = bench.buffer(elems * 4);
  const Buffer q = bench.buffer(uint64_t{rows} * s.q_stride);
  const Buffer scale = bench.buffer(uint64_t{rows} * s.scale_stride * 4);
  const RmsNormConfig config = rms_norm_choose(s, bench.caps());
  const auto kernel = require(RmsNorm::create(bench.device(), config));
  const RmsNormArgs args{x.address(), residual.address(), weight.address(), h.address(),
                         y.address(), q.address(),        scale.address()};
  const auto check_sample = [&] {
    Check check;
    RmsNormShape one = s;
    one.rows = 1;
    const std::vector<float> ws = bench.read_floats(weight, n);
    for (uint32_t row : sample_of(rows, 16)) {
      const auto actual = bench.read<float>(y, uint64_t{row} * n, n);
      const auto xs = bench.read<float>(x, uint64_t{row} * n, n);
      const auto rs = bench.read<float>(residual, uint64_t{row} * n, n);
      const auto r = reference::rms_norm(one, {xs.data(), rs.data(), ws.data()});
      for (size_t i = 0; i < n; ++i) {
        check.add(actual[i], r.y[i], test::rms_norm_bound(n, r.y[i], r.inverse_rms[0], ws[i]));
      }
    }
    return check;
  };
  // The check needs y; the layer's timing does without it.
  Recorder first = require(Recorder::create(bench.device()));
  require(kernel.record(first, s, args));
  require(first.end());
  require(bench.device().run(first));
  s.write_y = !layer;
  bench.time(
      {path_of(config.to_string()), 5.0 * double(elems), double(elems) * (layer ? 13 : 8)},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); }, check_sample);
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("rms_norm", argc, argv);
  for (uint32_t rows : {1u, 16u, 512u, 4096u}) {
    for (uint32_t n : {256u, 1536u, 7168u}) {
      if (bench.options().quick && rows > 16) continue;
      // layer: h = x + residual, h and the codes are stored; else y alone.
      for (uint32_t layer : {0u, 1u}) bench.add({{"rows", rows}, {"n", n}, {"layer", layer}});
    }
  }
  return bench.run(
      [&](const bench::Shape& s) { bench::run_case(bench, s["rows"], s["n"], s["layer"] != 0); });
}
