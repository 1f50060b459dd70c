// The whole model on the CPU, built from the kernels' references: what the Vulkan model is compared
// with, end to end and layer by layer.
//
// Numbers: every operation computes in double and rounds its result to float once, so activations
// between operations are float32 (the residual stream too). Quantisation points are those of the
// Vulkan model: the input of an FP8 linear is quantised per row and 128 channels by the rule of
// fp8_quantize; bfloat16 linears (output head, router, eh_proj, all of a bfloat16 checkpoint) take
// the float input as it is. Weights are decoded where they are used, so that memory stays small and
// a checkpoint larger than memory works, slowly.
//
// Errors: kInvalidArgument for a layer, a token id or a shape that is out of range (the message
// names it). Thread safety: const functions may be called concurrently. Deterministic.
//
// Source: DeepSeek-V3 technical report (arXiv 2412.19437) 2.1, 2.2, 3.3; DeepSeek-V3's inference
// code; transformers' DeepseekV3ForCausalLM and DeepseekV2ForCausalLM.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "hadal/cache_format.h"
#include "hadal/model/config.h"
#include "hadal/model/safetensors.h"
#include "hadal/status.h"

namespace hadal::model::reference {

// Row-major and dense.
struct Matrix {
  uint32_t rows = 0;
  uint32_t columns = 0;
  std::vector<float> data;

  Matrix() = default;
  Matrix(uint32_t r, uint32_t c) : rows(r), columns(c), data(size_t{r} * c) {}
  [[nodiscard]] std::span<float> row(uint32_t r) {
    return {data.data() + size_t{r} * columns, columns};
  }
  [[nodiscard]] std::span<const float> row(uint32_t r) const {
    return {data.data() + size_t{r} * columns, columns};
  }
};

// How attention reads the latent cache; equal in exact arithmetic, not under FP8.
enum class AttentionForm {
  kUnabsorbed,  // prefill: cached latents go through kv_b_proj (FP8: quantised like any activation)
  kAbsorbed,    // decode: W_UK and W_UV, dequantised, are applied to the query and to the output
};

struct ReferenceOptions {
  AttentionForm form = AttentionForm::kUnabsorbed;
  CacheFormat cache_format = CacheFormat::kF32;  // rows of the latent cache round as it stores them
  // False: FP8 linears take the float input as it is, so that only the weights are quantised. Then
  // the forms of attention agree, and so does every other implementation, to float rounding.
  bool quantise_activations = true;
  // FP8 models: cached latents are rounded through e4m3 (ModelOptions::round_latent), which makes
  // the two forms of attention agree to float rounding.
  bool round_latent = true;
};

// Attention of one layer, by operation, in order. T rows, one per token.
struct AttentionTrace {
  Matrix normed;    // [T, hidden] input_layernorm(x)
  Matrix q_latent;  // [T, q_lora_rank] after q_a_layernorm; empty when the query is one projection
  Matrix query;     // [T, heads * (nope + rope)] after RoPE; a head is [nope | rope]
  Matrix cache_rows;  // [T, kv_lora_rank + rope]: latent after its norm | key after RoPE
  Matrix context;     // [T, heads * v]: in front of o_proj
  Matrix output;      // [T, hidden] o_proj(context)
  Matrix result;      // [T, hidden] x + output
};

// MLP of one layer: dense, or gate + routed experts + shared experts.
struct MlpTrace {
  Matrix normed;                  // [T, hidden] post_attention_layernorm(x)
  Matrix router_logits;           // [T, experts]; empty in a dense layer, like the next four
  std::vector<uint32_t> experts;  // [T, experts per token], by falling (biased) score
  Matrix expert_weights;          // [T, experts per token]
  Matrix expert_outputs;          // [T * experts per token, hidden], in the order of `experts`
  Matrix shared;                  // [T, hidden]; empty also without shared experts
  Matrix output;                  // [T, hidden] dense MLP, or routed + shared
  Matrix result;                  // [T, hidden] x + output
};

struct ForwardResult {
  Matrix hidden;  // [T, hidden] after the final norm
  Matrix logits;  // [T, vocab]
};

class ReferenceModel {
 public:
  // Finds every tensor and checks its shape and type; reads no data. Errors: kMalformed, naming the
  // tensor; kInvalidArgument for a null checkpoint.
  [[nodiscard]] static Result<ReferenceModel> create(std::shared_ptr<const Checkpoint> checkpoint,
                                                     const ModelConfig& config);

  // The main model over one sequence that begins at position 0.
  [[nodiscard]] Result<ForwardResult> forward(std::span<const uint32_t> ids,
                                              const ReferenceOptions& options = {}) const;
  // The MTP module over the same sequence: row i [T-1, vocab] predicts token i + 2 from ids[i + 1]
  // and row i of `hidden` (ForwardResult::hidden), at position i.
  [[nodiscard]] Result<Matrix> mtp_logits(std::span<const uint32_t> ids, const Matrix& hidden,
                                          const ReferenceOptions& options = {}) const;

  // The pieces of the above on inputs of the caller. `layer` counts the main layers, then the MTP
  // layers. Row i of x stands at position first_position + i and sees every row of `past` (cache
  // rows of earlier tokens, [any, kv_lora_rank + rope]) and the rows 0..i of its own.
  [[nodiscard]] Result<Matrix> embed(std::span<const uint32_t> ids) const;
  [[nodiscard]] Result<AttentionTrace> attention_block(uint32_t layer, const Matrix& x,
                                                       const ReferenceOptions& options = {},
                                                       uint32_t first_position = 0,
                                                       const Matrix& past = {}) const;
  [[nodiscard]] Result<MlpTrace> mlp_block(uint32_t layer, const Matrix& x,
                                           const ReferenceOptions& options = {}) const;
  [[nodiscard]] Result<Matrix> decoder_layer(uint32_t layer, const Matrix& x,
                                             const ReferenceOptions& options = {}) const;
  [[nodiscard]] Result<Matrix> final_norm(const Matrix& x) const;
  [[nodiscard]] Result<Matrix> logits(const Matrix& hidden) const;
  // eh_proj([enorm(embedding of next_ids[i]) | hnorm(hidden row i)]) [T, hidden].
  [[nodiscard]] Result<Matrix> mtp_input(std::span<const uint32_t> next_ids,
                                         const Matrix& hidden) const;
  // What the next MTP step would take as `hidden`: shared_head.norm of the MTP layer's result.
  [[nodiscard]] Result<Matrix> mtp_norm(const Matrix& x) const;
  [[nodiscard]] Result<Matrix> mtp_head(const Matrix& normed) const;

  [[nodiscard]] const ModelConfig& config() const;

 private:
  struct Impl;
  explicit ReferenceModel(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

}  // namespace hadal::model::reference
