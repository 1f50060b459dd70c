// Speed of fp8_gemm at DeepSeek-V3's shapes. FLOP = 2*m*n*k; bytes = a, b, scales and d once each.
#include "hadal/fp8_gemm.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "hadal/reference/formats.h"
#include "hadal/reference/fp8_gemm.h"
#include "support/bench.h"
#include "support/shapes.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

// Scales in device memory, and their values.
struct Scales {
  Buffer buffer;
  std::vector<float> values;
};

Scales make_scales(Bench& bench, uint64_t count, ScaleType type) {
  if (type == ScaleType::kF32) {
    Buffer buffer = bench.floats(count, 0.5f, 1.0f);
    std::vector<float> values = bench.read_floats(buffer, count);
    return {std::move(buffer), std::move(values)};
  }
  Scales scales{bench.buffer(count), {}};
  std::vector<uint8_t> codes(count);
  for (uint64_t i = 0; i < count; ++i) {
    codes[i] = uint8_t(120 + i % 7);
    scales.values.push_back(reference::e8m0_decode(codes[i]));
  }
  require(bench.device().upload(scales.buffer, 0, std::as_bytes(std::span(codes))));
  return scales;
}

// Compares a sample of rows and columns (always the last ones) with the reference.
bool check_sample(Bench& bench, const Fp8GemmShape& s, const Buffer& a,
                  const std::vector<float>& sa, const Buffer& b, const std::vector<float>& sb,
                  const Buffer& d) {
  const auto codes_of = [&](const Buffer& buffer, uint64_t count) {
    std::vector<uint8_t> codes(count);
    require(bench.device().download(buffer, 0, std::as_writable_bytes(std::span(codes))));
    return codes;
  };
  const std::vector<uint8_t> b8 = codes_of(b, uint64_t{s.n} * s.b_stride);
  const std::vector<uint8_t> a8 = codes_of(a, uint64_t{s.m} * s.a_stride);
  const std::vector<float> result = bench.read_floats(d, uint64_t{s.m} * s.d_stride);
  for (uint32_t row : {0u, s.m / 2, s.m - 1}) {
    for (uint32_t column : {0u, s.n / 3, s.n - 1}) {
      Fp8GemmShape one = s;
      one.m = one.n = 1;
      const auto r = reference::fp8_gemm(
          one, {&a8[size_t(row) * one.a_stride], &sa[size_t(row) * s.a_scale_stride],
                &b8[size_t(column) * s.b_stride],
                &sb[size_t(column / s.scales.b_rows) * s.b_scale_stride]});
      const double error = std::fabs(result[size_t(row) * s.d_stride + column] - r.value[0]);
      if (!(error <= test::fp8_gemm_bound(s.k, r.value[0], r.magnitude[0]))) return false;
    }
  }
  return true;
}

void run_case(Bench& bench, test::GemmSize size, const Fp8ScaleForm& scales = {}) {
  Fp8GemmShape s = Fp8GemmShape::packed(size.m, size.n, size.k);
  s.scales = scales;
  const Fp8GemmConfig config = fp8_gemm_choose(s, bench.device().caps());
  std::string name = fmt::format("fp8_gemm m={} n={} k={} tile {}x{}", s.m, s.n, s.k, config.tile_m,
                                 config.tile_n);
  if (scales.b_rows == 1) name += " b 1x128";
  if (scales.b_type == ScaleType::kE8m0) name += " e8m0";
  if (!bench.selected(name)) return;
  const Buffer a = bench.e4m3(uint64_t{s.m} * s.a_stride);
  const Buffer b = bench.e4m3(uint64_t{s.n} * s.b_stride);
  const Scales a_scale = make_scales(bench, uint64_t{s.m} * s.a_scale_stride, scales.a_type);
  const Scales b_scale =
      make_scales(bench, uint64_t{ceil_div(s.n, scales.b_rows)} * s.b_scale_stride, scales.b_type);
  const Buffer d = bench.buffer(uint64_t{s.m} * s.d_stride * 4);
  const Fp8Gemm kernel = require(Fp8Gemm::create(bench.device(), config));
  const Fp8GemmArgs args{a.address(), a_scale.buffer.address(), b.address(),
                         b_scale.buffer.address(), d.address()};
  const double a_bytes = double(s.m) * s.k;
  bench.time(
      {name, 2.0 * s.m * s.n * s.k,
       a_bytes + double(s.n) * s.k + 4.0 * s.m * s.n + 4.0 * s.m * s.a_scale_stride},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); },
      [&] { return check_sample(bench, s, a, a_scale.values, b, b_scale.values, d); });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Options options = bench::parse_options(argc, argv);
  bench::Bench bench("fp8_gemm", options);
  // A small model's projections (examples/models/fables), decode and a prefill chunk.
  for (uint32_t m : {1u, 490u}) {
    for (auto [n, k] : {std::array{192u, 256u}, {256u, 768u}}) bench::run_case(bench, {m, n, k});
  }
  for (uint32_t m : {1u, 16u, 128u}) {
    for (test::GemmSize size : test::v3_linear_sizes()) {
      if (options.quick && size.n != 576) continue;
      bench::run_case(bench, {m, size.n, size.k});
    }
    // The other forms of scales.
    bench::run_case(bench, {m, 576, 7168}, {ScaleType::kF32, ScaleType::kF32, 1});
    bench::run_case(bench, {m, 576, 7168}, {ScaleType::kE8m0, ScaleType::kE8m0, 128});
  }
  return 0;
}
