// fp8_grouped_gemm: D[r,n] = sum_kb ( sum_{k in kb} A[s(r),k] B_e(r)[n,k] ) * a_scale[s(r),kb] *
// b_scale_e(r)[n/128,kb]: the FP8 linear layer of all routed experts at once, rows sorted by
// expert.
//
//   a             e4m3 [tokens, k], row stride a_stride bytes
//   a_scale       float or e8m0 [tokens, ceil(k/128)], row stride a_scale_stride
//   a_rows        uint32 [rows], optional (0): s(r) = a_rows[r], a gather instead of a copy;
//   without
//                 it s(r) = r
//   expert_table  ExpertWeight [experts] (grouped_gemm.h): each expert's b, e4m3 [n, k], row stride
//                 b_stride bytes, and b_scale, float or e8m0 [ceil(n/128) or n,
//                 ceil(k/128)], row stride b_scale_stride; experts may lie in different buffers
//   tiles         MoeTile [grouped_gemm_max_tiles]: which rows are whose, made on the device for
//                 this configuration's tile_m, by moe_permute or, from segment ends or from the
//                 counts of masked groups, by moe_tiles
//   indirect      VkDispatchIndirectCommand at indirect_offset of indirect_buffer: {x =
//                 column_groups(n), y = tiles in the list, z = 1}
//   d             float or bfloat16 [rows, n], row stride d_stride
//
// Requirements: as fp8_gemm for a, b, scales and d; expert_table a multiple of 8, a_rows and tiles
// of 4. The host cannot see into the lists: experts and rows named there must exist, and no two
// tiles name one row. Rows of d in no tile keep their content.
//
// Masked form, a [experts, m_max, k] and d [experts, m_max, n] with counts on the device: rows =
// experts * m_max, no a_rows, the list from moe_tiles, expected_rows what the counts may add up to.
//
// Contract: reads a, a_scale, a_rows, the table, the tiles, the indirect command and the weights;
// writes d[:, :n] of the rows in tiles. All are declared to the recorder but the weights, which are
// taken to be constant: write them, and wait, before the first use. No scratch. record() may be
// called from several threads on different recorders. Determinism: a row has the bits that fp8_gemm
// gives it on the same kind of unit (GemmPolicy) with its expert's weight, whatever tile_m, the
// other rows and its position. Error bound: tests/support/tolerance.h, fp8_gemm_bound.
//
// Source: DeepSeek-V3 technical report (arXiv 2412.19437) 2.1.2; DeepGEMM's
// m_grouped_fp8_gemm_nt_contiguous (there with segments aligned to the tile, here not).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

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

struct Fp8GroupedGemmShape {
  uint32_t rows = 0;    // of d: all experts' together
  uint32_t tokens = 0;  // rows of a and a_scale; equals rows without a_rows
  uint32_t experts = 0, n = 0, k = 0;
  uint32_t expected_rows = 0;   // in tiles, for the choice of tile_m only; 0: all `rows`
  uint32_t a_stride = 0;        // bytes, at least k
  uint32_t a_scale_stride = 0;  // elements, at least ceil(k/128)
  uint32_t b_stride = 0;        // bytes, at least k; of every expert
  uint32_t b_scale_stride = 0;  // elements, at least ceil(k/128)
  uint32_t d_stride = 0;        // elements, at least n
  ElementType d_type = ElementType::kF32;
  Fp8ScaleForm scales;

  // Tightest legal strides for the sizes, tokens = rows.
  [[nodiscard]] static Fp8GroupedGemmShape packed(uint32_t rows, uint32_t experts, uint32_t n,
                                                  uint32_t k);
};

struct Fp8GroupedGemmArgs {
  DeviceAddress a = 0, a_scale = 0;
  DeviceAddress a_rows = 0;  // 0: row r of d is of row r of a
  DeviceAddress expert_table = 0, tiles = 0;
  const Buffer* indirect_buffer = nullptr;
  uint64_t indirect_offset = 0;
  DeviceAddress d = 0;
};

// What choose() decided; prints itself as one line, with the reason for each path not taken.
struct Fp8GroupedGemmConfig {
  uint32_t tile_m = 0;          // rows of d per tile: what moe_permute must be told
  uint32_t tile_n = 0;          // columns of d per invocation (portable) or workgroup (others)
  uint32_t workgroup_size = 0;  // invocations, along n
  ElementType d_type = ElementType::kF32;
  Fp8ScaleForm scales;
  bool use_fma = false;
  GemmPath path = GemmPath::kPortable;
  GemmTile gpu_tile;        // of the other paths; tile_m and tile_n repeat its own
  GemmRejections rejected;  // the paths tried before this one; unused ones are empty
  // Columns of d per workgroup.
  [[nodiscard]] uint32_t group_columns() const {
    return path == GemmPath::kPortable ? tile_n * workgroup_size : tile_n;
  }
  // x of the indirect command for n columns: what moe_permute must be told, too.
  [[nodiscard]] uint32_t column_groups(uint32_t n) const { return ceil_div(n, group_columns()); }
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status fp8_grouped_gemm_check(const Fp8GroupedGemmShape& shape, const Caps& caps);
// The fastest configuration known for the shape that the policy allows. Pure; requires
// fp8_grouped_gemm_check to be ok.
[[nodiscard]] Fp8GroupedGemmConfig fp8_grouped_gemm_choose(const Fp8GroupedGemmShape& shape,
                                                           const Caps& caps,
                                                           const GemmPolicy& policy = {});

// Every configuration worth timing that the policy allows, choose()'s own (without its table)
// first. Pure.
[[nodiscard]] std::vector<Fp8GroupedGemmConfig> fp8_grouped_gemm_candidates(
    const Fp8GroupedGemmShape& shape, const Caps& caps, const GemmPolicy& policy = {});

class Fp8GroupedGemm {
 public:
  // Creates the pipeline, or finds it: a device keeps every pipeline once made. Thread-safe.
  // The scalar path's first one also allocates 2 KiB of device memory, which the device keeps
  // (a borrowed device: BorrowedDevice::constants).
  [[nodiscard]] static Result<Fp8GroupedGemm> create(Device& device,
                                                     const Fp8GroupedGemmConfig& config);
  // Records one indirect dispatch. Errors: those of check; kInvalidArgument for a misaligned or
  // missing address, a shape whose d_type is not the configuration's or whose tiles may be more
  // than the device has workgroups; kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const Fp8GroupedGemmShape& shape,
                              const Fp8GroupedGemmArgs& args) const;

 private:
  Fp8GroupedGemm(const Device& device, const vk::Pipeline* pipeline, Fp8GroupedGemmConfig config,
                 DeviceAddress e4m3_table = 0);
  const Device* device_;
  const vk::Pipeline* pipeline_;
  Fp8GroupedGemmConfig config_;
  DeviceAddress e4m3_table_;  // of the scalar path; 0 without
};

}  // namespace hadal
