// bf16_gemm against its reference: ragged shapes, every refusal, determinism across tiles and
// types.
#include "hadal/bf16_gemm.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "hadal/recorder.h"
#include "hadal/reference/bf16_gemm.h"
#include "hadal/reference/formats.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/shapes.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

struct Problem {
  Bf16GemmShape shape;
  std::vector<float> a;             // strides as in the shape, padding NaN
  std::vector<uint16_t> a_bf16, b;  // a_bf16: as a, when the shape says so

  // `extra` times 16 bytes of padding behind every row, as strides of real tensors may have.
  Problem(GemmSize size, uint32_t seed, ElementType a_type = ElementType::kF32,
          uint32_t extra = 0) {
    Random random(seed);
    shape = Bf16GemmShape::packed(size.m, size.n, size.k, a_type);
    shape.a_stride += extra * 16 / element_bytes(a_type), shape.b_stride += extra * 8;
    shape.d_stride += extra;
    a.assign(size_t(size.m) * shape.a_stride, NAN);
    a_bf16.assign(a_type == ElementType::kBf16 ? a.size() : 0, uint16_t(0xffff));
    b.assign(size_t(size.n) * shape.b_stride, uint16_t(0xffff));
    for (uint32_t i = 0; i < size.m; ++i) {
      for (uint32_t k = 0; k < size.k; ++k) {
        const size_t at = size_t(i) * shape.a_stride + k;
        a[at] = value(random);
        if (a_bf16.empty()) continue;
        a_bf16[at] = reference::bf16_encode(a[at]);
        a[at] = reference::bf16_decode(a_bf16[at]);
      }
    }
    for (uint32_t j = 0; j < size.n; ++j) {
      for (uint32_t k = 0; k < size.k; ++k) {
        b[size_t(j) * shape.b_stride + k] = reference::bf16_encode(value(random));
      }
    }
  }
  // Over several binades, so that a misplaced value shows.
  static float value(Random& random) { return std::ldexp(random.normal(), int(random.below(6))); }
};

// Runs the problem on the device and returns d [m, n] as float.
std::vector<float> run(const Problem& problem, const Bf16GemmShape& shape,
                       const Bf16GemmConfig& config, const std::vector<float>& d_before = {}) {
  GpuCase gpu(*device());
  GuardedBuffer& a =
      shape.a_type == ElementType::kF32 ? gpu.input(problem.a) : gpu.input(problem.a_bf16);
  GuardedBuffer& b = gpu.input(problem.b);
  const uint64_t d_bytes =
      shape.m ? (uint64_t(shape.m - 1) * shape.d_stride + shape.n) * element_bytes(shape.d_type)
              : 0;
  GuardedBuffer& d =
      d_before.empty() ? gpu.output(d_bytes) : gpu.input_rows(d_before, shape.n, shape.d_stride);
  Result<Bf16Gemm> kernel = Bf16Gemm::create(*device(), config);
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) {
    return kernel->record(recorder, shape, {a.address(), b.address(), d.address()});
  });
  if (shape.d_type == ElementType::kF32)
    return gpu.rows<float>(d, shape.m, shape.n, shape.d_stride);
  std::vector<float> result;
  for (uint16_t v : gpu.rows<uint16_t>(d, shape.m, shape.n, shape.d_stride)) {
    result.push_back(reference::bf16_decode(v));
  }
  return result;
}

std::vector<float> run(const Problem& problem) {
  return run(problem, problem.shape, bf16_gemm_choose(problem.shape, device()->caps()));
}

void expect_matches_reference(const Problem& problem, const Bf16GemmShape& shape) {
  const auto expected = reference::bf16_gemm(
      problem.shape, {problem.a.data(), problem.a_bf16.data(), problem.b.data()});
  const double u_out = shape.d_type == ElementType::kBf16 ? kUBf16 : 0.0;
  const std::vector<float> d = run(problem, shape, bf16_gemm_choose(shape, device()->caps()));
  EXPECT_TRUE(matches(fmt::format("bf16_gemm {}x{}x{}", shape.m, shape.n, shape.k), d,
                      expected.value, shape.n, [&](size_t i) {
                        return bf16_gemm_bound(shape.k, expected.value[i], expected.magnitude[i],
                                               u_out);
                      }));
}

class Bf16GemmGpu : public GpuTest {};

TEST_F(Bf16GemmGpu, MatchesTheReferenceOnRaggedSizes) {
  uint32_t seed = 1;
  for (GemmSize size : ragged_gemm_sizes()) {
    const Problem problem(size, seed++);
    expect_matches_reference(problem, problem.shape);
  }
}

// Every tail of k that is masked: 1 to 8 past a multiple of 8, a row of a ending right there.
TEST_F(Bf16GemmGpu, MasksEveryTail) {
  for (ElementType type : {ElementType::kF32, ElementType::kBf16}) {
    for (uint32_t tail = 1; tail <= 8; ++tail) {
      const Problem problem({3, 21, 128 + tail}, 20 + tail, type);
      expect_matches_reference(problem, problem.shape);
    }
  }
}

TEST_F(Bf16GemmGpu, HonoursStridesAndNeverUsesPadding) {
  for (ElementType type : {ElementType::kF32, ElementType::kBf16}) {
    const Problem problem({9, 70, 147}, 50, type, /*extra=*/3);
    expect_matches_reference(problem, problem.shape);
  }
}

TEST_F(Bf16GemmGpu, WritesBfloat16) {
  const Problem problem({6, 45, 200}, 60);
  Bf16GemmShape shape = problem.shape;
  shape.d_type = ElementType::kBf16;
  expect_matches_reference(problem, shape);
}

TEST_F(Bf16GemmGpu, ABfloat16InputGivesTheBitsOfTheSameFloats) {
  const Problem narrow({7, 45, 268}, 70, ElementType::kBf16);
  Problem wide = narrow;  // k is a multiple of 4, but strides differ
  wide.shape = Bf16GemmShape::packed(7, 45, 268);
  wide.a.clear();
  for (uint32_t i = 0; i < 7; ++i) {
    const auto row = narrow.a.begin() + long(i * narrow.shape.a_stride);
    wide.a.insert(wide.a.end(), row, row + 268);
  }
  EXPECT_EQ(run(narrow), run(wide));
}

TEST_F(Bf16GemmGpu, AccumulatesIntoD) {
  const Problem problem({5, 37, 130}, 80);
  Random random(81);
  const std::vector<float> before = random.normals(5 * 37, 100.0f);
  Bf16GemmShape shape = problem.shape;
  const Bf16GemmConfig config = bf16_gemm_choose(shape, device()->caps());
  const std::vector<float> product = run(problem, shape, config);
  shape.accumulate = true;
  const std::vector<float> sum = run(problem, shape, config, before);
  ASSERT_EQ(sum.size(), product.size());
  for (size_t i = 0; i < sum.size(); ++i) EXPECT_EQ(sum[i], product[i] + before[i]) << i;
}

// House rule 8: a row's bits depend neither on m nor on the tile that m selects.
TEST_F(Bf16GemmGpu, ARowHasTheSameBitsInEveryBatch) {
  const Problem problem({37, 65, 391}, 90);
  const std::vector<float> all = run(problem);
  for (uint32_t m : {1u, 2u, 5u, 9u, 17u}) {
    Problem part = problem;
    part.shape.m = m;
    part.a.resize(size_t(m) * part.shape.a_stride);
    const std::vector<float> rows = run(part);
    EXPECT_EQ(rows, std::vector<float>(all.begin(), all.begin() + long(rows.size()))) << "m " << m;
  }
}

// Batches of a beside or behind each other, of b behind each other or shared, of d as a's: every
// element by the reference, and the bits of the single products.
struct BatchedProblem {
  Bf16GemmShape shape;
  std::vector<float> a;
  std::vector<uint16_t> b;

  BatchedProblem(GemmSize size, uint32_t batch, bool beside, bool shared_b, uint32_t seed) {
    Random random(seed);
    shape = Bf16GemmShape::packed(size.m, size.n, size.k);
    shape.batch = batch;
    const uint32_t a_width = shape.a_stride + 4, d_width = size.n + 3;  // with padding
    shape.b_batch_stride = shared_b ? 0 : size.n * shape.b_stride + 16;
    if (beside) {
      shape.a_batch_stride = a_width, shape.a_stride = a_width * batch;
      shape.d_batch_stride = d_width, shape.d_stride = d_width * batch;
    } else {
      shape.a_batch_stride = a_width * size.m, shape.a_stride = a_width;
      shape.d_batch_stride = d_width * size.m, shape.d_stride = d_width;
    }
    a.assign(size_t(size.m) * a_width * batch, NAN);
    b.assign(size_t(shared_b ? 1 : batch) * (size.n * shape.b_stride + 16), uint16_t(0xffff));
    for (uint32_t i = 0; i < batch; ++i) {
      for (uint32_t k = 0; k < size.k; ++k) {
        for (uint32_t row = 0; row < size.m; ++row) {
          a[size_t(i) * shape.a_batch_stride + size_t(row) * shape.a_stride + k] =
              Problem::value(random);
        }
        for (uint32_t row = 0; row < size.n; ++row) {
          b[size_t(i) * shape.b_batch_stride + size_t(row) * shape.b_stride + k] =
              reference::bf16_encode(Problem::value(random));
        }
      }
    }
  }
  [[nodiscard]] size_t d_offset(uint32_t batch, uint32_t row) const {
    return size_t(batch) * shape.d_batch_stride + size_t(row) * shape.d_stride;
  }
};

TEST_F(Bf16GemmGpu, BatchesMatchTheReferenceAndTheSingleProducts) {
  uint32_t seed = 300;
  for (auto [size, batch] : {std::pair{GemmSize{1, 37, 131}, 5u},
                             {GemmSize{7, 129, 64}, 3u},
                             {GemmSize{19, 21, 150}, 2u},
                             {GemmSize{2, 5, 8}, 130u}}) {
    for (bool beside : {false, true}) {
      const BatchedProblem p(size, batch, beside, /*shared_b=*/seed % 3 == 0, seed);
      ++seed;
      GpuCase gpu(*device());
      GuardedBuffer &a = gpu.input(p.a), &b = gpu.input(p.b);
      GuardedBuffer& d = gpu.output((p.d_offset(batch - 1, size.m - 1) + size.n) * 4);
      GuardedBuffer& one = gpu.output((p.d_offset(0, size.m - 1) + size.n) * 4);
      Result<Bf16Gemm> kernel =
          Bf16Gemm::create(*device(), bf16_gemm_choose(p.shape, device()->caps()));
      ASSERT_TRUE(kernel.ok());
      Bf16GemmShape single = p.shape;
      single.batch = 1;
      gpu.run([&](Recorder& recorder) {
        HADAL_TRY(kernel->record(recorder, p.shape, {a.address(), b.address(), d.address()}));
        // The last batch alone.
        const uint64_t last = batch - 1;
        return kernel->record(recorder, single,
                              {a.address() + last * p.shape.a_batch_stride * 4,
                               b.address() + last * p.shape.b_batch_stride * 2, one.address()});
      });
      const std::vector<float> all = gpu.values<float>(d), alone = gpu.values<float>(one);
      std::vector<bool> written(all.size(), false);
      std::vector<float> dense;
      for (uint32_t i = 0; i < batch; ++i) {
        for (uint32_t row = 0; row < size.m; ++row) {
          for (uint32_t column = 0; column < size.n; ++column) {
            const size_t at = p.d_offset(i, row) + column;
            dense.push_back(all[at]);
            written[at] = true;
            if (i + 1 < batch) continue;
            EXPECT_EQ(all[at], alone[p.d_offset(0, row) + column]);
          }
        }
      }
      for (size_t i = 0; i < all.size(); ++i) EXPECT_TRUE(written[i] || std::isnan(all[i])) << i;
      const auto expected = reference::bf16_gemm(p.shape, {p.a.data(), nullptr, p.b.data()});
      EXPECT_TRUE(matches(fmt::format("bf16_gemm {} of {}x{}x{}", batch, size.m, size.n, size.k),
                          dense, expected.value, size.n, [&](size_t i) {
                            return bf16_gemm_bound(size.k, expected.value[i],
                                                   expected.magnitude[i]);
                          }));
    }
  }
}

TEST_F(Bf16GemmGpu, EmptyProblemsAreDefined) {
  EXPECT_TRUE(run(Problem({0, 5, 16}, 1)).empty());
  EXPECT_TRUE(run(Problem({3, 0, 16}, 1)).empty());
  EXPECT_EQ(run(Problem({3, 5, 0}, 1)), std::vector<float>(15, 0.0f));
}

TEST_F(Bf16GemmGpu, ANanOrInfinityPoisonsItsRowOnly) {
  for (float hostile : {NAN, INFINITY}) {
    Problem problem({4, 33, 256}, 100);
    problem.a[size_t(2) * problem.shape.a_stride + 131] = hostile;
    const std::vector<float> d = run(problem);
    for (size_t i = 0; i < d.size(); ++i) EXPECT_EQ(!std::isfinite(d[i]), i / 33 == 2) << i;
  }
}

// One product with 1 per code: the decode is exact for every finite normal bfloat16 and both zeros.
TEST_F(Bf16GemmGpu, DecodesEveryCodeExactly) {
  Problem problem({1, 65536 - 256, 1}, 1);
  problem.a[0] = 1.0f;
  std::vector<float> expected;
  uint32_t row = 0;
  for (uint32_t code = 0; code < 65536; ++code) {
    if ((code & 0x7f80) == 0x7f80) continue;  // infinities and NaN
    problem.b[size_t(row++) * problem.shape.b_stride] = uint16_t(code);
    const bool subnormal = (code & 0x7f80) == 0;  // a driver may flush those: expect 0 or exact
    expected.push_back(subnormal ? 0.0f : reference::bf16_decode(uint16_t(code)));
  }
  const std::vector<float> d = run(problem);
  ASSERT_EQ(d.size(), expected.size());
  for (size_t i = 0; i < d.size(); ++i) {
    const bool close = std::fabs(d[i]) < 0x1p-126f && expected[i] == 0.0f;
    EXPECT_TRUE(d[i] == expected[i] || close) << i << ": " << d[i] << " for " << expected[i];
  }
}

TEST(Bf16GemmHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const auto refused = [&](const std::function<void(Bf16GemmShape&)>& change) {
    Bf16GemmShape shape = Bf16GemmShape::packed(4, 20, 200);
    change(shape);
    const Status status = bf16_gemm_check(shape, caps);
    EXPECT_EQ(status.code(), Errc::kInvalidArgument);
    return status.message();
  };
  EXPECT_TRUE(bf16_gemm_check(Bf16GemmShape::packed(4, 20, 201), caps).ok());
  EXPECT_TRUE(bf16_gemm_check(Bf16GemmShape::packed(4, 20, 201, ElementType::kBf16), caps).ok());
  EXPECT_EQ(refused([](auto& s) { s.k = 1u << 25; }),
            "bf16_gemm: k must be at most 16777216, got 33554432");
  EXPECT_EQ(refused([](auto& s) { s.a_stride = 196; }),
            "bf16_gemm: a_stride must be at least k, got 196 < 200");
  EXPECT_EQ(refused([](auto& s) { s.a_stride = 202; }),
            "bf16_gemm: a_stride must be a multiple of 4 elements (16 bytes), got 202");
  EXPECT_EQ(refused([](auto& s) { s.a_type = ElementType::kBf16, s.a_stride = 204; }),
            "bf16_gemm: a_stride must be a multiple of 8 elements (16 bytes), got 204");
  EXPECT_EQ(refused([](auto& s) { s.b_stride = 192; }),
            "bf16_gemm: b_stride must be at least k, got 192 < 200");
  EXPECT_EQ(refused([](auto& s) { s.b_stride = 204; }),
            "bf16_gemm: b_stride must be a multiple of 8 elements (16 bytes), got 204");
  EXPECT_EQ(refused([](auto& s) { s.d_stride = 19; }),
            "bf16_gemm: d_stride must be at least n, got 19 < 20");
  const auto batches = [](auto& s) {
    s.batch = 3, s.a_batch_stride = 800, s.b_batch_stride = 4000, s.d_batch_stride = 80;
  };
  EXPECT_EQ(bf16_gemm_check(
                [&] {
                  Bf16GemmShape shape = Bf16GemmShape::packed(4, 20, 200);
                  batches(shape);
                  return shape;
                }(),
                caps)
                .message(),
            "");
  EXPECT_EQ(refused([&](auto& s) { batches(s), s.batch = 65536; }),
            "bf16_gemm: batch must be at most 65535, got 65536");
  EXPECT_EQ(refused([&](auto& s) { batches(s), s.a_batch_stride = 802; }),
            "bf16_gemm: a_batch_stride must be a multiple of 4 elements (16 bytes), got 802");
  EXPECT_EQ(refused([&](auto& s) { batches(s), s.b_batch_stride = 4004; }),
            "bf16_gemm: b_batch_stride must be a multiple of 8 elements (16 bytes), got 4004");
  EXPECT_EQ(refused([&](auto& s) { batches(s), s.d_batch_stride = 79; }),
            "bf16_gemm: d_batch_stride must keep the batches of d apart, got 79 for 3 batches of 4 "
            "rows of 20, 20 apart");
  EXPECT_EQ(refused([&](auto& s) { batches(s), s.d_batch_stride = 21, s.d_stride = 61; }),
            "bf16_gemm: d_batch_stride must keep the batches of d apart, got 21 for 3 batches of 4 "
            "rows of 20, 61 apart");
  EXPECT_EQ(refused([](auto& s) { s.m = 16 * 65535 + 1; }),
            "bf16_gemm: m must be at most 1048560, got 1048561");
}

TEST(Bf16GemmHost, ChoicePrintsItselfAndWhatItRejected) {
  const Bf16GemmConfig config =
      bf16_gemm_choose(Bf16GemmShape::packed(1, 256, 256), minimum_caps());
  EXPECT_EQ(config.tile_m, 1u);
  EXPECT_NE(config.to_string().find("not coopmat: the device has no VK_KHR_cooperative_matrix"),
            std::string::npos);
}

}  // namespace
}  // namespace hadal::test
