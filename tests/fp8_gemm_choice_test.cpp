// What fp8_gemm and fp8_grouped_gemm choose on devices that are not here.
#include <gtest/gtest.h>

#include <array>

#include "hadal/fp8_gemm.h"
#include "hadal/fp8_grouped_gemm.h"
#include "layout/fp8_gemm_paths.h"

namespace hadal::test {
namespace {

// Devices that are not here.
struct Gpu {
  const char* name;
  uint32_t subgroup, shared_bytes;
  std::vector<CoopMatrixShape> shapes;
  [[nodiscard]] Caps caps() const {
    Caps c = minimum_caps(subgroup);
    c.max_workgroup_invocations = 1024, c.max_workgroup_size = {1024, 1024, 64};
    c.max_shared_memory_bytes = shared_bytes;
    c.subgroup_size_control = c.vulkan_memory_model = c.shader_float16 = true;
    c.max_workgroup_subgroups = 1024 / subgroup;
    c.cooperative_matrix = !shapes.empty();
    c.coop_matrix_shapes = shapes;
    for (const CoopMatrixShape& s : shapes) {
      if (s.a_type == kCoopFloat8E4m3) c.shader_float8 = c.float8_cooperative_matrix = true;
    }
    return c;
  }
};
CoopMatrixShape f16_shape(uint32_t m, uint32_t n, uint32_t k) {
  return {m, n, k, kCoopFloat16, kCoopFloat16, kCoopFloat32, kCoopFloat32};
}
CoopMatrixShape float8_shape(uint32_t m, uint32_t n, uint32_t k) {
  return {m, n, k, kCoopFloat8E4m3, kCoopFloat8E4m3, kCoopFloat32, kCoopFloat32};
}
const std::vector<Gpu>& gpus() {
  static const std::vector<Gpu> all = {
      {"32 KiB, 16x16x16", 32, 32768, {f16_shape(16, 16, 16)}},
      {"48 KiB, float8 16x16x32", 32, 49152, {f16_shape(16, 16, 16), float8_shape(16, 16, 32)}},
      {"wave 64", 64, 65536, {f16_shape(16, 16, 16), float8_shape(16, 16, 16)}},
      {"wave 32, small memory", 32, 16384, {f16_shape(16, 16, 16)}},
      {"8x16x16 at 16", 16, 65536, {f16_shape(8, 16, 16)}},
      {"8x8x16 at 8", 8, 32768, {f16_shape(8, 8, 16)}},
      {"16x8x16 and 16x8x8", 32, 49152, {f16_shape(16, 8, 8), f16_shape(16, 8, 16)}},
      {"no matrices", 32, 49152, {}}};
  return all;
}

bool in_this_build(const Fp8GemmConfig& config) {
  for (const GemmRejection& r : config.rejected) {
    if (r.format.starts_with("not in this build")) return false;
  }
  return true;
}

void expect_fits(const Fp8GemmConfig& c, const Caps& caps) {
  const GemmTile& t = c.gpu_tile;
  SCOPED_TRACE(c.to_string());
  EXPECT_EQ(c.tile_m, t.tile_m);
  EXPECT_EQ(c.group_columns(), t.tile_n);
  EXPECT_EQ(c.workgroup_size, t.workgroup_size);
  EXPECT_LE(t.shared_bytes, caps.max_shared_memory_bytes);
  EXPECT_LE(t.workgroup_size, caps.max_workgroup_invocations);
  EXPECT_EQ(128 % t.tile_n, 0u);   // a tile's columns share one scale of b
  EXPECT_EQ(128 % t.block_k, 0u);  // a staged step lies in one block
  EXPECT_EQ(t.tile_m % t.part_m, 0u);
  EXPECT_EQ(t.tile_n % t.part_n, 0u);
  EXPECT_EQ(t.workgroup_size % (t.block_k / 16), 0u);
  const uint32_t parts = (t.tile_m / t.part_m) * (t.tile_n / t.part_n);
  if (c.path == GemmPath::kShared) {
    EXPECT_EQ(t.workgroup_size, parts);
    EXPECT_EQ(t.shared_bytes, HADAL_FP8_SHARED_BYTES(t.tile_m, t.tile_n, t.block_k));
    return;
  }
  EXPECT_EQ(t.workgroup_size, parts * t.subgroup_size);
  EXPECT_LE(parts, caps.max_workgroup_subgroups);
  EXPECT_EQ(t.part_m % t.coop_m, 0u);
  EXPECT_EQ(t.part_n % t.coop_n, 0u);
  EXPECT_EQ(t.block_k % t.coop_k, 0u);
  const uint32_t bytes = c.path == GemmPath::kCoopMatFp8 ? 1 : 2;
  EXPECT_EQ(t.shared_bytes, HADAL_FP8_COOPMAT_SHARED_BYTES(t.tile_m, t.tile_n, t.block_k, bytes,
                                                           t.coop_m, t.coop_n, parts));
  // Two sets of accumulators in registers.
  EXPECT_LE(2 * t.part_m * t.part_n, 128 * t.subgroup_size);
}

TEST(Fp8GemmPathsHost, EveryTileFitsTheDevice) {
  for (const Gpu& gpu : gpus()) {
    SCOPED_TRACE(gpu.name);
    const Caps caps = gpu.caps();
    for (uint32_t m : {1u, 8u, 9u, 16u, 17u, 64u, 65u, 4096u}) {
      for (const bool coarse : {false, true}) {
        GemmPolicy policy;
        policy.coarse_sums = coarse;
        const Fp8GemmConfig config =
            fp8_gemm_choose(Fp8GemmShape::packed(m, 4096, 7168), caps, policy);
        if (config.path != GemmPath::kPortable) expect_fits(config, caps);
      }
    }
  }
}

// House rule 8: one kind of unit, and one matrix shape, for every m.
TEST(Fp8GemmPathsHost, TheDefaultNeverMixesUnits) {
  for (const Gpu& gpu : gpus()) {
    SCOPED_TRACE(gpu.name);
    const Caps caps = gpu.caps();
    const Fp8GemmConfig one = fp8_gemm_choose(Fp8GemmShape::packed(1, 4096, 7168), caps);
    if (!in_this_build(one)) GTEST_SKIP() << one.to_string();
    const auto matrix = [](const auto& c) {
      return std::array{c.gpu_tile.coop_m, c.gpu_tile.coop_n, c.gpu_tile.coop_k};
    };
    const bool unit = one.path == GemmPath::kCoopMat;
    EXPECT_EQ(unit, !gpu.shapes.empty()) << one.to_string();
    for (uint32_t m : {2u, 9u, 64u, 4096u}) {
      const Fp8GemmConfig dense = fp8_gemm_choose(Fp8GemmShape::packed(m, 4096, 7168), caps);
      const Fp8GroupedGemmConfig grouped =
          fp8_grouped_gemm_choose(Fp8GroupedGemmShape::packed(m, 256, 4096, 7168), caps);
      EXPECT_EQ(dense.path == GemmPath::kCoopMat, unit) << dense.to_string();
      EXPECT_EQ(grouped.path == GemmPath::kCoopMat, unit) << grouped.to_string();
      EXPECT_EQ(matrix(dense), unit ? matrix(one) : matrix(dense));
      EXPECT_EQ(matrix(grouped), unit ? matrix(one) : matrix(grouped));
    }
  }
}

TEST(Fp8GemmPathsHost, ReasonsArePrinted) {
  const auto text = [](const Caps& caps, uint32_t m, const GemmPolicy& policy = {}) {
    return fp8_gemm_choose(Fp8GemmShape::packed(m, 4096, 7168), caps, policy).to_string();
  };
  const auto expect = [](const std::string& line, const char* part) {
    EXPECT_NE(line.find(part), std::string::npos) << line;
  };
  Caps caps = gpus()[7].caps();
  expect(text(caps, 64), "fp8_gemm: shared, tile 64x128x32, workgroup 256, shared 25600 bytes");
  expect(text(caps, 64), "not coopmat: the device has no VK_KHR_cooperative_matrix");
  expect(text(caps, 4), "fp8_gemm: portable");
  expect(text(caps, 4), "not shared: 4 rows are too few, it wants more than 8");
  caps.max_shared_memory_bytes = 1024;
  expect(text(caps, 64),
         "not shared: a tile of 16x32 needs 3584 bytes of shared memory, the device has 1024");

  caps = gpus()[0].caps();
  expect(text(caps, 64), "not coopmat_fp8: the device has no VK_EXT_shader_float8");
  caps.subgroup_size_control = false;
  expect(text(caps, 64), "not coopmat: the device cannot demand full subgroups");
  caps = gpus()[0].caps();
  caps.shader_float16 = false;
  expect(text(caps, 64), "not coopmat: the device has no shaderFloat16");
  caps = gpus()[0].caps();
  caps.coop_matrix_shapes[0].result_type = kCoopFloat16;
  expect(text(caps, 64),
         "not coopmat: no f16 x f16 -> f32 shape that divides 128 among the 1 listed");
  caps.is_cpu = true;
  expect(text(caps, 64), "not shared: slower on a CPU driver");

  caps = gpus()[1].caps();
  const Fp8GemmConfig config = fp8_gemm_choose(Fp8GemmShape::packed(64, 4096, 7168), caps);
  if (!in_this_build(config)) GTEST_SKIP() << config.to_string();
  expect(text(caps, 64), "fp8_gemm: coopmat, tile 64x128x64, matrix 16x16x16, subgroup 32");
  expect(text(caps, 64), "not coopmat_fp8: its sums may be coarse");
  GemmPolicy policy;
  policy.coarse_sums = true;
  expect(text(caps, 64, policy), "fp8_gemm: coopmat_fp8, tile 64x128x64, matrix 16x16x32");
  policy = {};
  policy.batch_invariant = false;
  expect(text(caps, 1, policy), "not coopmat: 1 rows are too few, it wants more than 8");
  caps.max_shared_memory_bytes = 2048;
  expect(text(caps, 64), "bytes of shared memory, the device has 2048");
}

}  // namespace
}  // namespace hadal::test
