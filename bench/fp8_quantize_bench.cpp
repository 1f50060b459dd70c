// Speed of fp8_quantize at DeepSeek-V3's widths. Bytes = x read, codes and scales written, once
// each.
#include "hadal/fp8_quantize.h"

#include <fmt/format.h>

#include <cstring>

#include "hadal/reference/fp8_quantize.h"
#include "support/bench.h"

namespace hadal::bench {
namespace {

bool check(Bench& bench, const Fp8QuantizeShape& s, const Buffer& x, const Buffer& q) {
  const std::vector<float> values = bench.read_floats(x, uint64_t{s.rows} * s.k);
  std::vector<uint8_t> codes(uint64_t{s.rows} * s.q_stride);
  require(bench.device().download(q, 0, std::as_writable_bytes(std::span(codes))));
  const auto expected =
      reference::fp8_quantize(s.rows, s.k, values.data(), s.x_stride, s.scale_format);
  for (uint32_t row = 0; row < s.rows; ++row) {
    if (std::memcmp(&codes[size_t(row) * s.q_stride], &expected.codes[size_t(row) * s.k], s.k)) {
      return false;
    }
  }
  return true;
}

void run_case(Bench& bench, uint32_t rows, uint32_t k) {
  const std::string name = fmt::format("fp8_quantize rows={} k={}", rows, k);
  if (!bench.selected(name)) return;
  const Fp8QuantizeShape s = Fp8QuantizeShape::packed(rows, k);
  const Buffer x = bench.floats(uint64_t{rows} * k, -1.0f, 1.0f);
  const Buffer q = bench.buffer(uint64_t{rows} * s.q_stride);
  const Buffer scale = bench.buffer(uint64_t{rows} * s.scale_stride * 4);
  const auto kernel =
      require(Fp8Quantize::create(bench.device(), fp8_quantize_choose(s, bench.device().caps())));
  const Fp8QuantizeArgs args{x.address(), q.address(), scale.address()};
  bench.time(
      {name, 3.0 * rows * k, 5.0 * rows * k + 4.0 * rows * s.scale_stride},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); },
      [&] { return check(bench, s, x, q); });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Options options = bench::parse_options(argc, argv);
  bench::Bench bench("fp8_quantize", options);
  for (uint32_t rows : {1u, 16u, 512u, 4096u}) {
    for (uint32_t k : {256u, 1536u, 7168u}) {
      if (options.quick && rows > 16) continue;
      bench::run_case(bench, rows, k);
    }
  }
  return 0;
}
