// bf16_grouped_gemm: D[r,n] = sum_k A[s(r),k] B_e(r)[n,k], B bfloat16: the linear layer of all
// routed experts at once, rows sorted by expert, for bfloat16 checkpoints.
//
//   a             float [tokens, k], row stride a_stride
//   a_rows        uint32 [rows], optional (0): s(r) = a_rows[r], a gather instead of a copy;
//   without
//                 it s(r) = r
//   expert_table  ExpertWeight [experts] (grouped_gemm.h): each expert's b, bfloat16 [n, k], row
//                 stride b_stride; b_scale is ignored; experts may lie in different buffers
//   tiles         MoeTile [grouped_gemm_max_tiles]: which rows are whose, made on the device for
//                 this configuration's tile_m, by moe_permute or, from segment ends or from the
//                 counts of masked groups, by moe_tiles
//   indirect      VkDispatchIndirectCommand at indirect_offset of indirect_buffer: {x =
//                 column_groups(n), y = tiles in the list, z = 1}
//   d             float or bfloat16 [rows, n], row stride d_stride
//
// Requirements: as bf16_gemm for a, b and d; expert_table a multiple of 8, a_rows and tiles of 4.
// The host cannot see into the lists: experts and rows named there must exist, and no two tiles
// name one row. Rows of d in no tile keep their content.
//
// Masked form, a [experts, m_max, k] and d [experts, m_max, n] with counts on the device: rows =
// experts * m_max, no a_rows, the list from moe_tiles, expected_rows what the counts may add up to.
//
// Contract: reads a, a_rows, the table, the tiles, the indirect command and the weights; writes
// d[:, :n] of the rows in tiles. All are declared to the recorder but the weights, which are taken
// to be constant: write them, and wait, before the first use. No scratch. record() may be called
// from several threads on different recorders. Determinism: a row has the bits that bf16_gemm gives
// it with its expert's weight, whatever tile_m, the other rows and its position. Error bound:
// tests/support/tolerance.h, bf16_gemm_bound.
//
// Source: DeepSeek-V3 technical report (arXiv 2412.19437) 2.1.2.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "hadal/buffer.h"
#include "hadal/caps.h"
#include "hadal/gemm_path.h"
#include "hadal/grouped_gemm.h"
#include "hadal/status.h"
#include "hadal/types.h"

namespace hadal {

class Device;
class Recorder;
namespace vk {
class Pipeline;
}

struct Bf16GroupedGemmShape {
  uint32_t rows = 0;    // of d: all experts' together
  uint32_t tokens = 0;  // rows of a; equals rows without a_rows
  uint32_t experts = 0, n = 0, k = 0;
  uint32_t expected_rows = 0;  // in tiles, for the choice of tile_m only; 0: all `rows`
  uint32_t a_stride = 0;       // elements, at least k
  uint32_t b_stride = 0;       // elements, at least k; of every expert
  uint32_t d_stride = 0;       // elements, at least n
  ElementType d_type = ElementType::kF32;

  // Tightest legal strides for the sizes, tokens = rows.
  [[nodiscard]] static Bf16GroupedGemmShape packed(uint32_t rows, uint32_t experts, uint32_t n,
                                                   uint32_t k);
};

struct Bf16GroupedGemmArgs {
  DeviceAddress a = 0;
  DeviceAddress a_rows = 0;  // 0: row r of d is of row r of a
  DeviceAddress expert_table = 0, tiles = 0;
  const Buffer* indirect_buffer = nullptr;
  uint64_t indirect_offset = 0;
  DeviceAddress d = 0;
};

// What choose() decided; prints itself as one line, with the reason for each path not taken.
struct Bf16GroupedGemmConfig {
  uint32_t tile_m = 0;          // rows of d per tile: what moe_permute must be told
  uint32_t tile_n = 0;          // columns of d per invocation
  uint32_t workgroup_size = 0;  // invocations, along n
  ElementType d_type = ElementType::kF32;
  bool use_fma = false;
  GemmPath path = GemmPath::kPortable;  // or kScalar
  uint32_t step_k = 8, row_group = 1;   // kScalar: channels per turn, rows in registers together
  std::string_view rejected;            // "path: reason", a literal
  // x of the indirect command for n columns: what moe_permute must be told, too.
  [[nodiscard]] uint32_t column_groups(uint32_t n) const {
    return ceil_div(n, tile_n * workgroup_size);
  }
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status bf16_grouped_gemm_check(const Bf16GroupedGemmShape& shape, const Caps& caps);
// The fastest configuration known for the shape. Pure; requires bf16_grouped_gemm_check to be ok.
[[nodiscard]] Bf16GroupedGemmConfig bf16_grouped_gemm_choose(const Bf16GroupedGemmShape& shape,
                                                             const Caps& caps);

class Bf16GroupedGemm {
 public:
  // Creates the pipeline, or finds it: a device keeps every pipeline once made. Thread-safe.
  [[nodiscard]] static Result<Bf16GroupedGemm> create(Device& device,
                                                      const Bf16GroupedGemmConfig& config);
  // Records one indirect dispatch. Errors: those of check; kInvalidArgument for a misaligned or
  // missing address, a shape whose d_type is not the configuration's or whose tiles may be more
  // than the device has workgroups; kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const Bf16GroupedGemmShape& shape,
                              const Bf16GroupedGemmArgs& args) const;

 private:
  Bf16GroupedGemm(const Device& device, const vk::Pipeline* pipeline, Bf16GroupedGemmConfig config);
  const Device* device_;
  const vk::Pipeline* pipeline_;
  Bf16GroupedGemmConfig config_;
};

}  // namespace hadal
