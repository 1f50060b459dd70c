// fp8_gemm: D[m,n] = sum_kb ( sum_{k in kb} A[m,k] B[n,k] ) * a_scale[m,kb] * b_scale[n/128,kb] (+
// D) over blocks kb of 128 channels: DeepSeek-V3's FP8 linear layer.
//
//   a        e4m3 [m, k], row stride a_stride bytes
//   a_scale  float or e8m0 [m, ceil(k/128)], row stride a_scale_stride
//   b        e4m3 [n, k], row stride b_stride bytes (the checkpoint's weight, not transposed)
//   b_scale  float or e8m0 [ceil(n/128), ceil(k/128)], row stride b_scale_stride
//            (`weight_scale_inv`); or, as a has it, one row for each of b: [n, ceil(k/128)]
//   d        float or bfloat16 [m, n], row stride d_stride
//
// Requirements: addresses of a and b multiples of 16, of the others of their element; a row of a
// and of b starts at a multiple of 16 bytes; any m, n, k >= 0 (k = 0 gives 0, or d unchanged).
// Neither a nor b holds the NaN codes 0x7f/0xff: loaders refuse them and fp8_quantize never writes
// them (a group with a NaN or an infinity gets a NaN scale instead). Bytes between k and the stride
// are read, never used.
//
// Contract: reads a, a_scale, b, b_scale (and d when accumulating), writes d[:, :n] and nothing
// between n and d_stride. No scratch. record() may be called from several threads on different
// recorders. Determinism: blocks are summed ascending, each scaled once; inside a block k ascends,
// on a matrix unit in steps of its depth, each in the unit's own order. By default (GemmPolicy) a
// device uses one kind of unit for every m, so that the bits of a row depend on that row and b
// only, not on m, the tile or the position in the batch. Error bounds against exact arithmetic:
// tests/support/tolerance.h, fp8_gemm_bound and fp8_gemm_coopmat_bound.
//
// Source: DeepSeek-V3 technical report (arXiv 2412.19437) 3.3; DeepGEMM's fp8_gemm_nt.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hadal/buffer.h"
#include "hadal/caps.h"
#include "hadal/gemm_path.h"
#include "hadal/status.h"
#include "hadal/types.h"

namespace hadal {

class Device;
class Recorder;
namespace vk {
class Pipeline;
}

struct Fp8GemmShape {
  uint32_t m = 0, n = 0, k = 0;
  uint32_t a_stride = 0;        // bytes, at least k
  uint32_t a_scale_stride = 0;  // elements, at least ceil(k/128)
  uint32_t b_stride = 0;        // bytes, at least k
  uint32_t b_scale_stride = 0;  // elements, at least ceil(k/128)
  uint32_t d_stride = 0;        // elements, at least n
  ElementType d_type = ElementType::kF32;
  bool accumulate = false;  // d += instead of d =
  Fp8ScaleForm scales;

  // Tightest legal strides for the sizes.
  [[nodiscard]] static Fp8GemmShape packed(uint32_t m, uint32_t n, uint32_t k);
};

struct Fp8GemmArgs {
  DeviceAddress a = 0, a_scale = 0, b = 0, b_scale = 0, d = 0;
};

// What choose() decided; prints itself as one line, with the reason for each path not taken.
struct Fp8GemmConfig {
  uint32_t tile_m = 0;          // rows of d per workgroup
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
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status fp8_gemm_check(const Fp8GemmShape& shape, const Caps& caps);
// The fastest configuration known for the shape that the policy allows. Pure; requires
// fp8_gemm_check to be ok.
[[nodiscard]] Fp8GemmConfig fp8_gemm_choose(const Fp8GemmShape& shape, const Caps& caps,
                                            const GemmPolicy& policy = {});

// Every configuration worth timing that the policy allows, choose()'s own (without its table)
// first. Pure.
[[nodiscard]] std::vector<Fp8GemmConfig> fp8_gemm_candidates(const Fp8GemmShape& shape,
                                                             const Caps& caps,
                                                             const GemmPolicy& policy = {});

class Fp8Gemm {
 public:
  // Creates the pipeline, or finds it: a device keeps every pipeline once made. Thread-safe.
  // The scalar path's first one also allocates 2 KiB of device memory, which the device keeps
  // (a borrowed device: BorrowedDevice::constants).
  [[nodiscard]] static Result<Fp8Gemm> create(Device& device, const Fp8GemmConfig& config);
  // Records one dispatch. Errors: those of check; kInvalidArgument for a misaligned address or a
  // shape whose d_type is not the configuration's; kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const Fp8GemmShape& shape,
                              const Fp8GemmArgs& args) const;

 private:
  Fp8Gemm(const Device& device, const vk::Pipeline* pipeline, Fp8GemmConfig config,
          DeviceAddress e4m3_table = 0);
  const Device* device_;
  const vk::Pipeline* pipeline_;
  Fp8GemmConfig config_;
  DeviceAddress e4m3_table_;  // of the scalar path; 0 without
};

}  // namespace hadal
