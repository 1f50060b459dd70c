// Which kind of unit a matrix product runs on, and what a caller lets choose() decide.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

namespace hadal {

class TuningTable;

enum class GemmPath {
  kPortable,    // any device; one invocation per column, no shared memory
  kShared,      // tiles in shared memory, for GPUs; the bits of kPortable
  kCoopMat,     // VK_KHR_cooperative_matrix: f16 decoded exactly from e4m3, f32 accumulators
  kCoopMatFp8,  // VK_EXT_shader_float8: e4m3 x e4m3 -> f32 in the matrix unit
};
// "portable", "shared", "coopmat", "coopmat_fp8".
[[nodiscard]] std::string_view gemm_path_name(GemmPath path);

// How a GPU path cuts d; all 0 for kPortable.
struct GemmTile {
  uint32_t tile_m = 0, tile_n = 0;  // of d per workgroup
  uint32_t block_k = 0;             // channels staged at a time
  uint32_t part_m = 0, part_n = 0;  // of the tile per subgroup (coopmat) or invocation (shared)
  uint32_t coop_m = 0, coop_n = 0, coop_k = 0;  // 0 for kShared
  uint32_t subgroup_size = 0;                   // demanded; 0 for kShared
  uint32_t workgroup_size = 0;
  uint32_t shared_bytes = 0;
  auto operator<=>(const GemmTile&) const = default;
};

// Why a path was not taken: a literal with places for numbers, so that choosing, which happens for
// every recorded call, allocates nothing.
struct GemmRejection {
  GemmPath path = GemmPath::kPortable;
  std::string_view format;  // empty: no reason
  std::array<uint32_t, 5> numbers{};
  // "coopmat: a tile of 64x64 needs 36864 bytes of shared memory, the device has 16384"
  [[nodiscard]] std::string to_string() const;
};

// House rule 8, the same bits whoever shares the batch: kPortable and kShared round alike; a matrix
// unit rounds in an order of its own. So a device takes one kind for every m, padding few rows to
// the matrix: its cooperative matrices where it has usable ones, else kPortable and kShared. The
// shape of the matrix (whose k is part of the order) follows from caps alone.
struct GemmPolicy {
  // false: small m may leave the matrix unit where another path is faster; a row's bits then depend
  // on m.
  bool batch_invariant = true;
  // true: kCoopMatFp8 may be taken. Matrix units may keep fewer bits of float8 sums than a float
  // has (Hopper's: about 14, DeepSeek-V3 report 3.3.2), so it is not the default.
  bool coarse_sums = false;
  // Measured choices (tuning.h), taken where the table has the shape and this policy allows the
  // path.
  const TuningTable* tuning = nullptr;
};

}  // namespace hadal
