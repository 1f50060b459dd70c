// Speed of fp8_gemm at DeepSeek-V3's shapes. FLOP = 2*m*n*k; bytes = a, b, scales and d once each.
#include "hadal/fp8_gemm.h"

#include "hadal/reference/formats.h"
#include "hadal/reference/fp8_gemm.h"
#include "support/bench.h"
#include "support/gemm_path.h"
#include "support/shapes.h"

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
  Scales scales;
  std::vector<uint8_t> codes(count);
  for (uint64_t i = 0; i < count; ++i) {
    codes[i] = uint8_t(120 + i % 7);
    scales.values.push_back(reference::e8m0_decode(codes[i]));
  }
  scales.buffer = bench.upload(codes);
  return scales;
}

// A sample of rows and columns, always the first and the last ones.
Check check_sample(Bench& bench, const Fp8GemmConfig& config, const Fp8GemmShape& s,
                   const Buffer& a, const std::vector<float>& sa, const Buffer& b,
                   const std::vector<float>& sb, const Buffer& d) {
  Check check;
  Fp8GemmShape one = s;
  one.m = one.n = 1;
  for (uint32_t row : sample_of(s.m, 6)) {
    const auto a8 = bench.read<uint8_t>(a, uint64_t{row} * s.a_stride, s.a_stride);
    const auto d_row = bench.read<float>(d, uint64_t{row} * s.d_stride, s.n);
    for (uint32_t column : sample_of(s.n, 24, row)) {
      const auto b8 = bench.read<uint8_t>(b, uint64_t{column} * s.b_stride, s.b_stride);
      const auto r =
          reference::fp8_gemm(one, {a8.data(), &sa[size_t(row) * s.a_scale_stride], b8.data(),
                                    &sb[size_t(column / s.scales.b_rows) * s.b_scale_stride]});
      check.add(d_row[column], r.value[0], path_bound(config, s.k, r.value[0], r.magnitude[0]));
    }
  }
  return check;
}

void run_case(Bench& bench, uint32_t m, uint32_t n, uint32_t k, const Fp8ScaleForm& scales) {
  Fp8GemmShape s = Fp8GemmShape::packed(m, n, k);
  s.a_stride = s.b_stride = fp8_row_stride(k);
  s.scales = scales;
  require(fp8_gemm_check(s, bench.caps()));
  const GemmPolicy policy = bench.gemm_policy();
  const Fp8GemmConfig config = fp8_gemm_choose(s, bench.caps(), policy);
  const Buffer a = bench.e4m3(uint64_t{m} * s.a_stride);
  const Buffer b = bench.e4m3(uint64_t{n} * s.b_stride);
  const Scales a_scale = make_scales(bench, uint64_t{m} * s.a_scale_stride, scales.a_type);
  const Scales b_scale =
      make_scales(bench, uint64_t{ceil_div(n, scales.b_rows)} * s.b_scale_stride, scales.b_type);
  const Buffer d = bench.buffer(uint64_t{m} * s.d_stride * 4);
  const Fp8Gemm kernel = require(Fp8Gemm::create(bench.device(), config));
  const Fp8GemmArgs args{a.address(), a_scale.buffer.address(), b.address(),
                         b_scale.buffer.address(), d.address()};
  bench.time(
      {tuned_path_of(config, TunedKernel::kFp8Gemm, m, n, k, policy), 2.0 * m * n * k,
       double(m) * k + double(n) * k + 4.0 * m * n + double(a_scale.buffer.bytes()) +
           double(b_scale.buffer.bytes())},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); },
      [&] { return check_sample(bench, config, s, a, a_scale.values, b, b_scale.values, d); });
}

// "block": 128x128 of b, float. "row": 1x128 of b. "e8m0": bytes.
Fp8ScaleForm scales_of(const std::string& form) {
  if (form == "row") return {ScaleType::kF32, ScaleType::kF32, 1};
  if (form == "e8m0") return {ScaleType::kE8m0, ScaleType::kE8m0, 128};
  return {};
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
  // The other forms of scales.
  for (uint32_t m : {1u, 128u}) {
    for (const char* form : {"row", "e8m0"}) {
      bench.add({{"m", m}, {"n", 576}, {"k", 7168}, {"scales", form}});
    }
  }
  // A small model's projections (examples/models/fables), decode and a prefill chunk.
  for (uint32_t m : {1u, 490u}) {
    bench.add({{"m", m}, {"n", 192}, {"k", 256}});
    bench.add({{"m", m}, {"n", 256}, {"k", 768}});
  }
  return bench.run([&](const bench::Shape& s) {
    bench::run_case(bench, s["m"], s["n"], s["k"],
                    bench::scales_of(s.has("scales") ? s.word("scales") : "block"));
  });
}
