// The paths of fp8_gemm.h's and fp8_grouped_gemm.h's products: which tiles a device has, which is
// chosen and why not the others, what a pipeline of it is. Longer than other files: the choice is
// one table of rules that are read beside each other. The tuner's side is tuning.cpp.
#include "fp8_gemm_paths.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "hadal/device.h"
#include "kernel_util.h"
#include "layout/fp8_gemm.h"
#include "layout/fp8_gemm_paths.h"
#include "layout/fp8_grouped_gemm.h"
#include "vk/e4m3_table.h"
#include "vk/pipeline.h"

namespace hadal {
namespace {

constexpr uint32_t kBlock = layout::kFp8Block;
constexpr uint32_t kMaxPieces = 4;  // 16-byte fetches in flight per invocation and operand

constexpr std::string_view kTooMuchMemory =
    "a tile of {}x{} needs {} bytes of shared memory, the device has {}";

// Of the reasons against several tiles the most telling: that of the least memory.
void keep_telling(const GemmRejection& misfit, GemmRejection& why) {
  const bool memory = misfit.format == kTooMuchMemory;
  const bool less = why.format != kTooMuchMemory || misfit.numbers[2] < why.numbers[2];
  if (why.format.empty() || (memory && less)) why = misfit;
}

// Of the portable path's tiles those that a tuner tries.
constexpr uint32_t kPortableTileM[] = {1, 4, 8, 16};
constexpr uint32_t kPortableTileN[] = {1, 4, 8};

struct TileSize {
  uint32_t m, n;
};

// Tiles by the rows that a workgroup can fill, largest first: rows amortise the decoding of b. Few
// rows take narrow tiles, so that a thin d still makes many workgroups.
constexpr TileSize kTileSizes[] = {{128, 128}, {128, 64}, {64, 128}, {64, 64},
                                   {32, 64},   {16, 64},  {16, 32},  {8, 64}};

// A tile with less than half of its rows filled is left to a smaller one.
bool too_tall(TileSize size, uint32_t rows) {
  return size.m > 16 && rows * 2 <= size.m;
}

// Calls `use` for every size until it returns false, the best guess first: the tallest that the
// rows fill, then what is smaller, then what is taller.
template <class Use>
void for_each_size(uint32_t rows, Use use) {
  for (bool tall : {false, true}) {
    for (TileSize size : kTileSizes) {
      if (too_tall(size, rows) == tall && !use(size)) return;
    }
  }
}

// The largest shape with these operands, f32 accumulators and sizes that divide a block; of equal
// ones that with the fewest rows. From caps alone: its k is part of the sum's order.
std::optional<CoopMatrixShape> coop_shape(const Caps& caps, uint32_t type) {
  const uint32_t element_bytes = type == kCoopFloat16 ? 2 : 1;
  std::optional<CoopMatrixShape> best;
  for (const CoopMatrixShape& s : caps.coop_matrix_shapes) {
    if (s.a_type != type || s.b_type != type) continue;
    if (s.c_type != kCoopFloat32 || s.result_type != kCoopFloat32) continue;
    if (s.m == 0 || s.n == 0 || s.k == 0 || kBlock % s.m || kBlock % s.n || kBlock % s.k) continue;
    if (s.k * element_bytes % 16) continue;  // staged rows are 16-byte words
    const auto volume = [](const CoopMatrixShape& x) { return x.m * x.n * x.k; };
    if (!best || volume(s) > volume(*best) || (volume(s) == volume(*best) && s.m < best->m))
      best = s;
  }
  return best;
}

bool workgroup_fits(uint32_t size, const Caps& caps) {
  return size <= caps.max_workgroup_invocations && size <= caps.max_workgroup_size[0];
}

// One subgroup's part of a tile: grown from one matrix while its two sets of accumulators stay
// within 128 registers of an invocation and, where there is that much, four subgroups share the
// tile.
void set_parts(GemmTile& t) {
  const uint32_t most =
      std::max(std::min(64 * t.subgroup_size, t.tile_m * t.tile_n / 4), t.coop_m * t.coop_n);
  t.part_m = t.coop_m, t.part_n = t.coop_n;
  for (bool grown = true; grown;) {
    grown = false;
    for (bool along_n : {t.part_n <= t.part_m, t.part_n > t.part_m}) {
      uint32_t& part = along_n ? t.part_n : t.part_m;
      const uint32_t tile = along_n ? t.tile_n : t.tile_m;
      if (grown || tile % (part * 2) || t.part_m * t.part_n * 2 > most) continue;
      part *= 2;
      grown = true;
    }
  }
}

// The tile of one size, or why there is none.
std::optional<GemmTile> coop_tile(TileSize size, const CoopMatrixShape& shape,
                                  uint32_t element_bytes, const Caps& caps, GemmRejection& why) {
  GemmTile t;
  t.coop_m = shape.m, t.coop_n = shape.n, t.coop_k = shape.k;
  t.tile_m = size.m, t.tile_n = size.n;
  t.subgroup_size = caps.subgroup_size;
  if (t.tile_m % t.coop_m || t.tile_n % t.coop_n) {
    why.format = "{}x{} matrices do not divide a tile of {}x{}";
    why.numbers = {t.coop_m, t.coop_n, t.tile_m, t.tile_n};
    return {};
  }
  set_parts(t);
  const uint32_t subgroups = (t.tile_m / t.part_m) * (t.tile_n / t.part_n);
  t.workgroup_size = subgroups * t.subgroup_size;
  if (!workgroup_fits(t.workgroup_size, caps) || subgroups > caps.max_workgroup_subgroups) {
    why.format = "a tile of {}x{} needs {} subgroups, the device allows {} and {} invocations";
    why.numbers = {t.tile_m, t.tile_n, subgroups, caps.max_workgroup_subgroups,
                   caps.max_workgroup_invocations};
    return {};
  }
  for (uint32_t block_k : {128u, 64u, 32u, 16u}) {
    if (block_k % t.coop_k || t.workgroup_size % (block_k / 16)) continue;
    t.block_k = block_k;
    t.shared_bytes = HADAL_FP8_COOPMAT_SHARED_BYTES(t.tile_m, t.tile_n, block_k, element_bytes,
                                                    t.coop_m, t.coop_n, subgroups);
    const uint32_t tallest = std::max(t.tile_m, t.tile_n);
    const bool deep = HADAL_FP8_PIECES(tallest, block_k, t.workgroup_size) > kMaxPieces;
    const bool shallowest = block_k == 16 || block_k == t.coop_k;
    if (t.shared_bytes <= caps.max_shared_memory_bytes && (!deep || shallowest)) return t;
  }
  why.format = kTooMuchMemory;
  why.numbers = {t.tile_m, t.tile_n, t.shared_bytes, caps.max_shared_memory_bytes};
  return {};
}

// The module's name, a literal: choosing allocates nothing.
std::string_view module_name(Fp8Kernel kernel, GemmPath path) {
  const bool grouped = kernel == Fp8Kernel::kGrouped;
  switch (path) {
    case GemmPath::kPortable: break;
    case GemmPath::kScalar: return grouped ? "fp8_grouped_gemm_scalar" : "fp8_gemm_scalar";
    case GemmPath::kShared: return grouped ? "fp8_grouped_gemm_shared" : "fp8_gemm_shared";
    case GemmPath::kCoopMat: return grouped ? "fp8_grouped_gemm_coopmat" : "fp8_gemm_coopmat";
    case GemmPath::kCoopMatFp8:
      return grouped ? "fp8_grouped_gemm_coopmat_float8" : "fp8_gemm_coopmat_float8";
  }
  return grouped ? "fp8_grouped_gemm" : "fp8_gemm";
}

// What no tile can mend.
void refuse_coopmat(Fp8Kernel kernel, GemmPath path, const Caps& caps, GemmRejection& why) {
  const bool float8 = path == GemmPath::kCoopMatFp8;
  if (!caps.cooperative_matrix) {
    why.format = "the device has no VK_KHR_cooperative_matrix";
  } else if (float8 && !caps.shader_float8) {
    why.format = "the device has no VK_EXT_shader_float8";
  } else if (float8 && !caps.float8_cooperative_matrix) {
    why.format = "the device has no shaderFloat8CooperativeMatrix";
  } else if (!float8 && !caps.shader_float16) {
    why.format = "the device has no shaderFloat16";
  } else if (!caps.subgroup_size_control) {
    why.format = "the device cannot demand full subgroups";
  } else if (!coop_shape(caps, float8 ? kCoopFloat8E4m3 : kCoopFloat16)) {
    why.format = float8 ? "no e4m3 x e4m3 -> f32 shape that divides 128 among the {} listed"
                        : "no f16 x f16 -> f32 shape that divides 128 among the {} listed";
    why.numbers = {uint32_t(caps.coop_matrix_shapes.size())};
  } else if (!vk::has_module(module_name(kernel, path))) {
    why.format = "not in this build, its glslc does not know the extension";
  }
}

// Calls `use` for every tile that fits until it returns false; `why` where there is none.
template <class Use>
void for_each_coop_tile(Fp8Kernel kernel, GemmPath path, uint32_t rows, const Caps& caps,
                        GemmRejection& why, Use use) {
  refuse_coopmat(kernel, path, caps, why);
  if (!why.format.empty()) return;
  const bool float8 = path == GemmPath::kCoopMatFp8;
  const CoopMatrixShape shape = *coop_shape(caps, float8 ? kCoopFloat8E4m3 : kCoopFloat16);
  bool any = false;
  for_each_size(rows, [&](TileSize size) {
    GemmRejection misfit = why;
    const auto tile = coop_tile(size, shape, float8 ? 1 : 2, caps, misfit);
    any = any || tile;
    if (!tile) keep_telling(misfit, why);
    return !tile || use(*tile);
  });
  if (any) why.format = {};
}

// One invocation's part grows from 4x4 to 8x8, beyond which its sums spill, until the tile's
// workgroup is at most 256 invocations or what the device allows.
std::optional<GemmTile> shared_tile(TileSize size, const Caps& caps, GemmRejection& why) {
  GemmTile t;
  t.tile_m = size.m, t.tile_n = size.n;
  t.part_m = t.part_n = 4;
  const auto invocations = [&t] { return (t.tile_m / t.part_m) * (t.tile_n / t.part_n); };
  const auto fits = [&] { return invocations() <= 256 && workgroup_fits(invocations(), caps); };
  if (!fits()) t.part_n = 8;
  if (!fits() && t.tile_m % 8 == 0) t.part_m = 8;
  t.workgroup_size = invocations();
  if (!fits()) {
    why.format = "a tile of {}x{} needs a workgroup of {}, the device allows {}";
    why.numbers = {t.tile_m, t.tile_n, t.workgroup_size, caps.max_workgroup_invocations};
    return {};
  }
  for (uint32_t block_k : {32u, 16u}) {
    t.block_k = block_k;
    t.shared_bytes = HADAL_FP8_SHARED_BYTES(t.tile_m, t.tile_n, block_k);
    if (t.shared_bytes <= caps.max_shared_memory_bytes) return t;
  }
  why.format = kTooMuchMemory;
  why.numbers = {t.tile_m, t.tile_n, t.shared_bytes, caps.max_shared_memory_bytes};
  return {};
}

template <class Use>
void for_each_shared_tile(uint32_t rows, const Caps& caps, GemmRejection& why, Use use) {
  bool any = false;
  for_each_size(rows, [&](TileSize size) {
    GemmRejection misfit = why;
    const auto tile = shared_tile(size, caps, misfit);
    any = any || tile;
    if (!tile) keep_telling(misfit, why);
    return !tile || use(*tile);
  });
  if (any) why.format = {};
}

// Tiles of the scalar path by measurement (fp8_gemm.md), the best guess for their rows first: few
// rows want long steps, which read a row of b in fewer pieces, many rows wide tiles, which share
// the decoding of a.
struct ScalarTile {
  uint32_t tile_m, columns, step_k, row_group;  // columns of an invocation
};
constexpr ScalarTile kScalarTiles[] = {
    {1, 1, 64, 1}, {1, 2, 32, 1},  {2, 1, 64, 2},  {2, 1, 32, 2}, {2, 2, 32, 2},
    {4, 1, 32, 4}, {4, 2, 16, 4},  {8, 1, 32, 8},  {8, 2, 8, 4},  {16, 1, 32, 8},
    {16, 2, 8, 4}, {40, 2, 16, 4}, {32, 2, 16, 4}, {32, 3, 8, 4}, {32, 1, 8, 8}};
// More rows than the tallest tile has are cut into tiles of this.
constexpr uint32_t kManyRowsTile = 32;

// The rows that a tile should hold for segments of `mean` rows: where the tallest may do, those of
// a segment a deviation above the mean, because a row beyond the tile costs a second one and absent
// rows cost little.
uint32_t rows_of_a_tile(uint32_t mean) {
  constexpr uint32_t kTallest = 40;
  if (mean <= kTallest / 2 || mean > kTallest) return mean;
  return std::min(mean + uint32_t(std::lround(std::sqrt(double(mean)))), kTallest);
}

template <class Use>
void for_each_scalar_tile(uint32_t rows, uint32_t n, const Caps& caps, GemmRejection& why,
                          Use use) {
  if (!caps.scalar_uniforms) {
    why.format = "the device does not keep uniform values in scalar registers";
    return;
  }
  if (!caps.device_constants) {
    why.format = "the host gave no device constants";
    return;
  }
  uint32_t narrowest = ~0u;
  for (const ScalarTile& scalar : kScalarTiles) {
    if (scalar.tile_m < rows && scalar.tile_m != kManyRowsTile) continue;
    if (scalar.tile_m > kManyRowsTile && rows <= kManyRowsTile) continue;
    GemmTile t;
    t.tile_m = scalar.tile_m, t.tile_n = scalar.columns * caps.subgroup_size;
    t.block_k = scalar.step_k, t.part_m = scalar.row_group, t.part_n = scalar.columns;
    t.workgroup_size = caps.subgroup_size;
    narrowest = std::min(narrowest, t.tile_n);
    // The last tile moves back to end at n, and columns are workgroups in y.
    if (t.tile_n > n || n / t.tile_n >= caps.max_workgroup_count[1]) continue;
    why.format = {};
    if (!use(t)) return;
    narrowest = 0;
  }
  if (narrowest == 0) return;
  why.format = "{} columns are fewer than a tile's {}, or more than its workgroups";
  why.numbers = {n, narrowest};
}

template <class Use>
void for_each_tile(Fp8Kernel kernel, GemmPath path, uint32_t rows, uint32_t n, const Caps& caps,
                   GemmRejection& why, Use use) {
  why = {path, {}, {}};
  if (path == GemmPath::kCoopMat || path == GemmPath::kCoopMatFp8) {
    for_each_coop_tile(kernel, path, rows, caps, why, use);
  } else if (path == GemmPath::kShared) {
    for_each_shared_tile(rows, caps, why, use);
  } else if (path == GemmPath::kScalar) {
    const bool grouped = kernel == Fp8Kernel::kGrouped;
    for_each_scalar_tile(grouped ? rows_of_a_tile(rows) : rows, n, caps, why, use);
  }
}

}  // namespace

std::string_view gemm_path_name(GemmPath path) {
  switch (path) {
    case GemmPath::kPortable: return "portable";
    case GemmPath::kScalar: return "scalar";
    case GemmPath::kShared: return "shared";
    case GemmPath::kCoopMat: return "coopmat";
    case GemmPath::kCoopMatFp8: return "coopmat_fp8";
  }
  return "?";
}

std::string to_string(const GemmTile& t) {
  std::string text = fmt::format("tile {}x{}x{}", t.tile_m, t.tile_n, t.block_k);
  if (t.coop_m) {
    text += fmt::format(", matrix {}x{}x{}, subgroup {}", t.coop_m, t.coop_n, t.coop_k,
                        t.subgroup_size);
  }
  text += fmt::format(", workgroup {}", t.workgroup_size);
  if (t.shared_bytes) text += fmt::format(", shared {} bytes", t.shared_bytes);
  return text;
}

std::string GemmRejection::to_string() const {
  const auto& n = numbers;
  return fmt::format("{}: {}", gemm_path_name(path),
                     fmt::format(fmt::runtime(format), n[0], n[1], n[2], n[3], n[4]));
}

std::vector<GemmTile> fp8_path_tiles(Fp8Kernel kernel, GemmPath path, uint32_t rows, uint32_t n,
                                     const Caps& caps, GemmRejection& why) {
  std::vector<GemmTile> tiles;
  for_each_tile(kernel, path, rows, n, caps, why, [&](const GemmTile& tile) {
    if (tiles.empty() || !too_tall({tile.tile_m, tile.tile_n}, rows)) tiles.push_back(tile);
    return true;
  });
  return tiles;
}

PathChoice choose_fp8_path(Fp8Kernel kernel, uint32_t rows, uint32_t n, const Fp8ScaleForm& scales,
                           const Caps& caps, const GemmPolicy& policy) {
  // Up to this the weights are read once whatever the path, and staging them only costs.
  constexpr uint32_t kFewRows = 8;
  PathChoice choice;
  size_t rejected = 0;
  for (GemmPath path : kTiledPaths) {
    const bool scalar = path == GemmPath::kScalar;
    const bool matrix = path != GemmPath::kShared && !scalar;
    GemmRejection& why = choice.rejected[rejected];
    for_each_tile(kernel, path, rows, n, caps, why, [&](const GemmTile& tile) {
      choice.tile = tile;
      return false;
    });
    if (scalar && why.format.empty()) {
      choice.path = path;
      return choice;
    }
    if (!why.format.empty()) {
    } else if (scales != Fp8ScaleForm{}) {
      why.format = "it takes float scales, one per 128x128 of b, only";
    } else if (caps.is_cpu) {
      why.format = "slower on a CPU driver";
    } else if (path == GemmPath::kCoopMatFp8 && !policy.coarse_sums) {
      why.format = "its sums may be coarse, GemmPolicy::coarse_sums would allow that";
    } else if (rows <= kFewRows && !(matrix && policy.batch_invariant)) {
      why.format = "{} rows are too few, it wants more than {}";
      why.numbers = {rows, kFewRows};
    } else {
      choice.path = path;
      return choice;
    }
    ++rejected;
  }
  choice.tile = {};
  return choice;
}

std::vector<TunedChoice> portable_tiles(uint32_t rows) {
  std::vector<TunedChoice> tiles;
  for (uint32_t tile_m : kPortableTileM) {
    if (tile_m > 1 && tile_m / 2 >= rows) continue;  // half of it would be padding
    for (uint32_t tile_n : kPortableTileN) tiles.push_back({GemmPath::kPortable, tile_m, tile_n});
  }
  return tiles;
}

bool may_replace(GemmPath path, GemmPath chosen, const Fp8ScaleForm& scales, const Caps& caps,
                 const GemmPolicy& policy) {
  const auto matrix = [](GemmPath p) {
    return p == GemmPath::kCoopMat || p == GemmPath::kCoopMatFp8;
  };
  const bool any_scales = path == GemmPath::kPortable || path == GemmPath::kScalar;
  if (!any_scales && scales != Fp8ScaleForm{}) return false;
  if (path == GemmPath::kCoopMatFp8 && !policy.coarse_sums) return false;
  if (matrix(path) && caps.is_cpu) return false;  // seconds to compile, and slower
  if (!policy.batch_invariant) return true;
  return matrix(path) || matrix(chosen) ? path == chosen : true;
}

namespace {
void take(PathChoice& choice, GemmPath path, const GemmTile& tile) {
  choice.rejected = {};
  if (choice.path != path) {
    choice.rejected[0] = {choice.path, "the tuning table measured another path faster", {}};
  }
  choice.path = path, choice.tile = tile;
}
}  // namespace

bool apply_tuning(Fp8Kernel kernel, uint32_t rows, uint32_t n, uint32_t k,
                  const Fp8ScaleForm& scales, const Caps& caps, const GemmPolicy& policy,
                  PathChoice& choice, TunedChoice& tuned) {
  if (!policy.tuning) return false;
  const bool grouped = kernel == Fp8Kernel::kGrouped;
  const TunedChoice* found = policy.tuning->find(
      grouped ? TunedKernel::kFp8GroupedGemm : TunedKernel::kFp8Gemm, rows, n, k);
  if (!found) return false;
  GemmRejection& why = choice.rejected.back();
  if (!may_replace(found->path, choice.path, scales, caps, policy)) {
    why = {found->path, "the tuning table's choice, which this policy excludes", {}};
    return false;
  }
  tuned = *found;
  if (found->path == GemmPath::kPortable) {
    const auto has = [](const auto& list, uint32_t x) {
      return std::find(std::begin(list), std::end(list), x) != std::end(list);
    };
    if (has(kPortableTileM, found->tile_m) && has(kPortableTileN, found->tile_n)) {
      take(choice, found->path, {});
      return true;
    }
  } else {
    std::optional<GemmTile> match;
    for_each_tile(kernel, found->path, rows, n, caps, why, [&](const GemmTile& tile) {
      if (tile.tile_m == found->tile_m && tile.tile_n == found->tile_n) match = tile;
      return !match;
    });
    if (match) {
      take(choice, found->path, *match);
      return true;
    }
  }
  why = {found->path,
         "the tuning table's tile {}x{} is none of this device's",
         {found->tile_m, found->tile_n}};
  return false;
}

namespace {

// The portable and scalar modules', whose constants both kernels number alike.
Result<const vk::Pipeline*> plain_pipeline(Device& device, Fp8Kernel kernel, GemmPath path,
                                           const GemmTile& tile, const Fp8ScaleForm& scales,
                                           bool d_bf16, bool use_fma, uint32_t push_bytes) {
  using namespace layout;
  static_assert(kFp8GemmSpecTileM == kFp8GroupedGemmSpecTileM &&
                kFp8GemmSpecTileN == kFp8GroupedGemmSpecTileN &&
                kFp8GemmSpecDBf16 == kFp8GroupedGemmSpecDBf16 &&
                kFp8GemmSpecStepK == kFp8GroupedGemmSpecStepK &&
                kFp8GemmSpecRowGroup == kFp8GroupedGemmSpecRowGroup &&
                kFp8GemmSpecAScaleE8m0 == kFp8GroupedGemmSpecAScaleE8m0 &&
                kFp8GemmSpecBScaleE8m0 == kFp8GroupedGemmSpecBScaleE8m0 &&
                kFp8GemmSpecBScaleShift == kFp8GroupedGemmSpecBScaleShift);
  return vk::Pipeline::get(device, module_name(kernel, path), tile.workgroup_size,
                           {{kSpecUseFma, use_fma},
                            {kFp8GemmSpecTileM, tile.tile_m},
                            {kFp8GemmSpecTileN, tile.part_n},
                            {kFp8GemmSpecDBf16, d_bf16},
                            {kFp8GemmSpecStepK, tile.block_k},
                            {kFp8GemmSpecRowGroup, tile.part_m},
                            {kFp8GemmSpecAScaleE8m0, scales.a_type == ScaleType::kE8m0},
                            {kFp8GemmSpecBScaleE8m0, scales.b_type == ScaleType::kE8m0},
                            {kFp8GemmSpecBScaleShift, b_scale_shift(scales)}},
                           push_bytes);
}

}  // namespace

Result<Fp8Pipeline> fp8_path_pipeline(Device& device, Fp8Kernel kernel, GemmPath path,
                                      const GemmTile& tile, const Fp8ScaleForm& scales, bool d_bf16,
                                      bool use_fma, uint32_t push_bytes) {
  using namespace layout;
  GemmRejection why;
  for_each_tile(kernel, path, tile.tile_m, tile.tile_n, device.caps(), why,
                [](const auto&) { return false; });
  if (!why.format.empty()) {
    return Status(Errc::kUnsupported, fmt::format("{}: path cannot run, {}",
                                                  module_name(kernel, path), why.to_string()));
  }
  Fp8Pipeline result;
  if (path == GemmPath::kPortable || path == GemmPath::kScalar) {
    if (path == GemmPath::kScalar) {
      HADAL_ASSIGN(result.e4m3_table, vk::e4m3_table(device));
    }
    HADAL_ASSIGN(result.pipeline,
                 plain_pipeline(device, kernel, path, tile, scales, d_bf16, use_fma, push_bytes));
    return result;
  }
  HADAL_ASSIGN(result.pipeline,
               vk::Pipeline::get(device, module_name(kernel, path), tile.workgroup_size,
                                 {{kSpecUseFma, use_fma},
                                  {kFp8PathSpecTileM, tile.tile_m},
                                  {kFp8PathSpecTileN, tile.tile_n},
                                  {kFp8PathSpecDBf16, d_bf16},
                                  {kFp8PathSpecBlockK, tile.block_k},
                                  {kFp8PathSpecPartM, tile.part_m},
                                  {kFp8PathSpecPartN, tile.part_n},
                                  {kFp8PathSpecInvocations, tile.workgroup_size},
                                  {kFp8PathSpecCoopM, tile.coop_m},
                                  {kFp8PathSpecCoopN, tile.coop_n},
                                  {kFp8PathSpecCoopK, tile.coop_k}},
                                 push_bytes, tile.subgroup_size));
  return result;
}

}  // namespace hadal
