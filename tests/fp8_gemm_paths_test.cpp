// The GPU paths of fp8_gemm and fp8_grouped_gemm: each against the reference, the same bits in
// every batch. What choose() takes: fp8_gemm_choice_test.cpp.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "hadal/fp8_gemm.h"
#include "hadal/fp8_grouped_gemm.h"
#include "hadal/recorder.h"
#include "hadal/reference/formats.h"
#include "hadal/reference/fp8_gemm.h"
#include "layout/fp8_gemm_paths.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/moe_tiles.h"
#include "support/random.h"
#include "support/shapes.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

struct Problem {
  Fp8GemmShape shape;
  std::vector<uint8_t> a, b;            // rows at the strides, padding NaN codes
  std::vector<float> a_scale, b_scale;  // rows at the strides, padding NaN

  Problem(GemmSize size, uint32_t seed, uint32_t extra = 1) {
    Random random(seed);
    shape = Fp8GemmShape::packed(size.m, size.n, size.k);
    shape.a_stride += extra * 16, shape.b_stride += extra * 16;
    shape.a_scale_stride += extra, shape.b_scale_stride += extra, shape.d_stride += extra;
    a = codes(random, size.m, size.k, shape.a_stride);
    b = codes(random, size.n, size.k, shape.b_stride);
    const uint32_t blocks = ceil_div(size.k, 128);
    a_scale = scales(random, size.m, blocks, shape.a_scale_stride);
    b_scale = scales(random, ceil_div(size.n, 128), blocks, shape.b_scale_stride);
  }
  static std::vector<uint8_t> codes(Random& random, size_t rows, size_t width, size_t stride) {
    std::vector<uint8_t> result = random.e4m3_codes(rows * stride);
    for (size_t i = 0; i < result.size(); ++i) {
      if (i % stride >= width) result[i] = 0xff;
    }
    return result;
  }
  static std::vector<float> scales(Random& random, size_t rows, size_t width, size_t stride) {
    std::vector<float> values(rows * stride, NAN);
    for (size_t i = 0; i < values.size(); ++i) {
      if (i % stride < width)
        values[i] = std::ldexp(random.uniform(0.5f, 1.0f), int(random.below(8)) - 10);
    }
    return values;
  }
  // Its first m rows.
  [[nodiscard]] Problem head(uint32_t m) const {
    Problem part = *this;
    part.shape.m = m;
    part.a.resize(size_t(m) * shape.a_stride);
    part.a_scale.resize(size_t(m) * shape.a_scale_stride);
    return part;
  }
};

std::vector<float> as_floats(GpuCase& gpu, const GuardedBuffer& d, uint32_t rows, uint32_t n,
                             uint32_t stride, ElementType type) {
  if (type == ElementType::kF32) return gpu.rows<float>(d, rows, n, stride);
  std::vector<float> result;
  for (uint16_t v : gpu.rows<uint16_t>(d, rows, n, stride)) {
    result.push_back(reference::bf16_decode(v));
  }
  return result;
}

std::vector<float> run(const Problem& p, const Fp8GemmShape& shape, const Fp8GemmConfig& config,
                       const std::vector<float>& before = {}) {
  GpuCase gpu(*device());
  GuardedBuffer& a = gpu.input(p.a);
  GuardedBuffer& a_scale = gpu.input(p.a_scale);
  GuardedBuffer& b = gpu.input(p.b);
  GuardedBuffer& b_scale = gpu.input(p.b_scale);
  const uint64_t elements = shape.m ? uint64_t(shape.m - 1) * shape.d_stride + shape.n : 0;
  GuardedBuffer& d = before.empty() ? gpu.output(elements * element_bytes(shape.d_type))
                                    : gpu.input_rows(before, shape.n, shape.d_stride);
  Result<Fp8Gemm> kernel = Fp8Gemm::create(*device(), config);
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  if (!kernel.ok()) return {};
  gpu.run([&](Recorder& recorder) {
    return kernel->record(
        recorder, shape,
        {a.address(), a_scale.address(), b.address(), b_scale.address(), d.address()});
  });
  return as_floats(gpu, d, shape.m, shape.n, shape.d_stride, shape.d_type);
}

reference::ValueAndMagnitude expected_of(const Problem& p) {
  return reference::fp8_gemm(p.shape, {p.a.data(), p.a_scale.data(), p.b.data(), p.b_scale.data()});
}

Fp8GemmConfig with_tile(GemmPath path, const GemmTile& tile, const Fp8GemmShape& shape) {
  Fp8GemmConfig config = fp8_gemm_choose(shape, device()->caps());
  config.path = path, config.gpu_tile = tile;
  config.tile_m = tile.tile_m, config.tile_n = tile.tile_n;
  config.workgroup_size = tile.workgroup_size;
  return config;
}

// Small tiles: a CPU driver compiles cooperative matrices at seconds a handful.
GemmTile small_coop_tile(const Caps& caps) {
  GemmTile t;
  t.coop_m = t.coop_n = t.coop_k = 8;
  t.tile_m = t.tile_n = 16, t.part_m = 8, t.part_n = 16, t.block_k = 16;
  t.subgroup_size = caps.subgroup_size, t.workgroup_size = 2 * caps.subgroup_size;
  t.shared_bytes = HADAL_FP8_COOPMAT_SHARED_BYTES(16, 16, 16, 2, 8, 8, 2);
  return t;
}

class Fp8GemmCoopMatGpu : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    const Caps& caps = device()->caps();
    GemmPolicy policy;
    const Fp8GemmConfig config = fp8_gemm_choose(Fp8GemmShape::packed(64, 64, 64), caps, policy);
    for (const GemmRejection& r : config.rejected) {
      // A CPU driver's slowness is no obstacle to a test.
      if (r.path != GemmPath::kCoopMat || r.format.empty() || r.format.starts_with("slower"))
        continue;
      GTEST_SKIP() << r.to_string();
    }
    // Elsewhere than on lavapipe the chosen tiles run; there a small one of its 8x8x8.
    tile_ = small_coop_tile(caps);
    if (!caps.is_cpu) tile_ = config.gpu_tile;
  }
  [[nodiscard]] Fp8GemmConfig config(const Fp8GemmShape& shape) const {
    return with_tile(GemmPath::kCoopMat, tile_, shape);
  }
  void expect_matches(const Problem& p, const Fp8GemmShape& shape) {
    const auto expected = expected_of(p);
    const double u_out = shape.d_type == ElementType::kBf16 ? kUBf16 : 0.0;
    EXPECT_TRUE(matches(fmt::format("fp8_gemm coopmat {}x{}x{}", shape.m, shape.n, shape.k),
                        run(p, shape, config(shape)), expected.value, shape.n, [&](size_t i) {
                          return fp8_gemm_coopmat_bound(shape.k, tile_.coop_k, expected.value[i],
                                                        expected.magnitude[i], kU32, u_out);
                        }));
  }
  GemmTile tile_;
};

TEST_F(Fp8GemmCoopMatGpu, MatchesTheReferenceOnRaggedSizes) {
  uint32_t seed = 1;
  for (GemmSize size : ragged_gemm_sizes()) {
    const Problem p(size, seed++);
    expect_matches(p, p.shape);
  }
}

TEST_F(Fp8GemmCoopMatGpu, WritesBfloat16AndAccumulates) {
  const Problem p({19, 45, 200}, 60);
  Fp8GemmShape shape = p.shape;
  shape.d_type = ElementType::kBf16;
  expect_matches(p, shape);

  Random random(81);
  const std::vector<float> before = random.normals(19 * 45, 100.0f);
  shape = p.shape;
  const std::vector<float> product = run(p, shape, config(shape));
  shape.accumulate = true;
  const std::vector<float> sum = run(p, shape, config(shape), before);
  ASSERT_EQ(sum.size(), product.size());
  for (size_t i = 0; i < sum.size(); ++i) EXPECT_EQ(sum[i], product[i] + before[i]) << i;
}

// House rule 8 inside the path: neither m nor the place in the tile changes a row.
TEST_F(Fp8GemmCoopMatGpu, ARowHasTheSameBitsInEveryBatch) {
  const Problem p({37, 65, 391}, 90);
  const std::vector<float> all = run(p, p.shape, config(p.shape));
  for (uint32_t m : {1u, 7u, 17u}) {
    const Problem part = p.head(m);
    const std::vector<float> rows = run(part, part.shape, config(part.shape));
    EXPECT_EQ(rows, std::vector<float>(all.begin(), all.begin() + long(rows.size()))) << "m " << m;
  }
  // The last row again as the first of its batch.
  Problem last = p.head(1);
  std::copy_n(p.a.end() - p.shape.a_stride, p.shape.a_stride, last.a.begin());
  std::copy_n(p.a_scale.end() - p.shape.a_scale_stride, p.shape.a_scale_stride,
              last.a_scale.begin());
  EXPECT_EQ(run(last, last.shape, config(last.shape)),
            std::vector<float>(all.end() - p.shape.n, all.end()));
}

TEST_F(Fp8GemmCoopMatGpu, DecodesEveryCodeExactly) {
  Problem p({1, 254, 16}, 1);
  std::fill(p.a.begin(), p.a.end(), uint8_t(0));
  p.a[0] = 0x38;  // 1.0
  p.a_scale[0] = 1.0f;
  std::fill(p.b_scale.begin(), p.b_scale.end(), 1.0f);
  std::vector<float> expected;
  for (uint32_t row = 0; row < 254; ++row) {
    const uint8_t code = uint8_t(row < 127 ? row : row + 1);
    p.b[size_t(row) * p.shape.b_stride] = code;
    expected.push_back(reference::e4m3_decode(code));
  }
  EXPECT_EQ(run(p, p.shape, config(p.shape)), expected);
}

TEST_F(Fp8GemmCoopMatGpu, EmptyKGivesZero) {
  const Problem p({3, 5, 0}, 1);
  EXPECT_EQ(run(p, p.shape, config(p.shape)), std::vector<float>(15, 0.0f));
}

// The shared-memory path. It promises the portable path's bits, which have the reference's bound.
class Fp8GemmSharedGpu : public GpuTest {
 protected:
  static GemmTile tile(uint32_t tile_m, uint32_t tile_n, uint32_t block_k, uint32_t part) {
    GemmTile t;
    t.tile_m = tile_m, t.tile_n = tile_n, t.block_k = block_k;
    t.part_m = t.part_n = part;
    t.workgroup_size = tile_m * tile_n / (part * part);
    t.shared_bytes = HADAL_FP8_SHARED_BYTES(tile_m, tile_n, block_k);
    return t;
  }
  static void expect_portable_bits(const Problem& p, const Fp8GemmShape& shape, const GemmTile& t) {
    Caps caps = minimum_caps(device()->caps().subgroup_size);
    caps.is_cpu = true;  // takes the portable path
    Fp8GemmConfig portable = fp8_gemm_choose(shape, caps);
    portable.use_fma = device()->caps().use_fma;
    EXPECT_EQ(portable.path, GemmPath::kPortable);
    EXPECT_EQ(run(p, shape, with_tile(GemmPath::kShared, t, shape)), run(p, shape, portable))
        << fmt::format("{}x{}x{}", shape.m, shape.n, shape.k);
  }
};

TEST_F(Fp8GemmSharedGpu, MatchesTheReferenceOnRaggedSizes) {
  uint32_t seed = 1;
  for (GemmSize size : ragged_gemm_sizes()) {
    const Problem p(size, seed++);
    const auto expected = expected_of(p);
    EXPECT_TRUE(matches(fmt::format("fp8_gemm shared {}x{}x{}", size.m, size.n, size.k),
                        run(p, p.shape, with_tile(GemmPath::kShared, tile(16, 32, 32, 4), p.shape)),
                        expected.value, size.n, [&](size_t i) {
                          return fp8_gemm_bound(size.k, expected.value[i], expected.magnitude[i]);
                        }));
  }
}

TEST_F(Fp8GemmSharedGpu, HasThePortablePathsBits) {
  const Problem p({37, 165, 391}, 90);
  expect_portable_bits(p, p.shape, tile(16, 32, 32, 4));
  expect_portable_bits(p, p.shape, tile(16, 64, 16, 8));
  const Problem one = p.head(1);
  expect_portable_bits(one, one.shape, tile(16, 32, 32, 4));
  Fp8GemmShape bf16 = p.shape;
  bf16.d_type = ElementType::kBf16;
  expect_portable_bits(p, bf16, tile(16, 32, 32, 4));
}

// The scalar path of CPU drivers, at every tile that the device has: the portable path's bits, also
// where the last tile moves back over its neighbour's columns and adds to d.
class Fp8GemmScalarGpu : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (!device()->caps().scalar_uniforms) GTEST_SKIP() << "no scalar uniforms on this driver";
  }
};

TEST_F(Fp8GemmScalarGpu, EveryTileHasThePortablePathsBits) {
  Caps caps = minimum_caps(device()->caps().subgroup_size);
  caps.is_cpu = true;  // takes the portable path
  for (const GemmSize size : {GemmSize{37, 165, 391}, GemmSize{1, 131, 5}, GemmSize{5, 97, 136}}) {
    const Problem p(size, 91);
    Random random(92);
    const std::vector<float> before = random.normals(size_t(size.m) * size.n, 100.0f);
    for (const bool accumulate : {false, true}) {
      Fp8GemmShape shape = p.shape;
      shape.accumulate = accumulate;
      const std::vector<float> d = accumulate ? before : std::vector<float>{};
      Fp8GemmConfig portable = fp8_gemm_choose(shape, caps);
      portable.use_fma = device()->caps().use_fma;
      ASSERT_EQ(portable.path, GemmPath::kPortable);
      const std::vector<float> expected = run(p, shape, portable, d);
      uint32_t tiles = 0;
      for (uint32_t rows : {1u, 4u, 8u, 16u, 32u, 40u}) {
        Fp8GemmShape few = shape;
        few.m = rows;  // which tiles are listed depends on the rows
        for (const Fp8GemmConfig& config : fp8_gemm_candidates(few, device()->caps())) {
          if (config.path != GemmPath::kScalar) continue;
          EXPECT_EQ(run(p, shape, config, d), expected) << config.to_string();
          ++tiles;
        }
      }
      EXPECT_GE(tiles, 5u);
    }
  }
}

// Rows of three experts (one empty) in one tensor: every path gives a row fp8_gemm's bits with that
// path.
void expect_grouped_is_dense(GemmPath path, const GemmTile& tile) {
  const std::vector<uint32_t> lengths = {19, 0, 6};
  const std::vector<uint32_t> ends = segment_ends(lengths);
  constexpr uint32_t kN = 45, kK = 200;
  const Problem all({25, kN, kK}, 7);
  const std::vector<Problem> experts = {Problem({19, kN, kK}, 8), Problem({1, kN, kK}, 9),
                                        Problem({6, kN, kK}, 10)};
  Fp8GroupedGemmShape shape = Fp8GroupedGemmShape::packed(25, 3, kN, kK);
  shape.a_stride = all.shape.a_stride, shape.a_scale_stride = all.shape.a_scale_stride;
  shape.b_stride = all.shape.b_stride, shape.b_scale_stride = all.shape.b_scale_stride;
  shape.d_stride = all.shape.d_stride;
  Fp8GroupedGemmConfig config = fp8_grouped_gemm_choose(shape, device()->caps());
  config.path = path, config.gpu_tile = tile;
  config.tile_m = tile.tile_m, config.tile_n = tile.tile_n;
  config.workgroup_size = tile.workgroup_size;

  GpuCase gpu(*device());
  std::vector<ExpertWeight> table;
  for (const Problem& e : experts) {
    table.push_back({gpu.input(e.b).address(), gpu.input(e.b_scale).address()});
  }
  const MoeTileList list = make_moe_tiles(ends, config.tile_m, config.column_groups(kN));
  GuardedBuffer& indirect =
      gpu.input(std::vector<uint32_t>(list.indirect.begin(), list.indirect.end()));
  GuardedBuffer& d = gpu.output((24 * shape.d_stride + kN) * 4);
  // Row r of d is of row 24 - r of a.
  std::vector<uint32_t> a_rows;
  for (uint32_t r = 0; r < 25; ++r) a_rows.push_back(24 - r);
  Fp8GroupedGemmArgs args;
  args.a = gpu.input(all.a).address(), args.a_scale = gpu.input(all.a_scale).address();
  args.a_rows = gpu.input(a_rows).address();
  args.expert_table = gpu.input(table).address(), args.tiles = gpu.input(list.tiles).address();
  args.indirect_buffer = &indirect.buffer();
  args.indirect_offset = indirect.address() - indirect.buffer().address();
  args.d = d.address();
  Result<Fp8GroupedGemm> kernel = Fp8GroupedGemm::create(*device(), config);
  ASSERT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) { return kernel->record(recorder, shape, args); });
  const std::vector<float> got = gpu.rows<float>(d, 25, kN, shape.d_stride);

  for (uint32_t e = 0; e < 3; ++e) {
    for (uint32_t r = ends[e] - lengths[e]; r < ends[e]; ++r) {
      Problem row = all.head(1);
      std::copy_n(all.a.begin() + long(a_rows[r] * shape.a_stride), shape.a_stride, row.a.begin());
      std::copy_n(all.a_scale.begin() + long(a_rows[r] * shape.a_scale_stride),
                  shape.a_scale_stride, row.a_scale.begin());
      row.b = experts[e].b, row.b_scale = experts[e].b_scale;
      EXPECT_EQ(std::vector<float>(got.begin() + r * kN, got.begin() + (r + 1) * kN),
                run(row, row.shape, with_tile(path, tile, row.shape)))
          << "row " << r;
    }
  }
}

TEST_F(Fp8GemmSharedGpu, GroupedHasTheDenseBits) {
  expect_grouped_is_dense(GemmPath::kShared, tile(16, 32, 32, 4));
}
TEST_F(Fp8GemmCoopMatGpu, GroupedHasTheDenseBits) {
  expect_grouped_is_dense(GemmPath::kCoopMat, tile_);
}

}  // namespace
}  // namespace hadal::test
