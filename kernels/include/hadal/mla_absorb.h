// mla_absorb: the absorbed projections of MLA decode, per head h, from kv_b_proj's own bytes
// (W = [W_UK nope rows | W_UV v rows] per head, head-major):
//   query direction: out[t,h,l] = sum_p in[t,h,p] W[h*(nope+v) + p, l]          (q_nope -> latent)
//   value direction: out[t,h,j] = sum_l in[t,h,l] W[h*(nope+v) + nope + j, l]   (latent -> v)
//
//   in       float [tokens, heads, nope | rank], strides in_token_stride, in_head_stride
//   w        e4m3 or bfloat16 [heads*(nope+v), rank], row stride w_stride
//   w_scale  float [ceil(heads*(nope+v)/128), ceil(rank/128)], row stride w_scale_stride; e4m3
//            only. Blocks are those of the whole matrix: block row = row/128, not a head's own
//   out      float [tokens, heads, rank | v], strides out_token_stride, out_head_stride
//
// Requirements: address of w a multiple of 16, of the others of 4; rows of w start at multiples of
// 16 bytes; any sizes >= 0 (a sum without terms gives 0). Tokens are outermost: a token's heads end
// before the next token begins. e4m3 codes 0x7f/0xff (NaN) must not occur, as for fp8_gemm.
// Elements of a row of w between rank and the next multiple of 8 are read, never used.
//
// Contract: reads in, w, w_scale; writes out[:, :, :width], nothing between width and the strides.
// To the recorder in and out are declared from the first to the last element, gaps included: a
// kernel that writes the rope channels beside them needs a barrier between. No scratch. record()
// may be called from several threads on different recorders. Determinism: terms ascending (p, l) in
// segments that end where a scale block does (p: at absolute rows of w that are multiples of 128;
// l: at multiples of 128; for bfloat16 too), each segment's sum scaled once and added, in float;
// the bits of a token and head depend on its values and w only, not on tokens or the tile. Error
// bound: tests/support/tolerance.h, mla_absorb_bound.
//
// Source: DeepSeek-V2 (arXiv 2405.04434) 2.1.2 and appendix B; DeepSeek-V3's kv_b_proj layout.
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

enum class MlaAbsorbDirection { kQuery, kValue };
enum class MlaAbsorbWeight { kE4m3, kBf16 };

struct MlaAbsorbShape {
  uint32_t tokens = 0, heads = 0, nope = 0, v = 0, rank = 0;
  MlaAbsorbDirection direction = MlaAbsorbDirection::kQuery;
  MlaAbsorbWeight weight_type = MlaAbsorbWeight::kE4m3;
  uint32_t w_stride = 0;                             // elements, at least rank
  uint32_t w_scale_stride = 0;                       // elements, at least ceil(rank/128); e4m3 only
  uint32_t in_token_stride = 0, in_head_stride = 0;  // elements
  uint32_t out_token_stride = 0, out_head_stride = 0;  // elements

  // Elements of one head's input and output.
  [[nodiscard]] uint32_t in_width() const {
    return direction == MlaAbsorbDirection::kQuery ? nope : rank;
  }
  [[nodiscard]] uint32_t out_width() const {
    return direction == MlaAbsorbDirection::kQuery ? rank : v;
  }
  // Tightest legal strides for the sizes.
  [[nodiscard]] static MlaAbsorbShape packed(uint32_t tokens, uint32_t heads, uint32_t nope,
                                             uint32_t v, uint32_t rank,
                                             MlaAbsorbDirection direction,
                                             MlaAbsorbWeight weight_type);
};

struct MlaAbsorbArgs {
  DeviceAddress in = 0, w = 0, w_scale = 0, out = 0;
};

// What choose() decided; prints itself as one line, with the reason for each path not taken.
struct MlaAbsorbConfig {
  uint32_t tile_m = 0;  // tokens per workgroup
  uint32_t tile_n = 0;  // per invocation. Value: outputs; query: groups of 8 outputs, on the
                        // scalar path of 4 (e4m3) or 2 (bf16)
  uint32_t workgroup_size = 0;  // invocations, along the outputs
  MlaAbsorbDirection direction = MlaAbsorbDirection::kQuery;
  MlaAbsorbWeight weight_type = MlaAbsorbWeight::kE4m3;
  bool use_fma = false;
  GemmPath path = GemmPath::kPortable;     // or kScalar
  std::string_view rejected;               // "path: reason", a literal
  [[nodiscard]] uint32_t columns() const;  // outputs per workgroup
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status mla_absorb_check(const MlaAbsorbShape& shape, const Caps& caps);
// The fastest configuration known for the shape. Pure; requires mla_absorb_check to be ok.
[[nodiscard]] MlaAbsorbConfig mla_absorb_choose(const MlaAbsorbShape& shape, const Caps& caps);

class MlaAbsorb {
 public:
  // Creates the pipeline, or finds it: a device keeps every pipeline once made. Thread-safe.
  [[nodiscard]] static Result<MlaAbsorb> create(Device& device, const MlaAbsorbConfig& config);
  // Records one dispatch. Errors: those of check; kInvalidArgument for a misaligned address or a
  // shape whose direction or weight_type is not the configuration's; kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const MlaAbsorbShape& shape,
                              const MlaAbsorbArgs& args) const;

 private:
  MlaAbsorb(const Device& device, const vk::Pipeline* pipeline, MlaAbsorbConfig config);
  const Device* device_;
  const vk::Pipeline* pipeline_;
  MlaAbsorbConfig config_;
};

}  // namespace hadal
