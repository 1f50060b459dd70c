// The paths of fp8_gemm and fp8_grouped_gemm beside the portable one: which may run, with which
// tile. Pure but for fp8_path_pipeline. Private.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/buffer.h"
#include "hadal/caps.h"
#include "hadal/gemm_path.h"
#include "hadal/status.h"
#include "hadal/tuning.h"
#include "hadal/types.h"

namespace hadal {

class Device;
namespace vk {
class Pipeline;
}

enum class Fp8Kernel { kDense, kGrouped };

struct PathChoice {
  GemmPath path = GemmPath::kPortable;
  GemmTile tile;
  GemmRejections rejected;
};
// Tried in this order, then kPortable.
inline constexpr GemmPath kTiledPaths[] = {GemmPath::kCoopMatFp8, GemmPath::kCoopMat,
                                           GemmPath::kShared, GemmPath::kScalar};

// `rows` of d; for the grouped kernel the rows expected of an expert.
[[nodiscard]] PathChoice choose_fp8_path(Fp8Kernel kernel, uint32_t rows, uint32_t n,
                                         const Fp8ScaleForm& scales, const Caps& caps,
                                         const GemmPolicy& policy);

// The tiles of `path` that fit the device and that `rows` fill by half, the one that
// choose_fp8_path takes first. Empty, with `why` set, where the path cannot run.
[[nodiscard]] std::vector<GemmTile> fp8_path_tiles(Fp8Kernel kernel, GemmPath path, uint32_t rows,
                                                   uint32_t n, const Caps& caps,
                                                   GemmRejection& why);

// Portable tiles that a tuner may try for `rows`.
[[nodiscard]] std::vector<TunedChoice> portable_tiles(uint32_t rows);

// Whether `policy` lets `path` stand in for `chosen`, what choose_fp8_path took: on the same kind
// of unit, unless bits may depend on m.
[[nodiscard]] bool may_replace(GemmPath path, GemmPath chosen, const Fp8ScaleForm& scales,
                               const Caps& caps, const GemmPolicy& policy);

// The table's choice where the policy has one that it allows and the device can run. A choice that
// cannot be taken becomes the last rejection of `choice`. True when `tuned` (and, off the
// portable path, choice.path and choice.tile) are the table's.
[[nodiscard]] bool apply_tuning(Fp8Kernel kernel, uint32_t rows, uint32_t n, uint32_t k,
                                const Fp8ScaleForm& scales, const Caps& caps,
                                const GemmPolicy& policy, PathChoice& choice, TunedChoice& tuned);

struct Fp8Pipeline {
  const vk::Pipeline* pipeline = nullptr;
  DeviceAddress e4m3_table = 0;  // of the scalar path; 0 without
};

// The pipeline of a tile; of the portable path's tile only tile_m, part_n (columns of an
// invocation) and workgroup_size count. Errors: kUnsupported where the device or this build cannot
// run the path.
[[nodiscard]] Result<Fp8Pipeline> fp8_path_pipeline(Device& device, Fp8Kernel kernel, GemmPath path,
                                                    const GemmTile& tile,
                                                    const Fp8ScaleForm& scales, bool d_bf16,
                                                    bool use_fma, uint32_t push_bytes);

// Makes `config`, an Fp8GemmConfig or Fp8GroupedGemmConfig, one of a path with tiles of its own.
template <class Config>
void set_tile(GemmPath path, const GemmTile& tile, Config& config) {
  config.path = path, config.gpu_tile = tile;
  config.tile_m = tile.tile_m, config.tile_n = tile.tile_n;
  config.workgroup_size = tile.workgroup_size;
}

// "tile 64x64x32, matrix 16x16x16, subgroup 32, workgroup 128, shared 14336 bytes"
[[nodiscard]] std::string to_string(const GemmTile& tile);

}  // namespace hadal
