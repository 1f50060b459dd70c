// The GPU paths of fp8_gemm and fp8_grouped_gemm: each against the reference, the same bits in
// every batch, and what choose() takes on devices that are not here.
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

}  // namespace
}  // namespace hadal::test
