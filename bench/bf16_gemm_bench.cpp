// Speed of bf16_gemm. FLOP = 2*m*n*k; bytes = a, b and d once each.
#include "hadal/bf16_gemm.h"

#include "hadal/reference/bf16_gemm.h"
#include "support/bench.h"
#include "support/shapes.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

// A sample of rows and columns, always the first and the last ones.
Check check_sample(Bench& bench, const Bf16GemmShape& s, const Buffer& a, const Buffer& b,
                   const Buffer& d) {
  Check check;
  Bf16GemmShape one = s;
  one.m = one.n = one.batch = 1;
  for (uint32_t row : sample_of(s.m, 6)) {
    const auto af = bench.read<float>(a, uint64_t{row} * s.a_stride, s.a_stride);
    const auto d_row = bench.read<float>(d, uint64_t{row} * s.d_stride, s.n);
    for (uint32_t column : sample_of(s.n, 24, row)) {
      const auto b16 = bench.read<uint16_t>(b, uint64_t{column} * s.b_stride, s.b_stride);
      const auto r = reference::bf16_gemm(one, {af.data(), nullptr, b16.data()});
      check.add(d_row[column], r.value[0], test::bf16_gemm_bound(s.k, r.value[0], r.magnitude[0]));
    }
  }
  return check;
}

// `batch` matrices: heads beside each other in a and d, behind each other in b.
void run_case(Bench& bench, uint32_t m, uint32_t n, uint32_t k, uint32_t batch) {
  Bf16GemmShape s = Bf16GemmShape::packed(m, n, k);
  s.batch = batch;
  s.a_batch_stride = s.a_stride, s.a_stride *= batch;
  s.d_batch_stride = s.d_stride, s.d_stride *= batch;
  s.b_batch_stride = s.n * s.b_stride;
  require(bf16_gemm_check(s, bench.caps()));
  const Bf16GemmConfig config = bf16_gemm_choose(s, bench.caps());
  const Buffer a = bench.floats(uint64_t{m} * s.a_stride, -1.0f, 1.0f);
  const Buffer b = bench.bf16(uint64_t{n} * s.b_stride * batch, -1.0f, 1.0f);
  const Buffer d = bench.buffer(uint64_t{m} * s.d_stride * 4);
  const Bf16Gemm kernel = require(Bf16Gemm::create(bench.device(), config));
  const Bf16GemmArgs args{a.address(), b.address(), d.address()};
  bench.time(
      {path_of(config.to_string()), 2.0 * m * n * k * batch,
       (4.0 * m * k + 2.0 * n * k + 4.0 * m * n) * batch},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); },
      [&] { return check_sample(bench, s, a, b, d); });
}

}  // namespace
}  // namespace hadal::bench

// V3's linears, as a bfloat16 checkpoint has them; the router (256 x 7168); a small square; a slice
// of the output head (129280 x 7168 in V3).
int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("bf16_gemm", argc, argv);
  std::vector<test::GemmSize> sizes = {{0, 256, 7168}, {0, 1024, 1024}, {0, 16160, 7168}};
  sizes.insert(sizes.end(), test::v3_linear_sizes().begin(), test::v3_linear_sizes().end());
  for (uint32_t m : {1u, 4u, 16u, 128u, 512u}) {
    for (test::GemmSize size : sizes) {
      if (bench.options().quick && (size.n > 1024 || m > 16)) continue;
      bench.add({{"m", m}, {"n", size.n}, {"k", size.k}});
    }
  }
  // The absorbed projections of 128 heads: latent to value, query to latent.
  for (uint32_t m : {1u, 4u, 16u, 128u}) {
    if (bench.options().quick) continue;
    bench.add({{"m", m}, {"n", 128}, {"k", 512}, {"batch", 128}});
    bench.add({{"m", m}, {"n", 512}, {"k", 128}, {"batch", 128}});
  }
  return bench.run([&](const bench::Shape& s) {
    bench::run_case(bench, s["m"], s["n"], s["k"], s.has("batch") ? s["batch"] : 1);
  });
}
