// Speed of fp8_quantize at DeepSeek-V3's widths. Bytes = x read, codes and scales written, once
// each.
#include "hadal/fp8_quantize.h"

#include <cstring>

#include "hadal/reference/fp8_quantize.h"
#include "support/bench.h"

namespace hadal::bench {
namespace {

// Codes and scales of a sample of rows, bit by bit.
Check check_sample(Bench& bench, const Fp8QuantizeShape& s, const Buffer& x, const Buffer& q,
                   const Buffer& scale) {
  Check check;
  for (uint32_t row : sample_of(s.rows, 64)) {
    const auto values = bench.read<float>(x, uint64_t{row} * s.x_stride, s.k);
    const auto codes = bench.read<uint8_t>(q, uint64_t{row} * s.q_stride, s.k);
    const auto scales =
        bench.read<float>(scale, uint64_t{row} * s.scale_stride, ceil_div(s.k, kFp8BlockElems));
    const auto expected =
        reference::fp8_quantize(1, s.k, values.data(), s.x_stride, s.scale_format);
    check.exact(codes == expected.codes);
    check.exact(scales == expected.scales);
  }
  return check;
}

void run_case(Bench& bench, uint32_t rows, uint32_t k) {
  const Fp8QuantizeShape s = Fp8QuantizeShape::packed(rows, k);
  require(fp8_quantize_check(s, bench.caps()));
  const Buffer x = bench.floats(uint64_t{rows} * k, -1.0f, 1.0f);
  const Buffer q = bench.buffer(uint64_t{rows} * s.q_stride);
  const Buffer scale = bench.buffer(uint64_t{rows} * s.scale_stride * 4);
  const Fp8QuantizeConfig config = fp8_quantize_choose(s, bench.caps());
  const Fp8Quantize kernel = require(Fp8Quantize::create(bench.device(), config));
  const Fp8QuantizeArgs args{x.address(), q.address(), scale.address()};
  bench.time(
      {path_of(config.to_string()), 3.0 * rows * k, 5.0 * rows * k + 4.0 * rows * s.scale_stride},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); },
      [&] { return check_sample(bench, s, x, q, scale); });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("fp8_quantize", argc, argv);
  for (uint32_t rows : {1u, 16u, 512u, 4096u}) {
    for (uint32_t k : {256u, 1536u, 7168u}) {
      if (bench.options().quick && rows > 16) continue;
      bench.add({{"rows", rows}, {"k", k}});
    }
  }
  return bench.run([&](const bench::Shape& s) { bench::run_case(bench, s["rows"], s["k"]); });
}
