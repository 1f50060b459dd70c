// moe_gate: the top_k experts of every token, and the weights of their outputs.
//
//   s = sigmoid(logits) or softmax(logits);  c = s + bias (noaux_tc) or s
//   noaux_tc:             a group's score is the sum of its two largest c
//   group_limited_greedy: a group's score is its largest c
//                         of n_group equal groups the best topk_group stay, the others' c =
//                         -infinity
//   greedy:               no groups
//   indices = the top_k experts by c, best first; weights = s[indices] (never the biased c),
//   divided by (their sum + 1e-20) when norm, times scaling
//
//   logits   float [tokens, experts], row stride logits_stride elements
//   bias     float [experts] (`e_score_correction_bias`), noaux_tc only
//   indices  uint32 [tokens, top_k], dense
//   weights  float [tokens, top_k], dense
//
// Ties go to the lowest index, of groups and of experts. A NaN logit (and a NaN selection score)
// counts as -infinity and such an expert's weight is 0; where fewer than top_k experts remain above
// -infinity, the lowest unused indices fill up with weight 0. So indices are always top_k different
// experts.
//
// Requirements: addresses multiples of 4; the rules of moe_gate_check. Zero tokens or top_k:
// nothing is written. Scaling is applied with and without norm.
//
// Contract: reads logits and bias, writes indices and weights. No scratch. Thread-safe as fp8_gemm.
// Determinism: a token's bits depend on its logits and the bias only. The choice is exact given the
// scores; scores carry the error of tests/support/tolerance.h, sigmoid_bound and softmax_bound.
//
// Source: DeepSeek-V3 technical report (arXiv 2412.19437) 2.1.2, eq. 13-16; MoEGate of
// DeepSeek-V2's and V3's modeling code for the methods' names.
#pragma once

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

enum class GateScoring { kSigmoid, kSoftmax };
enum class GateMethod { kNoauxTc, kGroupLimitedGreedy, kGreedy };

struct MoeGateShape {
  uint32_t tokens = 0, experts = 0, top_k = 0;
  uint32_t n_group = 1, topk_group = 1;  // ignored by kGreedy
  GateScoring scoring = GateScoring::kSigmoid;
  GateMethod method = GateMethod::kNoauxTc;
  bool norm = true;
  float scaling = 1.0f;
  uint32_t logits_stride = 0;  // elements, at least experts

  // Dense logits; everything else as above.
  [[nodiscard]] static MoeGateShape packed(uint32_t tokens, uint32_t experts, uint32_t top_k);
};

struct MoeGateArgs {
  DeviceAddress logits = 0, bias = 0, indices = 0, weights = 0;
};

struct MoeGateConfig {
  uint32_t workgroup_size = 0;  // invocations per token, or tokens with lanes_top_k
  // Not 0: one invocation per token (CPU drivers), with this top_k.
  uint32_t lanes_top_k = 0;
  // Not 0, with lanes_top_k: selection by sorting networks, with so many groups kept (1: no
  // groups).
  uint32_t sorted_groups = 0;
  [[nodiscard]] std::string to_string() const;
};

// Ok, or kInvalidArgument naming the rule that `shape` breaks. Pure.
[[nodiscard]] Status moe_gate_check(const MoeGateShape& shape, const Caps& caps);
[[nodiscard]] MoeGateConfig moe_gate_choose(const MoeGateShape& shape, const Caps& caps);

class MoeGate {
 public:
  // Creates the pipeline, or finds it. Thread-safe.
  [[nodiscard]] static Result<MoeGate> create(Device& device, const MoeGateConfig& config);
  // Records one dispatch. Errors: those of check; kHazard from the recorder.
  [[nodiscard]] Status record(Recorder& recorder, const MoeGateShape& shape,
                              const MoeGateArgs& args) const;

 private:
  MoeGate(const Device& device, const vk::Pipeline* pipeline, MoeGateConfig config);
  const Device* device_;
  const vk::Pipeline* pipeline_;
  MoeGateConfig config_;
};

}  // namespace hadal
