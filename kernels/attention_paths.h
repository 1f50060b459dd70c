// The paths of mla_prefill and mla_decode: which may run, with which tile. Pure but for
// attention_tile_pipeline. Private.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "hadal/attention_path.h"
#include "hadal/caps.h"
#include "hadal/status.h"

namespace hadal {

class Device;
namespace vk {
class Pipeline;
struct SpecConstant;
}  // namespace vk

struct AttentionSizes {
  std::string_view coopmat_module;
  uint32_t rows = 0;         // that share keys: heads, or a sequence's queries
  uint32_t values = 0;       // channels of a value
  AttentionRejection lanes;  // why not kLanes; no format where it can run
};

struct AttentionPathChoice {
  AttentionPath path = AttentionPath::kPortable;
  AttentionTile tile;
  AttentionRejections rejected;
};
// Tried in this order: kCoopMat, kShared, kLanes, kPortable.
[[nodiscard]] AttentionPathChoice choose_attention_path(const AttentionSizes& sizes,
                                                        const Caps& caps,
                                                        const AttentionPolicy& policy);

// Whether a configuration of `path` has a tile.
[[nodiscard]] inline bool has_tile(AttentionPath path) {
  return path == AttentionPath::kCoopMat || path == AttentionPath::kShared;
}

// The pipeline of a tile; `constants` are the kernel's own. Errors: kUnsupported where the device
// or this build cannot run the path.
[[nodiscard]] Result<const vk::Pipeline*> attention_tile_pipeline(
    Device& device, AttentionPath path, std::string_view module, const AttentionTile& tile,
    bool use_fma, std::initializer_list<vk::SpecConstant> constants, uint32_t push_bytes);

// "; not coopmat: ...; not lanes: ..."
[[nodiscard]] std::string rejections_text(const AttentionRejections& rejected);

// "32 rows x 64 channels, 4 slices of 128 value channels, matrix 16x16x16, subgroup 32, workgroup
// 256, shared 31872 bytes"
[[nodiscard]] std::string to_string(const AttentionTile& tile);

}  // namespace hadal
