// mla_prefill: causal attention of one sequence in MLA's unabsorbed form, per head h:
//   s[i,j] = (q[i,h,:nope] . kv[j,h,:nope] + q[i,h,nope:] . k_pe[j]) * scale for j <= i (absolute),
//   o[i,h] = sum_j softmax_j(s[i,j]) kv[j,h,nope:].
// Query i is at position q_begin + i. The keys of a call are the positions [kv_begin, kv_begin +
// kv_rows): the latents of a long context are expanded chunk by chunk, and calls over consecutive
// chunks continue one softmax through `state` and `o`.
//
//   q      float [q_len, heads, nope + rope], strides q_row_stride, q_head_stride (rotated)
//   kv     float [kv_rows, heads, nope + v], row stride kv_row_stride (kv_b_proj's output)
//   k_pe   float [kv_rows, rope], row stride k_pe_stride (rotated, shared by all heads)
//   o      float [q_len, heads, v], strides o_row_stride, o_head_stride; between the calls of a
//          sequence the unnormalised sums
//   state  float [q_len, heads, 2]: running maximum and sum; may be absent when first and last
//   scratch  mla_prefill_scratch_bytes(shape) bytes
//
// A batch is several sequences of different lengths in one call: their queries are rows of the same
// q, o and state, their keys rows of the same kv and k_pe, and `sequences`, in device memory, says
// which (MlaPrefillSequence). q_len and kv_rows of the shape then count all rows, max_q_len bounds
// one sequence, and q_begin, kv_begin, first and last are the list's. An entry outside the operands
// is skipped; rows of two entries must not meet.
//
// Requirements: nope and rope multiples of 4, v even; strides of q, kv and k_pe even; addresses of
// q, kv and k_pe multiples of 8, of the others of 4; kv_begin a multiple of 64; kv_rows a multiple
// of 64 unless it is the last chunk. First and last are set on the first and last call of a
// sequence of queries (both on an only call). A query without any key gives 0.
//
// Contract: reads q, kv, k_pe and sequences (and o and state unless first), writes o, scratch and
// (unless last) state; in a batch all of them are declared. Keys after a query's position are not
// part of its result, NaN or not. Scratch is free again when the call is done. record() may be
// called from several threads on different recorders; the calls of one sequence need a barrier
// between. Determinism: keys are folded in blocks of 64 from position 0 on, ascending; the bits of
// a query's row depend on that query, its position and its keys only, not on q_len, the batch, the
// tile or the chunks. exp is taken of numbers <= 0 only. Error bound: tests/support/tolerance.h,
// attention_bound.
//
// With cooperative matrices (AttentionPath::kCoopMat, chosen from caps alone, the default where a
// GPU can) the same holds of bits of its own, with attention_coopmat_bound: queries, keys, values
// and weights are halves relative to the largest magnitude of their row, so no finite input
// overflows, and what is below 2^-28 of it may count as 0. A NaN or an infinity in a query makes
// its row NaN, one in a key or a value every row that sees it.
//
// Source: DeepSeek-V3 technical report (arXiv 2412.19437) 2.1.1; FlashAttention-2 (arXiv
// 2307.08691) 3.1 for the running softmax; vLLM's chunked-context MLA prefill.
#pragma once

#include <cstdint>
#include <string>

#include "hadal/attention_lanes.h"
#include "hadal/attention_path.h"
#include "hadal/buffer.h"
#include "hadal/caps.h"
#include "hadal/status.h"

namespace hadal {

class Device;
class Recorder;
namespace vk {
class Pipeline;
}

// One sequence of a batch, in device memory.
struct MlaPrefillSequence {
  uint32_t q_row = 0, q_len = 0;     // its rows of q, o and state
  uint32_t q_begin = 0;              // absolute position of the first
  uint32_t kv_row = 0, kv_rows = 0;  // its rows of kv and k_pe
  uint32_t kv_begin = 0;             // absolute position of the first, a multiple of 64
  uint32_t flags = kFirst | kLast;
  static constexpr uint32_t kFirst = 1, kLast = 2;
};

struct MlaPrefillShape {
  uint32_t q_len = 0, heads = 0, nope = 0, rope = 0, v = 0;
  uint32_t q_begin = 0;                          // absolute position of query 0
  uint32_t kv_begin = 0, kv_rows = 0;            // absolute positions of the call's keys
  uint32_t q_row_stride = 0, q_head_stride = 0;  // elements, as all strides
  uint32_t kv_row_stride = 0;                    // at least heads * (nope + v)
  uint32_t k_pe_stride = 0;                      // at least rope
  uint32_t o_row_stride = 0, o_head_stride = 0;
  float scale = 1.0f;  // softmax scale, (nope + rope)^-0.5 times YaRN's factor
  bool first = true, last = true;
  uint32_t sequences = 0;  // of a batch; 0: the shape is the one sequence
  uint32_t max_q_len = 0;  // of one sequence of a batch; at most q_len

  // Dense operands, all keys 0 .. q_begin + q_len in one call.
  [[nodiscard]] static MlaPrefillShape packed(uint32_t q_begin, uint32_t q_len, uint32_t heads,
                                              uint32_t nope, uint32_t rope, uint32_t v);
};

struct MlaPrefillArgs {
  DeviceAddress q = 0, kv = 0, k_pe = 0, o = 0, state = 0, scratch = 0, sequences = 0;
};

// Three paths of the same bits: invocations along keys and value channels (the portable one), along
// queries, where invocations are lanes of a CPU, or along both with tiles in shared memory; and
// cooperative matrices.
struct MlaPrefillConfig {
  AttentionPath path = AttentionPath::kPortable;
  uint32_t workgroup_size = 0;  // invocations: 4 to 64, divides 64
  uint32_t tile = 0;            // queries per workgroup
  uint32_t pairs = 0;           // pairs of value channels per invocation; portable path
  AttentionLanes lanes;         // of kLanes
  AttentionTile gpu_tile;       // of kShared and kCoopMat
  AttentionRejections rejected;
  bool batch = false;  // of a shape with sequences
  bool use_fma = false;
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status mla_prefill_check(const MlaPrefillShape& shape, const Caps& caps);
// Depends on the longest sequence's queries, the sizes of a head and whether it is a batch only.
// Pure; requires mla_prefill_check to be ok.
[[nodiscard]] MlaPrefillConfig mla_prefill_choose(const MlaPrefillShape& shape, const Caps& caps,
                                                  const AttentionPolicy& policy = {});

// Bytes of scratch that record() needs for the shape (4-byte aligned), whatever the configuration:
// areas of at most 64 workers of the path along queries, 10 MB for DeepSeek-V3's heads.
[[nodiscard]] uint64_t mla_prefill_scratch_bytes(const MlaPrefillShape& shape);

class MlaPrefill {
 public:
  // Creates the pipeline, or finds it. Thread-safe.
  [[nodiscard]] static Result<MlaPrefill> create(Device& device, const MlaPrefillConfig& config);
  // Records one dispatch. Errors: those of check; kInvalidArgument for a misaligned address, an
  // absent state, scratch or sequences that are needed, or a head that is not the configuration's;
  // kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const MlaPrefillShape& shape,
                              const MlaPrefillArgs& args) const;

 private:
  MlaPrefill(const Device& device, const vk::Pipeline* pipeline, MlaPrefillConfig config);
  [[nodiscard]] Status check_call(const MlaPrefillShape& shape, const MlaPrefillArgs& args) const;
  const Device* device_;
  const vk::Pipeline* pipeline_;
  MlaPrefillConfig config_;
};

}  // namespace hadal
