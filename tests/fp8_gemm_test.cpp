// fp8_gemm against its reference: ragged and model shapes, every refusal, determinism across tiles.
#include "hadal/fp8_gemm.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>

#include "hadal/recorder.h"
#include "hadal/reference/formats.h"
#include "hadal/reference/fp8_gemm.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/shapes.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

struct Problem {
  Fp8GemmShape shape;
  std::vector<uint8_t> a, b;  // dense, strides as in the shape, padding 0xff
  std::vector<float> a_scale, b_scale;
  std::vector<uint8_t> a_e8m0, b_e8m0;  // what the device gets where shape.scales says so

  // `extra` elements of padding behind every row, as strides of real tensors may have.
  Problem(GemmSize size, uint32_t seed, uint32_t extra = 0) {
    Random random(seed);
    shape = Fp8GemmShape::packed(size.m, size.n, size.k);
    shape.a_stride += extra * 16, shape.b_stride += extra * 16;
    shape.a_scale_stride += extra, shape.b_scale_stride += extra, shape.d_stride += extra;
    a = padded(random.e4m3_codes(size_t(size.m) * size.k), size.k, shape.a_stride);
    b = padded(random.e4m3_codes(size_t(size.n) * size.k), size.k, shape.b_stride);
    // Scales over several binades, so that a misplaced one shows.
    a_scale = scales(random, size.m, shape.a_scale_stride);
    b_scale = scales(random, ceil_div(size.n, 128), shape.b_scale_stride);
  }

  // Other scales, of that form; padding NaN.
  void set_scales(Fp8ScaleForm form, uint32_t seed) {
    Random random(seed);
    shape.scales = form;
    a_scale = scales(random, shape.m, shape.a_scale_stride);
    b_scale = scales(random, ceil_div(shape.n, form.b_rows), shape.b_scale_stride);
    if (form.a_type == ScaleType::kE8m0) a_e8m0 = to_e8m0(random, a_scale);
    if (form.b_type == ScaleType::kE8m0) b_e8m0 = to_e8m0(random, b_scale);
  }
  // Random codes, and what they stand for in `values`.
  static std::vector<uint8_t> to_e8m0(Random& random, std::vector<float>& values) {
    std::vector<uint8_t> codes;
    for (float& v : values) {
      codes.push_back(uint8_t(117 + random.below(12)));
      v = reference::e8m0_decode(codes.back());
    }
    return codes;
  }

  static std::vector<uint8_t> padded(const std::vector<uint8_t>& rows, size_t width,
                                     size_t stride) {
    const size_t count = width ? rows.size() / width : 0;
    std::vector<uint8_t> result(count * stride, 0xff);
    for (size_t r = 0; r < count; ++r) std::memcpy(&result[r * stride], &rows[r * width], width);
    return result;
  }
  static std::vector<float> scales(Random& random, size_t rows, size_t stride) {
    std::vector<float> values(rows * stride);
    for (float& v : values) v = std::ldexp(random.uniform(0.5f, 1.0f), int(random.below(8)) - 10);
    return values;
  }
};

// Runs the problem on the device and returns d [m, n] as float.
std::vector<float> run(const Problem& problem, const Fp8GemmShape& shape,
                       const Fp8GemmConfig& config, const std::vector<float>& d_before = {}) {
  GpuCase gpu(*device());
  GuardedBuffer& a = gpu.input(problem.a);
  const auto scale = [&](ScaleType type, const auto& floats, const auto& bytes) -> GuardedBuffer& {
    return type == ScaleType::kF32 ? gpu.input(floats) : gpu.input(bytes);
  };
  GuardedBuffer& a_scale = scale(shape.scales.a_type, problem.a_scale, problem.a_e8m0);
  GuardedBuffer& b = gpu.input(problem.b);
  GuardedBuffer& b_scale = scale(shape.scales.b_type, problem.b_scale, problem.b_e8m0);
  const uint64_t d_bytes =
      shape.m ? (uint64_t(shape.m - 1) * shape.d_stride + shape.n) * element_bytes(shape.d_type)
              : 0;
  GuardedBuffer& d =
      d_before.empty() ? gpu.output(d_bytes) : gpu.input_rows(d_before, shape.n, shape.d_stride);
  Result<Fp8Gemm> kernel = Fp8Gemm::create(*device(), config);
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) {
    return kernel->record(
        recorder, shape,
        {a.address(), a_scale.address(), b.address(), b_scale.address(), d.address()});
  });
  if (shape.d_type == ElementType::kF32)
    return gpu.rows<float>(d, shape.m, shape.n, shape.d_stride);
  std::vector<float> result;
  for (uint16_t v : gpu.rows<uint16_t>(d, shape.m, shape.n, shape.d_stride)) {
    result.push_back(reference::bf16_decode(v));
  }
  return result;
}

void expect_matches_reference(const Problem& problem, const Fp8GemmShape& shape) {
  const auto expected = reference::fp8_gemm(
      problem.shape,
      {problem.a.data(), problem.a_scale.data(), problem.b.data(), problem.b_scale.data()});
  const double u_out = shape.d_type == ElementType::kBf16 ? kUBf16 : 0.0;
  const std::vector<float> d = run(problem, shape, fp8_gemm_choose(shape, device()->caps()));
  EXPECT_TRUE(matches(fmt::format("fp8_gemm {}x{}x{}", shape.m, shape.n, shape.k), d,
                      expected.value, shape.n, [&](size_t i) {
                        return fp8_gemm_bound(shape.k, expected.value[i], expected.magnitude[i],
                                              u_out);
                      }));
}

class Fp8GemmGpu : public GpuTest {};

TEST_F(Fp8GemmGpu, MatchesTheReferenceOnRaggedSizes) {
  uint32_t seed = 1;
  for (GemmSize size : ragged_gemm_sizes()) {
    const Problem problem(size, seed++);
    expect_matches_reference(problem, problem.shape);
  }
}

TEST_F(Fp8GemmGpu, HonoursStridesAndNeverUsesPadding) {
  const Problem problem({9, 70, 147}, 50, /*extra=*/3);
  expect_matches_reference(problem, problem.shape);
}

TEST_F(Fp8GemmGpu, WritesBfloat16) {
  const Problem problem({6, 45, 200}, 60);
  Fp8GemmShape shape = problem.shape;
  shape.d_type = ElementType::kBf16;
  expect_matches_reference(problem, shape);
}

TEST_F(Fp8GemmGpu, AccumulatesIntoD) {
  const Problem problem({5, 37, 130}, 80);
  Random random(81);
  const std::vector<float> before = random.normals(5 * 37, 100.0f);
  Fp8GemmShape shape = problem.shape;
  const Fp8GemmConfig config = fp8_gemm_choose(shape, device()->caps());
  const std::vector<float> product = run(problem, shape, config);
  shape.accumulate = true;
  const std::vector<float> sum = run(problem, shape, config, before);
  ASSERT_EQ(sum.size(), product.size());
  for (size_t i = 0; i < sum.size(); ++i) EXPECT_EQ(sum[i], product[i] + before[i]) << i;
}

// House rule 8: a row's bits depend neither on m nor on the tile that m selects.
TEST_F(Fp8GemmGpu, ARowHasTheSameBitsInEveryBatch) {
  const Problem problem({37, 65, 391}, 90);
  const Caps& caps = device()->caps();
  const std::vector<float> all = run(problem, problem.shape, fp8_gemm_choose(problem.shape, caps));
  for (uint32_t m : {1u, 2u, 5u, 9u, 17u}) {
    Problem part = problem;
    part.shape.m = m;
    part.a.resize(size_t(m) * part.shape.a_stride);
    part.a_scale.resize(size_t(m) * part.shape.a_scale_stride);
    const std::vector<float> rows = run(part, part.shape, fp8_gemm_choose(part.shape, caps));
    EXPECT_EQ(rows, std::vector<float>(all.begin(), all.begin() + long(rows.size()))) << "m " << m;
  }
}

TEST_F(Fp8GemmGpu, EmptyProblemsAreDefined) {
  const Problem none({0, 5, 16}, 1), no_columns({3, 0, 16}, 1);
  EXPECT_TRUE(run(none, none.shape, fp8_gemm_choose(none.shape, device()->caps())).empty());
  EXPECT_TRUE(run(no_columns, no_columns.shape, fp8_gemm_choose(no_columns.shape, device()->caps()))
                  .empty());
  const Problem no_k({3, 5, 0}, 1);
  EXPECT_EQ(run(no_k, no_k.shape, fp8_gemm_choose(no_k.shape, device()->caps())),
            std::vector<float>(15, 0.0f));
}

TEST_F(Fp8GemmGpu, ANanScalePoisonsItsRowOnly) {
  Problem problem({4, 33, 256}, 100);
  problem.a_scale[size_t(2) * problem.shape.a_scale_stride + 1] = NAN;
  const std::vector<float> d =
      run(problem, problem.shape, fp8_gemm_choose(problem.shape, device()->caps()));
  for (size_t i = 0; i < d.size(); ++i) EXPECT_EQ(std::isnan(d[i]), i / 33 == 2) << i;
}

const std::vector<Fp8ScaleForm>& scale_forms() {
  using enum ScaleType;
  static const std::vector<Fp8ScaleForm> forms = {{kF32, kF32, 1},
                                                  {kE8m0, kE8m0, 128},
                                                  {kE8m0, kE8m0, 1},
                                                  {kF32, kE8m0, 128},
                                                  {kE8m0, kF32, 1}};
  return forms;
}

TEST_F(Fp8GemmGpu, TakesScalesOfEveryForm) {
  uint32_t seed = 200;
  for (const Fp8ScaleForm& form : scale_forms()) {
    for (GemmSize size : {GemmSize{1, 131, 300}, {7, 257, 129}, {19, 45, 391}}) {
      Problem problem(size, seed, /*extra=*/seed % 3);
      problem.set_scales(form, ++seed);
      expect_matches_reference(problem, problem.shape);
    }
  }
}

TEST_F(Fp8GemmGpu, TheBitsDependOnTheScalesValuesOnly) {
  Problem bytes({5, 300, 391}, 230);
  bytes.set_scales({ScaleType::kE8m0, ScaleType::kE8m0, 128}, 231);
  const auto run_chosen = [](const Problem& p) {
    return run(p, p.shape, fp8_gemm_choose(p.shape, device()->caps()));
  };
  const std::vector<float> expected = run_chosen(bytes);
  Problem floats = bytes;
  floats.shape.scales = {};
  EXPECT_EQ(run_chosen(floats), expected);
  // A row of scales for each row of b instead of one for 128.
  Problem rows = floats;
  rows.shape.scales.b_rows = 1;
  rows.b_scale.clear();
  for (uint32_t row = 0; row < 300; ++row) {
    const auto first = floats.b_scale.begin() + row / 128 * floats.shape.b_scale_stride;
    rows.b_scale.insert(rows.b_scale.end(), first, first + floats.shape.b_scale_stride);
  }
  EXPECT_EQ(run_chosen(rows), expected);
}

// One product per code: 1 * 1 * 2^(e-127), subnormal for e = 0, where a driver may flush it.
TEST_F(Fp8GemmGpu, DecodesEveryE8m0CodeExactly) {
  Problem problem({256, 1, 16}, 1);
  problem.set_scales({ScaleType::kE8m0, ScaleType::kF32, 128}, 1);
  std::fill(problem.a.begin(), problem.a.end(), uint8_t(0));
  std::fill(problem.b.begin(), problem.b.end(), uint8_t(0));
  problem.b[0] = 0x38;
  problem.b_scale[0] = 1.0f;
  for (uint32_t code = 0; code < 256; ++code) {
    problem.a[size_t(code) * problem.shape.a_stride] = 0x38;
    problem.a_e8m0[code] = uint8_t(code);
  }
  const std::vector<float> d =
      run(problem, problem.shape, fp8_gemm_choose(problem.shape, device()->caps()));
  // The block sum holds 2^-16, so that the scale is multiplied by 2^16 first: infinite from 2^112
  // on.
  for (uint32_t code = 1; code < 127 + 112; ++code) {
    EXPECT_EQ(d[code], reference::e8m0_decode(uint8_t(code))) << code;
  }
  EXPECT_TRUE(d[0] == 0.0f || d[0] == std::ldexp(1.0f, -127));
  EXPECT_TRUE(std::isnan(d[255]));
}

// A decode over all codes: one product per code.
TEST_F(Fp8GemmGpu, DecodesEveryCodeExactly) {
  Problem problem({1, 254, 16}, 1);
  std::fill(problem.a.begin(), problem.a.end(), uint8_t(0));
  problem.a[0] = 0x38;  // 1.0
  problem.a_scale[0] = 1.0f;
  std::fill(problem.b_scale.begin(), problem.b_scale.end(), 1.0f);
  std::vector<float> expected;
  for (uint32_t row = 0; row < 254; ++row) {
    const uint8_t code = uint8_t(row < 127 ? row : row + 1);
    problem.b[size_t(row) * problem.shape.b_stride] = code;
    expected.push_back(reference::e4m3_decode(code));
  }
  EXPECT_EQ(run(problem, problem.shape, fp8_gemm_choose(problem.shape, device()->caps())),
            expected);
}

TEST_F(Fp8GemmGpu, MissingBarrierIsFoundByTheRecorder) {
  const Problem problem({2, 16, 16}, 1);
  GpuCase gpu(*device());
  GuardedBuffer& a = gpu.input(problem.a);
  GuardedBuffer& a_scale = gpu.input(problem.a_scale);
  GuardedBuffer& b = gpu.input(problem.b);
  GuardedBuffer& b_scale = gpu.input(problem.b_scale);
  GuardedBuffer& d = gpu.output(2 * 16 * 4);
  Result<Fp8Gemm> kernel =
      Fp8Gemm::create(*device(), fp8_gemm_choose(problem.shape, device()->caps()));
  ASSERT_TRUE(kernel.ok());
  const Fp8GemmArgs args{a.address(), a_scale.address(), b.address(), b_scale.address(),
                         d.address()};
  RecorderOptions options;
  options.check_hazards = true;
  Result<Recorder> recorder = Recorder::create(*device(), options);
  ASSERT_TRUE(recorder.ok());
  EXPECT_TRUE(kernel->record(*recorder, problem.shape, args).ok());
  const Status hazard = kernel->record(*recorder, problem.shape, args);  // writes d again
  EXPECT_EQ(hazard.code(), Errc::kHazard);
  EXPECT_NE(hazard.message().find("needs a barrier after fp8_gemm wrote"), std::string::npos);
  recorder->barrier();
  EXPECT_TRUE(kernel->record(*recorder, problem.shape, args).ok());
  EXPECT_TRUE(recorder->end().ok());
}

TEST(Fp8GemmHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const auto refused = [&](const std::function<void(Fp8GemmShape&)>& change) {
    Fp8GemmShape shape = Fp8GemmShape::packed(4, 20, 200);
    change(shape);
    const Status status = fp8_gemm_check(shape, caps);
    EXPECT_EQ(status.code(), Errc::kInvalidArgument);
    return status.message();
  };
  EXPECT_TRUE(fp8_gemm_check(Fp8GemmShape::packed(4, 20, 200), caps).ok());
  EXPECT_EQ(refused([](auto& s) { s.k = 1u << 25; }),
            "fp8_gemm: k must be at most 16777216, got 33554432");
  EXPECT_EQ(refused([](auto& s) { s.a_stride = 192; }),
            "fp8_gemm: a_stride must be at least k, got 192 < 200");
  EXPECT_EQ(refused([](auto& s) { s.a_stride = 201; }),
            "fp8_gemm: a_stride must be a multiple of 16 bytes, got 201");
  EXPECT_EQ(refused([](auto& s) { s.b_stride = 192; }),
            "fp8_gemm: b_stride must be at least k, got 192 < 200");
  EXPECT_EQ(refused([](auto& s) { s.b_stride = 201; }),
            "fp8_gemm: b_stride must be a multiple of 16 bytes, got 201");
  EXPECT_EQ(refused([](auto& s) { s.a_scale_stride = 1; }),
            "fp8_gemm: a_scale_stride must be at least ceil(k/128), got 1 < 2");
  EXPECT_EQ(refused([](auto& s) { s.b_scale_stride = 1; }),
            "fp8_gemm: b_scale_stride must be at least ceil(k/128), got 1 < 2");
  EXPECT_EQ(refused([](auto& s) { s.scales.b_rows = 64; }),
            "fp8_gemm: scales.b_rows must be 128 or 1, got 64");
  EXPECT_EQ(refused([](auto& s) { s.d_stride = 19; }),
            "fp8_gemm: d_stride must be at least n, got 19 < 20");
  EXPECT_EQ(refused([](auto& s) { s.m = 16 * 65535 + 1; }),
            "fp8_gemm: m must be at most 1048560, got 1048561");
}

TEST(Fp8GemmHost, ChoicePrintsItselfAndWhatItRejected) {
  const Fp8GemmConfig config = fp8_gemm_choose(Fp8GemmShape::packed(1, 256, 256), minimum_caps());
  EXPECT_EQ(config.tile_m, 1u);
  EXPECT_NE(config.to_string().find("not coopmat: the device has no VK_KHR_cooperative_matrix"),
            std::string::npos);
}

}  // namespace
}  // namespace hadal::test
