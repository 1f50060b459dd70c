// bf16_gemm: D[m,n] = sum_k A[m,k] B[n,k] (+ D), B bfloat16: the linear layers that DeepSeek-V3
// keeps in bfloat16 (output head, router), and all of them in a bfloat16 checkpoint. Batched, the
// same for matrices at regular distances: attention's absorbed projections, a head each.
//
//   a  float or bfloat16 [m, k], row stride a_stride
//   b  bfloat16 [n, k], row stride b_stride (the checkpoint's weight, not transposed)
//   d  float or bfloat16 [m, n], row stride d_stride
//
// Requirements: addresses of a and b multiples of 16, of d of its element; a row of a and of b
// starts at a multiple of 16 bytes (a_stride and a_batch_stride multiples of 4 floats or 8
// bfloat16, b_stride and b_batch_stride of 8); the batches' rows of d apart or interleaved, not
// overlapping; any batch, m, n, k >= 0 (k = 0 gives 0, or d unchanged). What lies between k and the
// next multiple of 16 bytes of a row is read, never used. Infinities and NaN follow IEEE
// arithmetic.
//
// Contract: reads a, b (and d when accumulating), writes d[:, :n] and nothing between n and
// d_stride. No scratch. record() may be called from several threads on different recorders.
// Determinism: k is summed ascending in segments of 128, segments folded left to right, in float;
// the bits of a row depend on that row and b only, not on m, the tile, the batch or the position in
// it, and a bfloat16 a gives the bits of the same values as floats. Error bound against exact
// arithmetic: tests/support/tolerance.h, bf16_gemm_bound.
//
// Source: DeepSeek-V3 technical report (arXiv 2412.19437) 3.3.1 (what stays in bfloat16).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

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

struct Bf16GemmShape {
  uint32_t m = 0, n = 0, k = 0;
  uint32_t a_stride = 0;  // elements, at least k
  uint32_t b_stride = 0;  // elements, at least k
  uint32_t d_stride = 0;  // elements, at least n
  // Distances between the matrices of consecutive batches, in elements; not looked at for one. A
  // stride of 0 shares a or b.
  uint32_t batch = 1;
  uint32_t a_batch_stride = 0, b_batch_stride = 0, d_batch_stride = 0;
  ElementType a_type = ElementType::kF32;
  ElementType d_type = ElementType::kF32;
  bool accumulate = false;  // d += instead of d =

  // Tightest legal strides for the sizes.
  [[nodiscard]] static Bf16GemmShape packed(uint32_t m, uint32_t n, uint32_t k,
                                            ElementType a_type = ElementType::kF32);
};

struct Bf16GemmArgs {
  DeviceAddress a = 0, b = 0, d = 0;
};

// What choose() decided; prints itself as one line, with the reason for each path not taken.
struct Bf16GemmConfig {
  uint32_t tile_m = 0;          // rows of d per workgroup
  uint32_t tile_n = 0;          // columns of d per invocation
  uint32_t workgroup_size = 0;  // invocations, along n
  ElementType a_type = ElementType::kF32;
  ElementType d_type = ElementType::kF32;
  bool use_fma = false;
  GemmPath path = GemmPath::kPortable;  // or kScalar
  uint32_t step_k = 8, row_group = 1;   // kScalar: channels per turn, rows in registers together
  std::string_view rejected;            // "path: reason", a literal
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status bf16_gemm_check(const Bf16GemmShape& shape, const Caps& caps);
// The fastest configuration known for the shape. Pure; requires bf16_gemm_check to be ok.
[[nodiscard]] Bf16GemmConfig bf16_gemm_choose(const Bf16GemmShape& shape, const Caps& caps);

class Bf16Gemm {
 public:
  // Creates the pipeline, or finds it: a device keeps every pipeline once made. Thread-safe.
  [[nodiscard]] static Result<Bf16Gemm> create(Device& device, const Bf16GemmConfig& config);
  // Records one dispatch. Errors: those of check; kInvalidArgument for a misaligned address or a
  // shape whose types are not the configuration's; kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const Bf16GemmShape& shape,
                              const Bf16GemmArgs& args) const;

 private:
  Bf16Gemm(const Device& device, const vk::Pipeline* pipeline, Bf16GemmConfig config);
  const Device* device_;
  const vk::Pipeline* pipeline_;
  Bf16GemmConfig config_;
};

}  // namespace hadal
