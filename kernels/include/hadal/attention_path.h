// Which kind of unit an attention kernel runs on, and what a caller lets choose() decide.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hadal {

enum class AttentionPath {
  kPortable,  // any device
  kLanes,     // CPU drivers with scalar uniforms; the bits of kPortable
  kShared,    // tiles in shared memory, for GPUs; the bits of kPortable
  kCoopMat,   // VK_KHR_cooperative_matrix: f16 operands, f32 accumulators; bits of its own
};
// "portable", "lanes", "shared", "coopmat".
[[nodiscard]] std::string_view attention_path_name(AttentionPath path);

// How kShared and kCoopMat cut their rows (queries or heads); all 0 for the other paths. Only the
// matrix shape and the subgroup's size are part of the bits, and those follow from caps alone.
struct AttentionTile {
  uint32_t rows = 0;                            // per workgroup
  uint32_t slice = 0;                           // key channels staged at a time
  uint32_t value_slice = 0;                     // value channels staged at a time
  uint32_t value_slices = 0;                    // of them
  uint32_t coop_m = 0, coop_n = 0, coop_k = 0;  // 0 but for matrices
  uint32_t subgroup_size = 0;                   // demanded; 0 but for matrices
  uint32_t workgroup_size = 0;
  uint32_t shared_bytes = 0;
  [[nodiscard]] uint32_t value_channels() const { return value_slice * value_slices; }
  auto operator<=>(const AttentionTile&) const = default;
};

// Why a path was not taken: a literal with places for numbers, so that choosing, which happens for
// every recorded call, allocates nothing.
struct AttentionRejection {
  AttentionPath path = AttentionPath::kPortable;
  std::string_view format;  // empty: no reason
  std::array<uint32_t, 4> numbers{};
  // "coopmat: the device has no VK_KHR_cooperative_matrix"
  [[nodiscard]] std::string to_string() const;
};
// One for each path that may be refused; unused ones are empty.
using AttentionRejections = std::array<AttentionRejection, 3>;

// House rule 8, the same bits whoever shares the batch: a device takes kCoopMat for every shape of
// a head that it can run there, or for none; the other paths have the same bits. CPU drivers take
// neither kCoopMat nor kShared by themselves.
struct AttentionPolicy {
  // This path, also where the device would take another; kPortable where it cannot run.
  std::optional<AttentionPath> path;
  // false: no path whose operands are halves; the others have the bits of kPortable.
  bool half_operands = true;
};

}  // namespace hadal
