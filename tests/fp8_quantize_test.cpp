// fp8_quantize: the device against the reference bit for bit (all ties, all scales, hostile
// values), and the reference against the definition of "nearest", derived separately.
#include "hadal/fp8_quantize.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "hadal/reference/formats.h"
#include "hadal/reference/fp8_quantize.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/same_bits.h"

namespace hadal::test {
namespace {

constexpr ScaleFormat kFormats[] = {ScaleFormat::kFp32, ScaleFormat::kUe8m0};

float ulps(float x, int steps) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(x) + uint32_t(steps));
}

// x [rows, k] dense; strides as in the shape.
reference::QuantizedRows run(const std::vector<float>& x, const Fp8QuantizeShape& s,
                             uint32_t workgroup_size = 0) {
  Fp8QuantizeConfig config = fp8_quantize_choose(s, device()->caps());
  if (workgroup_size) config.workgroup_size = workgroup_size;
  GpuCase gpu(*device());
  const uint32_t groups = ceil_div(s.k, 128);
  GuardedBuffer& in = gpu.input_rows(x, s.k, s.x_stride);
  GuardedBuffer& q = gpu.output(uint64_t{s.rows} * s.q_stride);
  GuardedBuffer& scale = gpu.output(uint64_t{s.rows} * s.scale_stride * 4);
  const auto kernel = Fp8Quantize::create(*device(), config);
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) {
    return kernel->record(recorder, s, {in.address(), q.address(), scale.address()});
  });
  return {gpu.rows<uint8_t>(q, s.rows, s.k, s.q_stride),
          gpu.rows<float>(scale, s.rows, groups, s.scale_stride)};
}

void expect_reference(const std::vector<float>& x, const Fp8QuantizeShape& s) {
  SCOPED_TRACE(fmt::format("{}x{} {}", s.rows, s.k,
                           s.scale_format == ScaleFormat::kFp32 ? "fp32" : "ue8m0"));
  const auto actual = run(x, s);
  const auto expected = reference::fp8_quantize(s.rows, s.k, x.data(), s.k, s.scale_format);
  EXPECT_TRUE(same_bits(actual.scales, expected.scales, ceil_div(s.k, 128)));
  EXPECT_TRUE(same_bits(actual.codes, expected.codes, s.k));
}

class Fp8QuantizeGpu : public GpuTest {};

TEST_F(Fp8QuantizeGpu, EqualsTheReferenceOnRaggedSizes) {
  uint32_t seed = 1;
  for (ScaleFormat format : kFormats) {
    for (auto [rows, k] : {std::pair{1u, 1u},
                           {2u, 3u},
                           {3u, 127u},
                           {5u, 128u},
                           {7u, 129u},
                           {4u, 391u},
                           {1u, 2112u},
                           {2u, 7168u}}) {
      Random random(seed++);
      std::vector<float> x = random.normals(size_t(rows) * k);
      for (float& v : x) v = std::ldexp(v, int(random.below(24)) - 12);
      Fp8QuantizeShape shape = Fp8QuantizeShape::packed(rows, k, format);
      expect_reference(x, shape);
      shape.x_stride += 3, shape.q_stride += 32, shape.scale_stride += 2;
      expect_reference(x, shape);
    }
  }
}

// The byte form holds the exponents of the same scales, and 0xff where those are NaN.
TEST_F(Fp8QuantizeGpu, WritesE8m0Bytes) {
  for (auto [rows, k] : {std::pair{1u, 1u}, {3u, 129u}, {5u, 391u}, {2u, 2112u}}) {
    Random random(rows);
    std::vector<float> x = random.normals(size_t(rows) * k);
    for (float& v : x) v = std::ldexp(v, int(random.below(200)) - 80);
    x.back() = rows == 3 ? INFINITY : NAN;
    Fp8QuantizeShape s = Fp8QuantizeShape::packed(rows, k, ScaleFormat::kUe8m0);
    s.scale_type = ScaleType::kE8m0, s.scale_stride += 3;
    GpuCase gpu(*device());
    GuardedBuffer& in = gpu.input(x);
    GuardedBuffer& q = gpu.output(uint64_t{rows} * s.q_stride);
    GuardedBuffer& scale = gpu.output(uint64_t{rows} * s.scale_stride);
    const auto kernel = Fp8Quantize::create(*device(), fp8_quantize_choose(s, device()->caps()));
    ASSERT_TRUE(kernel.ok());
    gpu.run([&](Recorder& recorder) {
      return kernel->record(recorder, s, {in.address(), q.address(), scale.address()});
    });
    const auto expected = reference::fp8_quantize(rows, k, x.data(), k, ScaleFormat::kUe8m0);
    EXPECT_TRUE(same_bits(gpu.rows<uint8_t>(q, rows, k, s.q_stride), expected.codes, k));
    std::vector<float> scales;
    for (uint8_t code : gpu.rows<uint8_t>(scale, rows, ceil_div(k, 128), s.scale_stride)) {
      scales.push_back(reference::e8m0_decode(code));
    }
    EXPECT_TRUE(same_bits(scales, expected.scales, ceil_div(k, 128)));
  }
}

// Group maxima that stress the scale: 448*2^k and 2^k with 2 ulp around, the clamp, random ones.
std::vector<float> hard_maxima() {
  std::vector<float> maxima = {0.0f, 1e-30f, 1e-4f, ulps(1e-4f, 1), ulps(1e-4f, -1), 3.4028235e38f};
  for (int e = -22; e <= 118; e += e > 16 ? 17 : 1) {
    for (int d = -2; d <= 2; ++d) {
      maxima.push_back(ulps(std::ldexp(448.0f, e), d));
      if (e % 4 == 0) maxima.push_back(ulps(std::ldexp(1.0f, e + 8), d));
    }
  }
  Random random(5);
  for (int i = 0; i < 64; ++i) {
    maxima.push_back(std::ldexp(random.uniform(1, 2), int(random.below(60)) - 30));
  }
  return maxima;
}

// One row per maximum, holding every midpoint between neighbouring e4m3 values and 2 ulp around, as
// seen through that row's scale; each group begins with the maximum.
std::vector<float> rows_of_ties(const std::vector<float>& maxima, ScaleFormat format, uint32_t& k) {
  std::vector<float> x;
  for (float amax : maxima) {
    const float inverse = reference::fp8_inverse_scale(reference::fp8_scale(amax, format), format);
    const size_t begin = x.size();
    for (int code = 0; code < 126; ++code) {
      const double tie = 0.5 * (double(reference::e4m3_decode(uint8_t(code))) +
                                double(reference::e4m3_decode(uint8_t(code + 1))));
      const float at = float(tie / double(inverse));
      for (int d = -2; d <= 2; ++d) {
        if ((x.size() - begin) % 128 == 0) x.push_back(amax);
        const float v = ulps(at, d);
        x.push_back(std::min(v, std::max(amax, 1e-4f)) * (code % 2 ? -1.0f : 1.0f));
      }
    }
    k = uint32_t(x.size() - begin);
  }
  return x;
}

TEST_F(Fp8QuantizeGpu, RoundsEveryTieAndEveryScaleAsTheReference) {
  const std::vector<float> maxima = hard_maxima();
  for (ScaleFormat format : kFormats) {
    uint32_t k = 0;
    const std::vector<float> x = rows_of_ties(maxima, format, k);
    expect_reference(x, Fp8QuantizeShape::packed(uint32_t(maxima.size()), k, format));
  }
}

// Every size that choose() can give: in particular workgroups of several subgroups.
TEST_F(Fp8QuantizeGpu, AnyWorkgroupSizeGivesTheSameBits) {
  constexpr uint32_t k = 421;
  Random random(13);
  const std::vector<float> x = random.normals(size_t{3} * k);
  const auto expected = reference::fp8_quantize(3, k, x.data(), k, ScaleFormat::kFp32);
  for (uint32_t size : {4u, 8u, 16u, 32u}) {
    const auto actual = run(x, Fp8QuantizeShape::packed(3, k), size);
    EXPECT_TRUE(same_bits(actual.scales, expected.scales, 4)) << size;
    EXPECT_TRUE(same_bits(actual.codes, expected.codes, k)) << size;
  }
}

TEST_F(Fp8QuantizeGpu, HostileValues) {
  constexpr uint32_t kGroups = 9, k = kGroups * 128 - 5;
  Random random(9);
  std::vector<float> x = random.normals(k);
  const auto group = [&](uint32_t g) { return x.data() + size_t(g) * 128; };
  group(0)[17] = NAN;
  group(1)[127] = INFINITY;
  group(2)[0] = -INFINITY;
  std::fill_n(group(3), 128, 0.0f);
  std::fill_n(group(4), 128, -0.0f);
  for (uint32_t i = 0; i < 128; ++i)
    group(5)[i] = ulps(0.0f, int(1 + i * 65521)) * (i % 2 ? -1 : 1);
  group(6)[3] = -3.4028235e38f;
  group(7)[64] = std::bit_cast<float>(0xffffffffu);   // a NaN with every bit set
  group(8)[122] = std::bit_cast<float>(0x7f800001u);  // a signalling NaN, last channel of the row
  for (ScaleFormat format : kFormats) {
    const Fp8QuantizeShape shape = Fp8QuantizeShape::packed(1, k, format);
    expect_reference(x, shape);
    const auto result = run(x, shape);
    for (uint32_t g : {0u, 1u, 2u, 7u, 8u}) {
      EXPECT_TRUE(std::isnan(result.scales[g]));
      for (uint32_t c = g * 128; c < std::min(g * 128 + 128, k); ++c) EXPECT_EQ(result.codes[c], 0);
    }
    EXPECT_EQ(result.codes[4 * 128], 0x80);
    for (uint8_t code : result.codes) EXPECT_NE(code & 0x7f, 0x7f);
  }
}

TEST_F(Fp8QuantizeGpu, ARowHasTheSameBitsInEveryBatch) {
  constexpr uint32_t k = 300;
  Random random(11);
  const std::vector<float> x = random.normals(size_t{13} * k);
  const auto all = run(x, Fp8QuantizeShape::packed(13, k));
  for (uint32_t first : {0u, 6u, 12u}) {
    const std::vector<float> one(x.begin() + first * k, x.begin() + (first + 1) * k);
    const auto result = run(one, Fp8QuantizeShape::packed(1, k));
    EXPECT_TRUE(
        std::equal(result.codes.begin(), result.codes.end(), all.codes.begin() + first * k));
    EXPECT_TRUE(
        std::equal(result.scales.begin(), result.scales.end(), all.scales.begin() + first * 3));
  }
}

TEST_F(Fp8QuantizeGpu, EmptyProblemsAreDefined) {
  EXPECT_TRUE(run({}, Fp8QuantizeShape::packed(0, 5)).codes.empty());
  EXPECT_TRUE(run({}, Fp8QuantizeShape::packed(3, 0)).codes.empty());
}

TEST_F(Fp8QuantizeGpu, RefusesMisalignedAddresses) {
  const auto shape = Fp8QuantizeShape::packed(1, 16);
  const auto kernel = Fp8Quantize::create(*device(), fp8_quantize_choose(shape, device()->caps()));
  ASSERT_TRUE(kernel.ok());
  Result<Recorder> recorder = Recorder::create(*device());
  ASSERT_TRUE(recorder.ok());
  EXPECT_EQ(kernel->record(*recorder, shape, {0x1000, 0x2008, 0x3000}).message(),
            "fp8_quantize: x and scale must be 4-byte and q 16-byte aligned, got 0x1000, 0x3000, "
            "0x2008");
}

// The reference's reciprocal: |s * inverse - 1| < 2^-23 for every significand; the iteration is
// scale-invariant, so one binade stands for all, and a few far ones are sampled.
TEST(Fp8QuantizeHost, ReciprocalIsWithinOneUlpForEverySignificand) {
  double worst = 0.0;
  for (uint32_t m = 0; m < 1u << 23; ++m) {
    const float s = std::bit_cast<float>((120u << 23) | m);
    const double error =
        double(s) * double(reference::fp8_inverse_scale(s, ScaleFormat::kFp32)) - 1;
    worst = std::max(worst, std::fabs(error));
  }
  EXPECT_LT(worst, 0.84 * 0x1p-23);
  for (uint32_t exponent : {104u, 126u, 127u, 200u, 246u}) {
    for (uint32_t m = 0; m < 1u << 23; m += 9973) {
      const float s = std::bit_cast<float>((exponent << 23) | m);
      const float r = reference::fp8_inverse_scale(s, ScaleFormat::kFp32);
      EXPECT_LT(std::fabs(double(s) * double(r) - 1), 0.84 * 0x1p-23) << s;
    }
  }
}

TEST(Fp8QuantizeHost, ScalesFollowTheirDefinition) {
  for (float amax : hard_maxima()) {
    const double clamped = std::max(amax, 1e-4f);
    const double fp32 = reference::fp8_scale(amax, ScaleFormat::kFp32);
    EXPECT_LE(std::fabs(fp32 * 448 / clamped - 1), 0x1p-23);  // constant and product, half each
    const double ue8m0 = reference::fp8_scale(amax, ScaleFormat::kUe8m0);
    int exponent = 0;
    EXPECT_EQ(std::frexp(ue8m0, &exponent), 0.5);
    EXPECT_GE(ue8m0 * 448, clamped) << amax;  // exact in double
    EXPECT_LT(ue8m0 * 224, clamped) << amax;
  }
}

// |x*inverse - decode(code)| is the least of all codes; at a tie the code is even.
TEST(Fp8QuantizeHost, CodesAreNearestWithTiesToEven) {
  for (ScaleFormat format : kFormats) {
    uint32_t k = 0;
    const std::vector<float> maxima = {1.0f, 448.0f, 0.75f, 1e-5f, 3.1e7f, 1.7e-3f};
    const std::vector<float> x = rows_of_ties(maxima, format, k);
    const uint32_t rows = uint32_t(maxima.size()), groups = ceil_div(k, 128);
    const auto q = reference::fp8_quantize(rows, k, x.data(), k, format);
    size_t ties = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const float scale = q.scales[i / k * groups + i % k / 128];
      const float product = x[i] * reference::fp8_inverse_scale(scale, format);
      const auto distance = [&](int code) {
        return std::fabs((long double)(product)-reference::e4m3_decode(uint8_t(code)));
      };
      const int code = q.codes[i];
      ASSERT_NE(code & 0x7f, 0x7f);
      ASSERT_EQ(std::signbit(x[i]), code >> 7);
      for (int other = 0; other < 256; ++other) {
        if ((other & 0x7f) == 0x7f) continue;
        ASSERT_LE(distance(code), distance(other)) << x[i];
        const bool tie =
            distance(code) == distance(other) &&
            reference::e4m3_decode(uint8_t(other)) != reference::e4m3_decode(uint8_t(code));
        ties += tie;
        ASSERT_FALSE(tie && code % 2) << x[i];
      }
    }
    EXPECT_GT(ties, format == ScaleFormat::kUe8m0 ? 300u : 20u);  // the cases do hit ties
  }
}

TEST(Fp8QuantizeHost, RefusesEveryBrokenRuleByName) {
  const auto refused = [](const std::function<void(Fp8QuantizeShape&)>& change) {
    Fp8QuantizeShape shape = Fp8QuantizeShape::packed(4, 200);
    change(shape);
    const Status status = fp8_quantize_check(shape, minimum_caps());
    EXPECT_EQ(status.code(), Errc::kInvalidArgument);
    return status.message();
  };
  EXPECT_TRUE(fp8_quantize_check(Fp8QuantizeShape::packed(4, 200), minimum_caps()).ok());
  EXPECT_EQ(refused([](auto& s) { s.k = 1u << 23; }),
            "fp8_quantize: k must be at most 4194304, got 8388608");
  EXPECT_EQ(refused([](auto& s) { s.x_stride = 199; }),
            "fp8_quantize: x_stride must be at least k, got 199 < 200");
  EXPECT_EQ(refused([](auto& s) { s.q_stride = 192; }),
            "fp8_quantize: q_stride must be at least k, got 192 < 200");
  EXPECT_EQ(refused([](auto& s) { s.q_stride = 201; }),
            "fp8_quantize: q_stride must be a multiple of 16 bytes, got 201");
  EXPECT_EQ(refused([](auto& s) { s.scale_stride = 1; }),
            "fp8_quantize: scale_stride must be at least ceil(k/128), got 1 < 2");
  EXPECT_EQ(refused([](auto& s) { s.scale_type = ScaleType::kE8m0; }),
            "fp8_quantize: scale_type e8m0 needs scale_format ue8m0, got fp32");
  EXPECT_EQ(refused([](auto& s) { s.rows = 65536; }),
            "fp8_quantize: rows must be at most 65535, got 65536");
}

TEST(Fp8QuantizeHost, WorkgroupIsAPowerOfTwoFrom4To32) {
  for (auto [subgroup, expected] :
       {std::pair{1u, 4u}, {4u, 4u}, {8u, 8u}, {16u, 16u}, {64u, 32u}}) {
    const Fp8QuantizeConfig config = fp8_quantize_choose({}, minimum_caps(subgroup));
    EXPECT_EQ(config.workgroup_size, expected);
    EXPECT_NE(config.to_string().find("fp8_quantize: workgroup"), std::string::npos);
  }
}

}  // namespace
}  // namespace hadal::test
