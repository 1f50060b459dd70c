// bf16_grouped_gemm: its problems, reference and dense form for the cases of both grouped GEMMs,
// and the rules that only it has.
#include "hadal/bf16_grouped_gemm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "hadal/bf16_gemm.h"
#include "hadal/reference/bf16_grouped_gemm.h"
#include "hadal/reference/formats.h"
#include "support/grouped_gemm_cases.h"
#include "support/random.h"

namespace hadal::test {
namespace {

struct Bf16Problem {
  Bf16GroupedGemmShape shape;
  std::vector<uint32_t> ends, a_rows;    // a_rows empty: identity
  std::vector<float> a;                  // padding NaN
  std::vector<std::vector<uint16_t>> b;  // per expert, padding NaN

  // tokens 0: no gather. `extra` units of padding behind every row.
  Bf16Problem(const std::vector<uint32_t>& lengths, uint32_t n, uint32_t k, uint32_t seed,
              uint32_t tokens = 0, uint32_t extra = 0)
      : ends(segment_ends(lengths)) {
    Random random(seed);
    shape = Bf16GroupedGemmShape::packed(ends.back(), uint32_t(ends.size()), n, k);
    shape.a_stride += extra * 4, shape.b_stride += extra * 8, shape.d_stride += extra;
    if (tokens) {
      shape.tokens = tokens;
      for (uint32_t r = 0; r < shape.rows; ++r) a_rows.push_back(random.below(tokens));
    }
    a.assign(size_t(shape.tokens) * shape.a_stride, NAN);
    for (size_t i = 0; i < a.size(); ++i) {
      if (i % shape.a_stride < k) a[i] = value(random);
    }
    for (uint32_t e = 0; e < shape.experts; ++e) {
      b.emplace_back(size_t(n) * shape.b_stride, uint16_t(0xffff));
      for (size_t i = 0; i < b[e].size(); ++i) {
        if (i % shape.b_stride < k) b[e][i] = reference::bf16_encode(value(random));
      }
    }
  }
  // Over several binades, so that a misplaced value shows.
  static float value(Random& random) { return std::ldexp(random.normal(), int(random.below(6))); }
};

struct Bf16 {
  static constexpr const char* kName = "bf16_grouped_gemm";
  using Shape = Bf16GroupedGemmShape;
  using Config = Bf16GroupedGemmConfig;
  using Args = Bf16GroupedGemmArgs;
  using Kernel = Bf16GroupedGemm;
  using Problem = Bf16Problem;

  static Config choose(const Shape& shape, const Caps& caps) {
    return bf16_grouped_gemm_choose(shape, caps);
  }
  static Status check(const Shape& shape, const Caps& caps) {
    return bf16_grouped_gemm_check(shape, caps);
  }
  static ExpertWeight weight(GpuCase& gpu, const Problem& p, const Shape&, uint32_t expert) {
    return {gpu.input(p.b[expert]).address(), 0};
  }
  static void add_a(GpuCase& gpu, const Problem& p, const Shape&, Args& args) {
    args.a = gpu.input(p.a).address();
  }
  static auto expected(const Problem& p) {
    reference::Bf16GroupedGemmInputs inputs{
        p.a.data(), p.a_rows.empty() ? nullptr : p.a_rows.data(), &p.ends, {}};
    for (const auto& b : p.b) inputs.b.push_back(b.data());
    return reference::bf16_grouped_gemm(p.shape, inputs);
  }
  static double bound(uint32_t k, double value, double magnitude, double u_out) {
    return bf16_gemm_bound(k, value, magnitude, u_out);
  }
  static std::vector<float> dense_rows(const Problem& p, uint32_t expert, uint32_t begin,
                                       uint32_t end) {
    GpuCase gpu(*device());
    Bf16GemmShape one = Bf16GemmShape::packed(end - begin, p.shape.n, p.shape.k);
    one.a_stride = p.shape.a_stride, one.b_stride = p.shape.b_stride;
    Result<Bf16Gemm> kernel = Bf16Gemm::create(*device(), bf16_gemm_choose(one, device()->caps()));
    EXPECT_TRUE(kernel.ok());
    const GuardedBuffer &a = gpu.input(p.a), &b = gpu.input(p.b[expert]);
    const GuardedBuffer& d = gpu.output(uint64_t(one.m) * one.n * 4);
    gpu.run([&](Recorder& recorder) {
      return kernel->record(recorder, one,
                            {a.address() + begin * one.a_stride * 4, b.address(), d.address()});
    });
    return gpu.values<float>(d);
  }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Bf16, GroupedGemmGpu, Bf16);
INSTANTIATE_TYPED_TEST_SUITE_P(Bf16, GroupedGemmHost, Bf16);

TEST(Bf16GroupedGemmHost, StridesAreWholeVectors) {
  using Shape = Bf16GroupedGemmShape;
  expect_broken_rule<Bf16>([](Shape& s) { s.a_stride = 202; },
                           "a_stride must be a multiple of 4 elements (16 bytes), got 202");
  expect_broken_rule<Bf16>([](Shape& s) { s.b_stride = 204; },
                           "b_stride must be a multiple of 8 elements (16 bytes), got 204");
}

}  // namespace
}  // namespace hadal::test
