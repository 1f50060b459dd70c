// mla_decode: attention of single tokens over the paged cache in MLA's absorbed form, per token t
// and head h, over the keys j < kv_lens[t] of t's sequence, with cache rows [c | k_pe]:
//   s[j] = (q_latent[t,h] . c[j] + q_pe[t,h] . k_pe[j]) * scale,  o[t,h] = sum_j softmax_j(s) c[j],
//   lse[t,h] = ln(sum_j exp(s[j])).
// q_latent is q_nope absorbed through W_UK; o goes through W_UV.
//
//   q_latent      float [tokens, heads, rank], strides q_latent_row_stride, q_latent_head_stride
//   q_pe          float [tokens, heads, rope], strides q_pe_* (it may lie inside the rows of q)
//   cache         [cache_rows] rows of rank + rope channels: float, bfloat16, or the FP8 row of
//                 hadal/cache_format.h; row stride row_stride
//   block_tables  uint32 [tokens / q_len, table_stride]: position p is row
//                 table[p / 64] * 64 + p % 64
//   kv_lens       uint32 [tokens / q_len], on the device: 0 to max_kv_len (more is taken as it)
//   o             float or bfloat16 [tokens, heads, rank], strides o_row_stride, o_head_stride
//   lse           float [tokens, heads]; 0: not wanted
//   scratch       mla_decode_scratch_bytes(shape) bytes
//
// Several queries of a sequence (q_len, for speculation) are neighbouring tokens: token t is query
// i = t % q_len of sequence t / q_len and sees kv_lens[t / q_len] - (q_len - 1 - i) keys, or none:
// the last query sees all of them, its own included.
//
// Of FP8 rows the scales stay outside the inner products. With groups g of 128 latent channels:
//   t_g = sum_c q_latent[c] * code[j,c], ascending;  s = t_0 * scale[j,0] + t_1 * scale[j,1] + ...,
//   continued by the rope channels;  o[c] += (p[j] * scale[j,g]) * code[j,c],
// each product and sum one mac() (lib/prelude.glsl), p * scale rounded once. Codes decode exactly.
//
// Requirements: rank a positive multiple of 4, rope and row_stride multiples of 4 (an FP8 row's
// stride: of 16 bytes); cache a multiple of 8, of 16 for FP8 rows, o of its element, other
// addresses of 4. kv_len 0 gives o 0 and lse -infinity. Table entries past a token's last page and
// rows past its end are never read. A page past cache_rows makes its token NaN.
//
// Contract: reads the queries, kv_lens, the needed entries and rows (the whole tables and cache are
// declared), writes o, lse and scratch, which is free again when the call is done; with more than
// 1,024 keys two dispatches with a barrier between. record() may be called from several threads on
// different recorders. Determinism: keys are folded ascending in pages of 64, pages in splits of
// 1,024 at absolute positions, splits left to right; the bits of a token's row depend on that token
// and its keys only, not on the batch, max_kv_len or the number of dispatches. exp is taken of
// numbers <= 0 only. Error bound: tests/support/tolerance.h, attention_bound, and
// attention_fp8_bound over FP8 rows.
//
// With cooperative matrices (AttentionPath::kCoopMat, chosen from caps alone, the default where a
// GPU can) the same holds of bits of its own, with attention_coopmat_bound: queries, cache values
// and weights are halves relative to the largest magnitude of their row, so no finite input
// overflows, and what is below 2^-28 of it may count as 0. A NaN or an infinity in a query makes
// its row NaN, one in a cache row every row that sees it.
//
// Source: DeepSeek-V3 technical report (arXiv 2412.19437) 2.1.1, DeepSeek-V2 (arXiv 2405.04434)
// 2.1.2 for the absorption; FlashMLA; Flash-Decoding for the splits.
#pragma once

#include <cstdint>
#include <string>

#include "hadal/attention_lanes.h"
#include "hadal/attention_path.h"
#include "hadal/buffer.h"
#include "hadal/cache_format.h"
#include "hadal/caps.h"
#include "hadal/status.h"
#include "hadal/types.h"

namespace hadal {

class Device;
class Recorder;
namespace vk {
class Pipeline;
}

struct MlaDecodeShape {
  uint32_t tokens = 0, heads = 0, rank = 0, rope = 0;
  uint32_t q_len = 1;       // queries of a sequence; divides tokens
  uint32_t max_kv_len = 0;  // at most cache_rows
  uint32_t cache_rows = 0;
  uint32_t q_latent_row_stride = 0, q_latent_head_stride = 0;  // elements, as all strides
  uint32_t q_pe_row_stride = 0, q_pe_head_stride = 0;
  uint32_t row_stride = 0;    // of the cache, at least rank + rope (FP8: bytes)
  uint32_t table_stride = 0;  // at least ceil(max_kv_len / 64)
  uint32_t o_row_stride = 0, o_head_stride = 0;
  float scale =
      1.0f;  // softmax scale, of the unabsorbed head: (nope + rope)^-0.5 and YaRN's factor
  CacheFormat cache_format = CacheFormat::kF32;
  ElementType o_type = ElementType::kF32;  // bfloat16: rounded to nearest even

  [[nodiscard]] static MlaDecodeShape packed(uint32_t tokens, uint32_t heads, uint32_t rank,
                                             uint32_t rope, uint32_t max_kv_len,
                                             uint32_t cache_rows,
                                             CacheFormat format = CacheFormat::kF32);
};

struct MlaDecodeArgs {
  DeviceAddress q_latent = 0, q_pe = 0, cache = 0, block_tables = 0, kv_lens = 0;
  DeviceAddress o = 0, lse = 0, scratch = 0;
};

// Three paths of the same bits: invocations along keys and latent channels (the portable one),
// along heads, where invocations are lanes of a CPU, or along both with tiles in shared memory; and
// cooperative matrices.
struct MlaDecodeConfig {
  AttentionPath path = AttentionPath::kPortable;
  uint32_t workgroup_size = 0;  // invocations: 4 to 64, divides 64
  uint32_t tile = 0;            // heads per workgroup
  uint32_t pairs = 0;           // pairs of latent channels per invocation; portable path
  AttentionLanes lanes;         // of kLanes
  AttentionTile gpu_tile;       // of kShared and kCoopMat
  AttentionRejections rejected;
  uint32_t combine_workgroup_size = 0;
  uint32_t combine_pairs = 0;  // pairs of latent channels per invocation of the combining dispatch
  bool combine_vectors = false;  // whose rows are moved as vectors: rank is exactly its channels
  CacheFormat cache_format = CacheFormat::kF32;
  ElementType o_type = ElementType::kF32;
  bool use_fma = false;
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status mla_decode_check(const MlaDecodeShape& shape, const Caps& caps);
// Depends on heads, rank, rope, cache_format and o_type only. Pure; requires mla_decode_check to be
// ok.
[[nodiscard]] MlaDecodeConfig mla_decode_choose(const MlaDecodeShape& shape, const Caps& caps,
                                                const AttentionPolicy& policy = {});
// Bytes of scratch that record() needs for the shape (4-byte aligned), whatever the configuration:
// the partial results of 1,024 keys each, none up to max_kv_len 1,024, and up to 64 workers' areas
// of the path along heads. Grows with tokens, heads, rank, rope and max_kv_len.
[[nodiscard]] uint64_t mla_decode_scratch_bytes(const MlaDecodeShape& shape);

class MlaDecode {
 public:
  // Creates the pipelines, or finds them. Thread-safe.
  [[nodiscard]] static Result<MlaDecode> create(Device& device, const MlaDecodeConfig& config);
  // Records one dispatch, or two with a barrier between. Errors: those of check; kInvalidArgument
  // for a misaligned cache, absent scratch, or a shape that is not the configuration's; kHazard
  // from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const MlaDecodeShape& shape,
                              const MlaDecodeArgs& args) const;

 private:
  MlaDecode(const Device& device, const vk::Pipeline* pipeline, const vk::Pipeline* combine,
            MlaDecodeConfig config, DeviceAddress e4m3_table);
  [[nodiscard]] Status check_call(const MlaDecodeShape& shape, const MlaDecodeArgs& args) const;
  const Device* device_;
  const vk::Pipeline* pipeline_;
  const vk::Pipeline* combine_;
  MlaDecodeConfig config_;
  DeviceAddress e4m3_table_;  // of the lanes path over FP8 rows; 0 without
};

}  // namespace hadal
