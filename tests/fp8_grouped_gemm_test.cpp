// fp8_grouped_gemm: its problems, reference and dense form for the cases of both grouped GEMMs;
// every form of scales, offsets past 4 GiB, the choice of tiles, the rules that only it has.
#include "hadal/fp8_grouped_gemm.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "hadal/fp8_gemm.h"
#include "hadal/reference/formats.h"
#include "hadal/reference/fp8_grouped_gemm.h"
#include "support/grouped_gemm_cases.h"
#include "support/random.h"

namespace hadal::test {
namespace {

struct Fp8Problem {
  Fp8GroupedGemmShape shape;
  std::vector<uint32_t> ends, a_rows;  // a_rows empty: identity
  std::vector<uint8_t> a;              // padding 0xff
  std::vector<float> a_scale;
  std::vector<std::vector<uint8_t>> b;  // per expert
  std::vector<std::vector<float>> b_scale;
  std::vector<uint8_t> a_e8m0;  // what the device gets where shape.scales says so
  std::vector<std::vector<uint8_t>> b_e8m0;

  // tokens 0: no gather. `extra` units of padding behind every row.
  Fp8Problem(const std::vector<uint32_t>& lengths, uint32_t n, uint32_t k, uint32_t seed,
             uint32_t tokens = 0, uint32_t extra = 0)
      : ends(segment_ends(lengths)) {
    Random random(seed);
    shape = Fp8GroupedGemmShape::packed(ends.back(), uint32_t(ends.size()), n, k);
    shape.a_stride += extra * 16, shape.b_stride += extra * 16;
    shape.a_scale_stride += extra, shape.b_scale_stride += extra, shape.d_stride += extra;
    if (tokens) {
      shape.tokens = tokens;
      for (uint32_t r = 0; r < shape.rows; ++r) a_rows.push_back(random.below(tokens));
    }
    a = codes(random, shape.tokens, k, shape.a_stride);
    a_scale = scales(random, shape.tokens, shape.a_scale_stride);
    for (uint32_t e = 0; e < shape.experts; ++e) {
      b.push_back(codes(random, n, k, shape.b_stride));
      b_scale.push_back(scales(random, ceil_div(n, 128), shape.b_scale_stride));
    }
  }
  // Other scales, of that form.
  void set_scales(Fp8ScaleForm form, uint32_t seed) {
    Random random(seed);
    shape.scales = form;
    a_scale = scales(random, shape.tokens, shape.a_scale_stride);
    if (form.a_type == ScaleType::kE8m0) a_e8m0 = to_e8m0(random, a_scale);
    for (auto& scale : b_scale) {
      scale = scales(random, ceil_div(shape.n, form.b_rows), shape.b_scale_stride);
      if (form.b_type == ScaleType::kE8m0) b_e8m0.push_back(to_e8m0(random, scale));
    }
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
  static std::vector<uint8_t> codes(Random& random, size_t rows, size_t width, size_t stride) {
    std::vector<uint8_t> result = random.e4m3_codes(rows * stride);
    for (size_t i = 0; i < result.size(); ++i) {
      if (i % stride >= width) result[i] = 0xff;
    }
    return result;
  }
  static std::vector<float> scales(Random& random, size_t rows, size_t stride) {
    std::vector<float> values(rows * stride);
    for (float& v : values) v = std::ldexp(random.uniform(0.5f, 1.0f), int(random.below(8)) - 10);
    return values;
  }
};

struct Fp8 {
  static constexpr const char* kName = "fp8_grouped_gemm";
  using Shape = Fp8GroupedGemmShape;
  using Config = Fp8GroupedGemmConfig;
  using Args = Fp8GroupedGemmArgs;
  using Kernel = Fp8GroupedGemm;
  using Problem = Fp8Problem;

  static Config choose(const Shape& shape, const Caps& caps) {
    return fp8_grouped_gemm_choose(shape, caps);
  }
  static Status check(const Shape& shape, const Caps& caps) {
    return fp8_grouped_gemm_check(shape, caps);
  }
  static ExpertWeight weight(GpuCase& gpu, const Problem& p, const Shape& s, uint32_t expert) {
    const GuardedBuffer& scale = s.scales.b_type == ScaleType::kE8m0 ? gpu.input(p.b_e8m0[expert])
                                                                     : gpu.input(p.b_scale[expert]);
    return {gpu.input(p.b[expert]).address(), scale.address()};
  }
  static void add_a(GpuCase& gpu, const Problem& p, const Shape& s, Args& args) {
    args.a = gpu.input(p.a).address();
    args.a_scale = s.scales.a_type == ScaleType::kE8m0 ? gpu.input(p.a_e8m0).address()
                                                       : gpu.input(p.a_scale).address();
  }
  static auto expected(const Problem& p) {
    reference::Fp8GroupedGemmInputs inputs{
        p.a.data(), p.a_scale.data(), p.a_rows.empty() ? nullptr : p.a_rows.data(), &p.ends, {},
        {}};
    for (const auto& b : p.b) inputs.b.push_back(b.data());
    for (const auto& scale : p.b_scale) inputs.b_scale.push_back(scale.data());
    return reference::fp8_grouped_gemm(p.shape, inputs);
  }
  static double bound(uint32_t k, double value, double magnitude, double u_out) {
    return fp8_gemm_bound(k, value, magnitude, u_out);
  }
  static std::vector<float> dense_rows(const Problem& p, uint32_t expert, uint32_t begin,
                                       uint32_t end) {
    GpuCase gpu(*device());
    Fp8GemmShape one = Fp8GemmShape::packed(end - begin, p.shape.n, p.shape.k);
    one.a_stride = p.shape.a_stride, one.a_scale_stride = p.shape.a_scale_stride;
    one.b_stride = p.shape.b_stride, one.b_scale_stride = p.shape.b_scale_stride;
    Result<Fp8Gemm> kernel = Fp8Gemm::create(*device(), fp8_gemm_choose(one, device()->caps()));
    EXPECT_TRUE(kernel.ok());
    const GuardedBuffer &a = gpu.input(p.a), &a_scale = gpu.input(p.a_scale);
    const GuardedBuffer &b = gpu.input(p.b[expert]), &b_scale = gpu.input(p.b_scale[expert]);
    const GuardedBuffer& d = gpu.output(uint64_t(one.m) * one.n * 4);
    gpu.run([&](Recorder& recorder) {
      return kernel->record(
          recorder, one,
          {a.address() + begin * one.a_stride, a_scale.address() + begin * one.a_scale_stride * 4,
           b.address(), b_scale.address(), d.address()});
    });
    return gpu.values<float>(d);
  }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Fp8, GroupedGemmGpu, Fp8);
INSTANTIATE_TYPED_TEST_SUITE_P(Fp8, GroupedGemmHost, Fp8);

class Fp8GroupedGemmGpu : public GpuTest {};

TEST_F(Fp8GroupedGemmGpu, TakesScalesOfEveryForm) {
  using enum ScaleType;
  uint32_t seed = 90;
  for (const Fp8ScaleForm& form :
       {Fp8ScaleForm{kF32, kF32, 1}, {kE8m0, kE8m0, 128}, {kE8m0, kE8m0, 1}, {kF32, kE8m0, 1}}) {
    Fp8Problem problem({5, 0, 2, 9}, 131, 300, seed++, /*tokens=*/7, /*extra=*/1);
    problem.set_scales(form, seed);
    expect_matches_reference<Fp8>(problem, problem.shape);
  }
}

// Rows a million strides behind the addresses: 16 GiB into a, 4.3 GiB into a_scale and d.
TEST_F(Fp8GroupedGemmGpu, OffsetsOfRowsPassFourGibibytes) {
  const Fp8Problem p({2, 3}, 67, 391, 80, /*tokens=*/0, /*extra=*/1100);
  const std::vector<float> expected = run_grouped<Fp8>(p, p.shape, grouped_config<Fp8>(p.shape));
  constexpr uint32_t kFirst = 1000000;
  Fp8GroupedGemmShape shape = p.shape;
  shape.rows = shape.tokens = kFirst + p.shape.rows;
  shape.expected_rows = p.shape.rows;
  const Fp8GroupedGemmConfig config = grouped_config<Fp8>(shape);
  ASSERT_GT(std::min({uint64_t{shape.a_stride}, uint64_t{shape.a_scale_stride} * 4,
                      uint64_t{shape.d_stride} * 4}) *
                kFirst,
            uint64_t{1} << 32);
  GroupedGemmOnDevice<Fp8> on(p, p.shape, config);
  std::vector<MoeTile> tiles;
  for (uint32_t row = 0; row < p.shape.rows; ++row) {
    tiles.push_back({row < 2 ? 0u : 1u, kFirst + row, kFirst + row + 1, 0});
  }
  const GuardedBuffer& list = on.gpu.input(tiles);
  const std::array<uint32_t, 3> command{config.column_groups(shape.n), uint32_t(tiles.size()), 1};
  on.indirect->write(std::as_bytes(std::span(command)));
  on.args.tiles = list.address();
  on.args.a -= uint64_t{kFirst} * shape.a_stride;
  on.args.a_scale -= uint64_t{kFirst} * shape.a_scale_stride * 4;
  on.args.d -= uint64_t{kFirst} * shape.d_stride * 4;
  run_once(on, shape, config);
  EXPECT_EQ(on.gpu.rows<float>(*on.d, p.shape.rows, shape.n, shape.d_stride), expected);
  EXPECT_TRUE(on.d->guards_intact());
}

TEST_F(Fp8GroupedGemmGpu, RefusesOtherScalesThanTheConfigurations) {
  const Fp8Problem p({2, 3}, 16, 16, 1);
  const auto config = grouped_config<Fp8>(p.shape);
  GroupedGemmOnDevice<Fp8> on(p, p.shape, config);
  Result<Fp8GroupedGemm> kernel = Fp8GroupedGemm::create(*device(), config);
  Result<Recorder> recorder = Recorder::create(*device());
  ASSERT_TRUE(kernel.ok() && recorder.ok());
  Fp8GroupedGemmShape shape = p.shape;
  shape.scales.b_rows = 1;
  EXPECT_EQ(kernel->record(*recorder, shape, on.args).message(),
            "fp8_grouped_gemm: scales must be the configuration's");
  EXPECT_TRUE(recorder->end().ok());
}

TEST(Fp8GroupedGemmHost, RefusesItsOwnBrokenRulesByName) {
  using Shape = Fp8GroupedGemmShape;
  const auto refused = expect_broken_rule<Fp8>;
  refused([](Shape& s) { s.a_stride = 201; }, "a_stride must be a multiple of 16 bytes, got 201");
  refused([](Shape& s) { s.b_stride = 201; }, "b_stride must be a multiple of 16 bytes, got 201");
  refused([](Shape& s) { s.a_scale_stride = 1; },
          "a_scale_stride must be at least ceil(k/128), got 1 < 2");
  refused([](Shape& s) { s.b_scale_stride = 1; },
          "b_scale_stride must be at least ceil(k/128), got 1 < 2");
  refused([](Shape& s) { s.scales.b_rows = 0; }, "scales.b_rows must be 128 or 1, got 0");
}

TEST(Fp8GroupedGemmHost, TheTileFollowsTheRowsPerExpert) {
  Caps caps = minimum_caps();
  caps.is_cpu = true;  // takes the portable path
  const auto tile_m = [&](uint32_t rows, uint32_t experts) {
    return fp8_grouped_gemm_choose(Fp8GroupedGemmShape::packed(rows, experts, 64, 64), caps).tile_m;
  };
  EXPECT_EQ(tile_m(1, 1), 1u);
  EXPECT_EQ(tile_m(64, 256), 1u);
  EXPECT_EQ(tile_m(512, 256), 4u);
  EXPECT_EQ(tile_m(2048, 256), 8u);
  EXPECT_EQ(tile_m(8192, 256), 16u);
  EXPECT_EQ(tile_m(160000, 40000), 8u);  // 4 would make up to 70000 tiles, more than workgroups
}

TEST(Fp8GroupedGemmHost, TheTileFollowsTheExpectedRowsOfMaskedGroups) {
  Fp8GroupedGemmShape shape = Fp8GroupedGemmShape::packed(32 * 192, 32, 64, 64);
  const auto tile_m = [&](uint32_t expected_rows) {
    shape.expected_rows = expected_rows;
    return fp8_grouped_gemm_choose(shape, minimum_caps()).tile_m;
  };
  EXPECT_EQ(tile_m(0), tile_m(32 * 192));
  EXPECT_EQ(tile_m(32 * 192 + 1), tile_m(32 * 192));
  EXPECT_LT(tile_m(32), tile_m(32 * 192));
}

TEST(Fp8GroupedGemmHost, NoSpreadOfRowsMakesMoreTilesThanTheCapacity) {
  Random random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<uint32_t> lengths(1 + random.below(9));
    for (uint32_t& length : lengths) length = random.below(3) ? random.below(40) : 0;
    for (uint32_t tile_m : {1u, 4u, 8u, 16u}) {
      const std::vector<uint32_t> ends = segment_ends(lengths);
      const MoeTileList list = make_moe_tiles(ends, tile_m, 1);
      EXPECT_LE(list.indirect[1],
                grouped_gemm_max_tiles(ends.back(), uint32_t(ends.size()), tile_m));
    }
  }
  EXPECT_EQ(grouped_gemm_max_tiles(20, 4, 16), 5u);  // 1 + 1 + 1 + 17: reached
  EXPECT_EQ(grouped_gemm_max_tiles(0, 4, 16), 0u);
}

}  // namespace
}  // namespace hadal::test
