// The GPU paths of fp8_gemm and fp8_grouped_gemm: which may run, with which tile. Pure but for
// fp8_path_pipeline. Private.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/caps.h"
#include "hadal/gemm_path.h"
#include "hadal/status.h"
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
  std::array<GemmRejection, 3> rejected;
};
// `rows` of d; for the grouped kernel the rows expected of an expert.
[[nodiscard]] PathChoice choose_fp8_path(Fp8Kernel kernel, uint32_t rows,
                                         const Fp8ScaleForm& scales, const Caps& caps,
                                         const GemmPolicy& policy);

// The tiles of `path` that fit the device, the one that choose_fp8_path takes first. Empty, with
// `why` set, where the path cannot run.
[[nodiscard]] std::vector<GemmTile> fp8_path_tiles(Fp8Kernel kernel, GemmPath path, uint32_t rows,
                                                   const Caps& caps, GemmRejection& why);

// The pipeline of a tile. Errors: kUnsupported where the device or this build cannot run the path.
[[nodiscard]] Result<const vk::Pipeline*> fp8_path_pipeline(Device& device, Fp8Kernel kernel,
                                                            GemmPath path, const GemmTile& tile,
                                                            bool d_bf16, bool use_fma,
                                                            uint32_t push_bytes);

// "tile 64x64x32, matrix 16x16x16, subgroup 32, workgroup 128, shared 14336 bytes"
[[nodiscard]] std::string to_string(const GemmTile& tile);

}  // namespace hadal
