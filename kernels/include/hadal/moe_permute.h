// moe_permute: sorts the (token, slot) pairs of a routing by expert, on the device, and cuts the
// sorted rows into the tiles of the grouped GEMMs; moe_combine undoes it, weighted. Nothing is read
// back.
//
// MoePermute plans, rows sorted by (expert, token, slot):
//   indices       uint32 [tokens, top_k] (moe_gate)
//   row_token     uint32 [tokens * top_k]: the token of each sorted row, a gather index (a_rows)
//   row_of        uint32 [tokens, top_k]: the sorted row of each pair
//   segment_ends  uint32 [experts]: the row behind each expert's last one
//   tiles         MoeTile [moe_permute_max_tiles] (grouped_gemm.h): at most tile_m rows, never
//                 across a segment's end, in order of expert and row
//   commands      VkDispatchIndirectCommand [command_count]: {groups_x[i], number of tiles, 1}
//
// MoeCombine: x[t,:] = (accumulate ? x[t,:] : 0) + (has_shared ? shared[t,:] : 0)
//                      + sum over slots s ascending of weights[t,s] * y[row_of[t,s],:]
//   x        float [tokens, hidden], row stride x_stride
//   shared   float [tokens, hidden], row stride shared_stride
//   y        float [rows, hidden], row stride y_stride
//   row_of   uint32 [tokens, top_k];  weights  float [tokens, top_k]
//
// Requirements: addresses multiples of 4; the rules of the check functions. An index that names no
// expert has no row: its row_of is 0xffffffff, MoeCombine skips it, and the sorted rows are that
// many fewer. row_token and tiles behind the last row or tile keep their content. Zero tokens,
// slots or experts still give segment_ends and commands (no rows, no tiles).
//
// Contract: MoePermute reads indices and writes the rest; MoeCombine reads shared, y, row_of,
// weights (and x when accumulating) and writes x[:, :hidden]. No scratch. Thread-safe as fp8_gemm.
// Determinism: the plan is exact and unique; a row of x depends on that token's operands only.
//
// Source: DeepSeek-V3 technical report (arXiv 2412.19437) 2.1.2, eq. 12; DeepGEMM's contiguous
// grouped layout for the sorted rows.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "hadal/buffer.h"
#include "hadal/caps.h"
#include "hadal/status.h"

namespace hadal {

class Device;
class Recorder;
namespace vk {
class Pipeline;
}

struct MoePermuteShape {
  uint32_t tokens = 0, experts = 0, top_k = 0;
  uint32_t tile_m = 1;         // the grouped GEMM configuration's
  uint32_t command_count = 0;  // GEMMs that will run over the tiles, at most 4
  std::array<uint32_t, 4> groups_x{};

  [[nodiscard]] static MoePermuteShape packed(uint32_t tokens, uint32_t experts, uint32_t top_k,
                                              uint32_t tile_m);
};

struct MoePermuteArgs {
  DeviceAddress indices = 0, row_token = 0, row_of = 0, segment_ends = 0, tiles = 0, commands = 0;
};

struct MoePermuteConfig {
  uint32_t workgroup_size = 0;
  bool vectors = false;  // the form for CPU drivers with Caps::scalar_uniforms, one subgroup
  [[nodiscard]] std::string to_string() const;
};

// Most tiles that any routing of the shape can make: the capacity of the list.
[[nodiscard]] uint32_t moe_permute_max_tiles(const MoePermuteShape& shape);

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status moe_permute_check(const MoePermuteShape& shape, const Caps& caps);
[[nodiscard]] MoePermuteConfig moe_permute_choose(const MoePermuteShape& shape, const Caps& caps);

class MoePermute {
 public:
  // Creates the pipeline, or finds it. Thread-safe.
  [[nodiscard]] static Result<MoePermute> create(Device& device, const MoePermuteConfig& config);
  // Records one dispatch of one workgroup. Errors: those of check; kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const MoePermuteShape& shape,
                              const MoePermuteArgs& args) const;

 private:
  MoePermute(const Device& device, const vk::Pipeline* pipeline);
  const Device* device_;
  const vk::Pipeline* pipeline_;
};

struct MoeCombineShape {
  uint32_t tokens = 0, hidden = 0, top_k = 0;
  uint32_t x_stride = 0, shared_stride = 0, y_stride = 0;  // elements, at least hidden
  uint32_t y_rows = 0;  // of y, that row_of may name; 0: tokens * top_k
  bool accumulate = false;
  bool has_shared = false;

  [[nodiscard]] static MoeCombineShape packed(uint32_t tokens, uint32_t hidden, uint32_t top_k);
};

struct MoeCombineArgs {
  DeviceAddress x = 0, shared = 0, y = 0, row_of = 0, weights = 0;
};

struct MoeCombineConfig {
  uint32_t workgroup_size = 0;
  bool use_fma = false;
  bool row_vectors = false;  // the form for CPU drivers with Caps::scalar_uniforms
  [[nodiscard]] std::string to_string() const;
};

[[nodiscard]] Status moe_combine_check(const MoeCombineShape& shape, const Caps& caps);
[[nodiscard]] MoeCombineConfig moe_combine_choose(const MoeCombineShape& shape, const Caps& caps);

class MoeCombine {
 public:
  [[nodiscard]] static Result<MoeCombine> create(Device& device, const MoeCombineConfig& config);
  // Records one dispatch. Errors: those of check; kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const MoeCombineShape& shape,
                              const MoeCombineArgs& args) const;

 private:
  MoeCombine(const Device& device, const vk::Pipeline* pipeline, const MoeCombineConfig& config);
  const Device* device_;
  const vk::Pipeline* pipeline_;
  MoeCombineConfig config_;
};

}  // namespace hadal
