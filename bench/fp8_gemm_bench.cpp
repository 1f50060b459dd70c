// Speed of fp8_gemm at DeepSeek-V3's shapes. FLOP = 2*m*n*k; bytes = a, b, scales and d once each.
#include "hadal/fp8_gemm.h"

#include "hadal/reference/fp8_gemm.h"
#include "support/bench.h"
#include "support/gemm_path.h"
#include "support/shapes.h"

namespace hadal::bench {
namespace {

// A sample of rows and columns, always the first and the last ones.
Check check_sample(Bench& bench, const Fp8GemmConfig& config, const Fp8GemmShape& s,
                   const Buffer& a, const Buffer& a_scale, const Buffer& b, const Buffer& b_scale,
                   const Buffer& d) {
  Check check;
  Fp8GemmShape one = s;
  one.m = one.n = 1;
  for (uint32_t row : sample_of(s.m, 6)) {
    const auto a8 = bench.read<uint8_t>(a, uint64_t{row} * s.a_stride, s.a_stride);
    const auto sa = bench.read<float>(a_scale, uint64_t{row} * s.a_scale_stride, s.a_scale_stride);
    const auto d_row = bench.read<float>(d, uint64_t{row} * s.d_stride, s.n);
    for (uint32_t column : sample_of(s.n, 24, row)) {
      const auto b8 = bench.read<uint8_t>(b, uint64_t{column} * s.b_stride, s.b_stride);
      const auto sb =
          bench.read<float>(b_scale, uint64_t{column / 128} * s.b_scale_stride, s.b_scale_stride);
      const auto r = reference::fp8_gemm(one, {a8.data(), sa.data(), b8.data(), sb.data()});
      check.add(d_row[column], r.value[0], path_bound(config, s.k, r.value[0], r.magnitude[0]));
    }
  }
  return check;
}

void run_case(Bench& bench, uint32_t m, uint32_t n, uint32_t k) {
  const Fp8GemmShape s = Fp8GemmShape::packed(m, n, k);
  require(fp8_gemm_check(s, bench.caps()));
  const Fp8GemmConfig config = fp8_gemm_choose(s, bench.caps(), policy_of(bench.options().policy));
  const Buffer a = bench.e4m3(uint64_t{m} * s.a_stride);
  const Buffer b = bench.e4m3(uint64_t{n} * s.b_stride);
  const Buffer a_scale = bench.floats(uint64_t{m} * s.a_scale_stride, 0.5f, 1.0f);
  const Buffer b_scale = bench.floats(uint64_t{ceil_div(n, 128)} * s.b_scale_stride, 0.5f, 1.0f);
  const Buffer d = bench.buffer(uint64_t{m} * s.d_stride * 4);
  const Fp8Gemm kernel = require(Fp8Gemm::create(bench.device(), config));
  const Fp8GemmArgs args{a.address(), a_scale.address(), b.address(), b_scale.address(),
                         d.address()};
  bench.time(
      {path_of(config.to_string()), 2.0 * m * n * k,
       double(m) * k + double(n) * k + 4.0 * m * n + 4.0 * m * s.a_scale_stride},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); },
      [&] { return check_sample(bench, config, s, a, a_scale, b, b_scale, d); });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("fp8_gemm", argc, argv);
  for (uint32_t m : {1u, 8u, 16u, 64u, 128u, 512u}) {
    for (test::GemmSize size : test::v3_linear_sizes()) {
      if (bench.options().quick && (size.n != 576 || m > 128)) continue;
      bench.add({{"m", m}, {"n", size.n}, {"k", size.k}});
    }
  }
  // A small model's projections (examples/models/fables), decode and a prefill chunk.
  for (uint32_t m : {1u, 490u}) {
    bench.add({{"m", m}, {"n", 192}, {"k", 256}});
    bench.add({{"m", m}, {"n", 256}, {"k", 768}});
  }
  return bench.run([&](const bench::Shape& s) { bench::run_case(bench, s["m"], s["n"], s["k"]); });
}
