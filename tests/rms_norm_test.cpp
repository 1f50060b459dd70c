// rms_norm: against its reference within a derived bound; fused quantisation against fp8_quantize,
// bit for bit.
#include "hadal/rms_norm.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "hadal/fp8_quantize.h"
#include "hadal/reference/fp8_quantize.h"
#include "hadal/reference/rms_norm.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/same_bits.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

struct Problem {
  RmsNormShape shape;
  std::vector<float> x, residual, weight;  // dense

  Problem(uint32_t rows, uint32_t n, uint32_t seed) : shape(RmsNormShape::packed(rows, n)) {
    Random random(seed);
    x = random.normals(size_t(rows) * n, 3.0f);
    residual = random.normals(size_t(rows) * n, 0.5f);
    weight = random.uniforms(n, -2.0f, 2.0f);
  }
};

struct Outputs {
  std::vector<float> h, y, scale;
  std::vector<uint8_t> q;
};

Outputs run(const Problem& p, const RmsNormShape& s, uint32_t workgroup_size = 0) {
  GpuCase gpu(*device());
  GuardedBuffer& x = gpu.input_rows(p.x, s.n, s.x_stride);
  GuardedBuffer& residual = gpu.input_rows(p.residual, s.n, s.residual_stride);
  GuardedBuffer& weight = gpu.input(p.weight);
  GuardedBuffer& h = gpu.output(uint64_t{s.rows} * s.h_stride * 4);
  GuardedBuffer& y = gpu.output(uint64_t{s.rows} * s.y_stride * 4);
  GuardedBuffer& q = gpu.output(uint64_t{s.rows} * s.q_stride);
  GuardedBuffer& scale = gpu.output(uint64_t{s.rows} * s.scale_stride * 4);
  RmsNormConfig config = rms_norm_choose(s, device()->caps());
  if (workgroup_size) config.workgroup_size = workgroup_size, config.row_vectors = false;
  const auto kernel = RmsNorm::create(*device(), config);
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  const RmsNormArgs args{x.address(),
                         s.add_residual ? residual.address() : 0,
                         weight.address(),
                         s.write_h ? h.address() : 0,
                         s.write_y ? y.address() : 0,
                         s.quantize ? q.address() : 0,
                         s.quantize ? scale.address() : 0};
  gpu.run([&](Recorder& recorder) { return kernel->record(recorder, s, args); });
  // What is not asked for must stay untouched: a width of 0 checks the whole row.
  return {gpu.rows<float>(h, s.rows, s.write_h ? s.n : 0, s.h_stride),
          gpu.rows<float>(y, s.rows, s.write_y ? s.n : 0, s.y_stride),
          gpu.rows<float>(scale, s.rows, s.quantize ? ceil_div(s.n, 128) : 0, s.scale_stride),
          gpu.rows<uint8_t>(q, s.rows, s.quantize ? s.n : 0, s.q_stride)};
}

void expect_reference(const Problem& p, const RmsNormShape& s, uint32_t workgroup_size = 0) {
  const std::string name = fmt::format("rms_norm {}x{}", s.rows, s.n);
  RmsNormShape dense = s;
  dense.x_stride = dense.residual_stride = s.n;
  const auto expected =
      reference::rms_norm(dense, {p.x.data(), p.residual.data(), p.weight.data()});
  const Outputs actual = run(p, s, workgroup_size);
  EXPECT_TRUE(matches(name, actual.y, expected.y, s.n, [&](size_t i) {
    return rms_norm_bound(s.n, expected.y[i], expected.inverse_rms[i / s.n], p.weight[i % s.n]);
  }));
  if (s.write_h) {
    EXPECT_TRUE(matches(name + " h", actual.h, expected.h, s.n,
                        [&](size_t i) { return rms_norm_h_bound(expected.h[i]); }));
  }
  if (s.quantize) {
    const auto q = reference::fp8_quantize(s.rows, s.n, actual.y.data(), s.n, s.scale_format);
    EXPECT_TRUE(same_bits(actual.q, q.codes, s.n));
    EXPECT_TRUE(same_bits(actual.scale, q.scales, ceil_div(s.n, 128)));
  }
}

class RmsNormGpu : public GpuTest {};

TEST_F(RmsNormGpu, MatchesTheReferenceOnRaggedSizes) {
  uint32_t seed = 1;
  for (auto [rows, n] : {std::pair{1u, 1u},
                         {2u, 5u},
                         {3u, 127u},
                         {5u, 128u},
                         {7u, 131u},
                         {2u, 512u},
                         {1u, 1536u},
                         {2u, 7168u}}) {
    const Problem p(rows, n, seed++);
    expect_reference(p, p.shape);
    RmsNormShape s = p.shape;
    s.add_residual = s.write_h = s.quantize = true;
    expect_reference(p, s);
  }
}

TEST_F(RmsNormGpu, HonoursStridesAndNeverUsesPadding) {
  const Problem p(5, 197, 20);
  RmsNormShape s = p.shape;
  s.add_residual = s.write_h = s.quantize = true;
  s.scale_format = ScaleFormat::kUe8m0;
  s.x_stride += 3, s.residual_stride += 1, s.h_stride += 7, s.y_stride += 5;
  s.q_stride += 48, s.scale_stride += 2;
  expect_reference(p, s);
}

TEST_F(RmsNormGpu, AnyWorkgroupSizeMatches) {
  const Problem p(3, 421, 25);
  for (uint32_t size : {4u, 8u, 16u, 32u}) {
    RmsNormShape s = p.shape;
    s.quantize = true;
    expect_reference(p, s, size);
  }
}

// The sum's order does not know the workgroup: a device with another subgroup size gives these bits
// too.
TEST_F(RmsNormGpu, EveryWorkgroupSizeGivesTheSameBits) {
  for (uint32_t n : {1u, 61u, 131u, 1000u}) {
    const Problem p(3, n, 60 + n);
    const Outputs eight = run(p, p.shape, 8);
    for (uint32_t size : {0u, 4u, 16u, 32u}) {  // 0: the device's own choice and form
      EXPECT_TRUE(same_bits(run(p, p.shape, size).y, eight.y, n)) << n << " at " << size;
    }
  }
}

TEST_F(RmsNormGpu, EpsCountsAndTinyRowsStayFinite) {
  Problem p(4, 140, 30);
  for (size_t i = 0; i < p.x.size(); ++i) {
    p.x[i] *= i / 140 == 0 ? 0.0f : i / 140 == 1 ? 1e-20f : i / 140 == 2 ? 1e-5f : 1e15f;
  }
  for (float eps : {1e-6f, 1e-12f, 1.0f}) {
    p.shape.eps = eps;
    expect_reference(p, p.shape);
  }
}

// The bits of one output do not depend on which others are written.
TEST_F(RmsNormGpu, EveryCombinationOfOutputsHasTheSameBits) {
  const Problem p(3, 300, 40);
  RmsNormShape all = p.shape;
  all.add_residual = all.write_h = all.quantize = true;
  const Outputs expected = run(p, all);
  for (int mask = 1; mask < 8; ++mask) {
    RmsNormShape s = all;
    s.write_h = mask & 1, s.write_y = mask & 2, s.quantize = mask & 4;
    const Outputs actual = run(p, s);
    EXPECT_EQ(actual.h, s.write_h ? expected.h : std::vector<float>()) << mask;
    EXPECT_EQ(actual.y, s.write_y ? expected.y : std::vector<float>()) << mask;
    EXPECT_EQ(actual.q, s.quantize ? expected.q : std::vector<uint8_t>()) << mask;
    EXPECT_EQ(actual.scale, s.quantize ? expected.scale : std::vector<float>()) << mask;
  }
}

TEST_F(RmsNormGpu, FusedQuantisationEqualsFp8QuantizeAfterIt) {
  const Problem p(4, 393, 50);
  RmsNormShape fused = p.shape;
  fused.quantize = true, fused.write_y = false;
  const Outputs expected = run(p, fused);
  const auto qs = Fp8QuantizeShape::packed(4, 393);
  GpuCase gpu(*device());
  GuardedBuffer& x = gpu.input(p.x);
  GuardedBuffer& weight = gpu.input(p.weight);
  GuardedBuffer& y = gpu.output(p.x.size() * 4);
  GuardedBuffer& q = gpu.output(4 * qs.q_stride);
  GuardedBuffer& scale = gpu.output(4 * qs.scale_stride * 4);
  const auto norm = RmsNorm::create(*device(), rms_norm_choose(p.shape, device()->caps()));
  const auto quantize = Fp8Quantize::create(*device(), fp8_quantize_choose(qs, device()->caps()));
  ASSERT_TRUE(norm.ok() && quantize.ok());
  gpu.run([&](Recorder& recorder) -> Status {
    HADAL_TRY(
        norm->record(recorder, p.shape, {x.address(), 0, weight.address(), 0, y.address(), 0, 0}));
    recorder.barrier();
    return quantize->record(recorder, qs, {y.address(), q.address(), scale.address()});
  });
  EXPECT_EQ(gpu.rows<uint8_t>(q, 4, 393, qs.q_stride), expected.q);
  EXPECT_EQ(gpu.rows<float>(scale, 4, 4, qs.scale_stride), expected.scale);
}

TEST_F(RmsNormGpu, HMayReplaceTheResidual) {
  const Problem p(3, 261, 60);
  RmsNormShape s = p.shape;
  s.add_residual = s.write_h = true;
  const Outputs expected = run(p, s);
  GpuCase gpu(*device());
  GuardedBuffer& x = gpu.input(p.x);
  GuardedBuffer& residual = gpu.input(p.residual);
  GuardedBuffer& weight = gpu.input(p.weight);
  const auto kernel = RmsNorm::create(*device(), rms_norm_choose(s, device()->caps()));
  ASSERT_TRUE(kernel.ok());
  gpu.run([&](Recorder& recorder) {
    return kernel->record(
        recorder, s,
        {x.address(), residual.address(), weight.address(), residual.address(), x.address(), 0, 0});
  });
  EXPECT_EQ(gpu.values<float>(residual), expected.h);
  EXPECT_EQ(gpu.values<float>(x), expected.y);
}

TEST_F(RmsNormGpu, ARowHasTheSameBitsInEveryBatch) {
  constexpr uint32_t n = 391;
  const Problem p(13, n, 70);
  RmsNormShape s = p.shape;
  s.quantize = true;
  const Outputs all = run(p, s);
  s.rows = 1;
  for (uint32_t row : {0u, 6u, 12u}) {
    Problem one = p;
    one.x.assign(p.x.begin() + row * n, p.x.begin() + (row + 1) * n);
    one.residual.resize(n);
    const Outputs single = run(one, s);
    EXPECT_TRUE(std::equal(single.y.begin(), single.y.end(), all.y.begin() + row * n));
    EXPECT_TRUE(std::equal(single.q.begin(), single.q.end(), all.q.begin() + row * n));
  }
}

TEST_F(RmsNormGpu, ANanPoisonsItsRowOnly) {
  Problem p(3, 200, 80);
  p.x[200 + 150] = NAN;
  p.shape.quantize = true;
  const Outputs out = run(p, p.shape);
  for (size_t i = 0; i < out.y.size(); ++i) EXPECT_EQ(std::isnan(out.y[i]), i / 200 == 1) << i;
  for (size_t i = 0; i < out.scale.size(); ++i) EXPECT_EQ(std::isnan(out.scale[i]), i / 2 == 1);
  for (size_t i = 200; i < 400; ++i) EXPECT_EQ(out.q[i], 0);
}

TEST_F(RmsNormGpu, EmptyProblemsAreDefined) {
  EXPECT_TRUE(run(Problem(0, 5, 1), RmsNormShape::packed(0, 5)).y.empty());
  EXPECT_TRUE(run(Problem(3, 0, 1), RmsNormShape::packed(3, 0)).y.empty());
}

TEST_F(RmsNormGpu, RefusesMisalignedAddresses) {
  const auto s = RmsNormShape::packed(1, 16);
  const auto kernel = RmsNorm::create(*device(), rms_norm_choose(s, device()->caps()));
  Result<Recorder> recorder = Recorder::create(*device());
  ASSERT_TRUE(kernel.ok() && recorder.ok());
  EXPECT_EQ(kernel->record(*recorder, s, {0x1002, 0, 0x2000, 0, 0x3000, 0, 0}).message(),
            "rms_norm: addresses of floats must be 4-byte aligned");
  EXPECT_EQ(kernel->record(*recorder, s, {0x1000, 0, 0x2000, 0, 0x3000, 0x4004, 0}).message(),
            "rms_norm: q must be 16-byte aligned, got 0x4004");
}

TEST(RmsNormHost, RefusesEveryBrokenRuleByName) {
  const auto refused = [](const std::function<void(RmsNormShape&)>& change) {
    RmsNormShape shape = RmsNormShape::packed(4, 200);
    shape.add_residual = shape.write_h = shape.quantize = true;
    change(shape);
    const Status status = rms_norm_check(shape, minimum_caps());
    EXPECT_EQ(status.code(), Errc::kInvalidArgument);
    return status.message();
  };
  RmsNormShape only_y = RmsNormShape::packed(4, 200);
  only_y.residual_stride = only_y.h_stride = only_y.q_stride = only_y.scale_stride = 0;
  EXPECT_TRUE(rms_norm_check(only_y, minimum_caps()).ok());
  EXPECT_EQ(refused([](auto& s) { s.n = 1u << 23; }),
            "rms_norm: n must be at most 4194304, got 8388608");
  EXPECT_EQ(refused([](auto& s) { s.x_stride = 199; }),
            "rms_norm: x_stride must be at least n, got 199 < 200");
  EXPECT_EQ(refused([](auto& s) { s.residual_stride = 199; }),
            "rms_norm: residual_stride must be at least n, got 199 < 200");
  EXPECT_EQ(refused([](auto& s) { s.h_stride = 0; }),
            "rms_norm: h_stride must be at least n, got 0 < 200");
  EXPECT_EQ(refused([](auto& s) { s.y_stride = 199; }),
            "rms_norm: y_stride must be at least n, got 199 < 200");
  EXPECT_EQ(refused([](auto& s) { s.q_stride = 192; }),
            "rms_norm: q_stride must be at least n, got 192 < 200");
  EXPECT_EQ(refused([](auto& s) { s.q_stride = 201; }),
            "rms_norm: q_stride must be a multiple of 16 bytes, got 201");
  EXPECT_EQ(refused([](auto& s) { s.scale_stride = 1; }),
            "rms_norm: scale_stride must be at least ceil(n/128), got 1 < 2");
  EXPECT_EQ(refused([](auto& s) { s.eps = 0.0f; }), "rms_norm: eps must be from 1e-12 to 1, got 0");
  EXPECT_EQ(refused([](auto& s) { s.eps = NAN; }),
            "rms_norm: eps must be from 1e-12 to 1, got nan");
  EXPECT_EQ(refused([](auto& s) { s.rows = 65536; }),
            "rms_norm: rows must be at most 65535, got 65536");
}

TEST(RmsNormHost, ChoicePrintsItself) {
  EXPECT_EQ(rms_norm_choose({}, minimum_caps(16)).to_string(), "rms_norm: workgroup 16, mul+add");
}

}  // namespace
}  // namespace hadal::test
