// Speed of bf16_gemm. FLOP = 2*m*n*k; bytes = a, b and d once each.
#include "hadal/bf16_gemm.h"

#include <fmt/format.h>

#include <cmath>

#include "hadal/reference/bf16_gemm.h"
#include "support/bench.h"
#include "support/shapes.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

// Compares a sample of rows and columns (always the last ones) with the reference.
bool check_sample(Bench& bench, const Bf16GemmShape& s, const Buffer& a, const Buffer& b,
                  const Buffer& d) {
  std::vector<uint16_t> b16(uint64_t{s.n} * s.b_stride);
  require(bench.device().download(b, 0, std::as_writable_bytes(std::span(b16))));
  const std::vector<float> af = bench.read_floats(a, uint64_t{s.m} * s.a_stride);
  const std::vector<float> result = bench.read_floats(d, uint64_t{s.m} * s.d_stride);
  for (uint32_t row : {0u, s.m / 2, s.m - 1}) {
    for (uint32_t column : {0u, s.n / 3, s.n - 1}) {
      Bf16GemmShape one = s;
      one.m = one.n = one.batch = 1;
      const auto r = reference::bf16_gemm(
          one, {&af[size_t(row) * s.a_stride], nullptr, &b16[size_t(column) * s.b_stride]});
      const double error = std::fabs(result[size_t(row) * s.d_stride + column] - r.value[0]);
      if (!(error <= test::bf16_gemm_bound(s.k, r.value[0], r.magnitude[0]))) return false;
    }
  }
  return true;
}

// `batch` matrices: heads beside each other in a and d, behind each other in b.
void run_case(Bench& bench, test::GemmSize size, uint32_t batch = 1) {
  Bf16GemmShape s = Bf16GemmShape::packed(size.m, size.n, size.k);
  s.batch = batch;
  s.a_batch_stride = s.a_stride, s.a_stride *= batch;
  s.d_batch_stride = s.d_stride, s.d_stride *= batch;
  s.b_batch_stride = s.n * s.b_stride;
  const Bf16GemmConfig config = bf16_gemm_choose(s, bench.device().caps());
  std::string name = fmt::format("bf16_gemm m={} n={} k={} tile {}x{}", s.m, s.n, s.k,
                                 config.tile_m, config.tile_n);
  if (batch > 1) name += fmt::format(" batch {}", batch);
  if (!bench.selected(name)) return;
  const Buffer a = bench.floats(uint64_t{s.m} * s.a_stride, -1.0f, 1.0f);
  const Buffer b = bench.bf16(uint64_t{s.n} * s.b_stride * batch, -1.0f, 1.0f);
  const Buffer d = bench.buffer(uint64_t{s.m} * s.d_stride * 4);
  const Bf16Gemm kernel = require(Bf16Gemm::create(bench.device(), config));
  const Bf16GemmArgs args{a.address(), b.address(), d.address()};
  bench.time(
      {name, 2.0 * s.m * s.n * s.k * batch,
       (4.0 * s.m * s.k + 2.0 * s.n * s.k + 4.0 * s.m * s.n) * batch},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); },
      [&] { return check_sample(bench, s, a, b, d); });
}

}  // namespace
}  // namespace hadal::bench

// The router (256 x 7168), a small square, and a slice of the output head (129280 x 7168 in V3).
int main(int argc, char** argv) {
  using namespace hadal;
  bench::Options options = bench::parse_options(argc, argv);
  bench::Bench bench("bf16_gemm", options);
  for (uint32_t m : {1u, 4u, 16u, 128u}) {
    for (test::GemmSize size : {test::GemmSize{0, 256, 7168}, {0, 1024, 1024}, {0, 16160, 7168}}) {
      if (options.quick && size.n > 1024) continue;
      bench::run_case(bench, {m, size.n, size.k});
    }
    // The absorbed projections of 128 heads: latent to value, query to latent.
    if (options.quick) continue;
    bench::run_case(bench, {m, 128, 512}, 128);
    bench::run_case(bench, {m, 512, 128}, 128);
  }
  return 0;
}
