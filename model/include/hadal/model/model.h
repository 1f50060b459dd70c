// The forward pass of a DeepSeek-V3-family model as recorded kernels. A Model owns weights and
// workspace; who decides which tokens run, and where their cache rows lie, is the runtime.
//
// Two forms of the same attention (DeepSeek-V3 report 2.1; facts in kernels/mla_*.md):
//   prefill  many tokens of one or several sequences; latents are expanded by kv_b_proj (unabsorbed)
//   decode   many sequences, one row each; the query moves into latent space (absorbed)
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "hadal/attention_path.h"
#include "hadal/buffer.h"
#include "hadal/cache_format.h"
#include "hadal/caps.h"
#include "hadal/device.h"
#include "hadal/model/config.h"
#include "hadal/model/prefill_batch.h"
#include "hadal/model/weights.h"
#include "hadal/recorder.h"
#include "hadal/status.h"
#include "hadal/types.h"

namespace hadal::model {

// Where the latent cache lies: per layer (main layers first, then MTP's) `pages` pages of 64 rows
// of kv_lora_rank + qk_rope_head_dim channels.
struct CacheView {
  DeviceAddress base = 0;
  uint64_t layer_stride_bytes = 0;
  uint32_t pages = 0;
  uint32_t row_stride = 0;  // in cache_stride_unit(format)
  CacheFormat format = CacheFormat::kF32;
};

// One decode step: row i is one token of its own sequence.
struct DecodeBatch {
  uint32_t tokens = 0;
  uint32_t max_kv_len = 0;         // at least every kv_lens[i]
  DeviceAddress ids = 0;           // u32 [tokens]
  DeviceAddress positions = 0;     // u32 [tokens]
  DeviceAddress slots = 0;         // u32 [tokens]
  DeviceAddress kv_lens = 0;       // u32 [tokens]: keys that the row sees, its own included
  DeviceAddress block_tables = 0;  // u32 [tokens, table_stride]
  uint32_t table_stride = 0;
};

struct ModelOptions {
  uint32_t max_tokens = 512;       // rows of the largest batch
  uint32_t max_decode_rows = 1;    // rows of the largest decode step, at most max_tokens
  uint32_t max_context = 4096;     // positions that the rope table and plans cover
  uint32_t expansion_rows = 1024;  // latents expanded at a time in prefill; a multiple of 64
  uint32_t max_logit_rows = 1;     // rows of the largest head call
  // FP8 models: store latents rounded through e4m3, so that decode (absorbed) computes what prefill
  // (unabsorbed) computes. Off: decode sees unrounded latents, as DeepSeek's demo does.
  bool round_latent = true;
  // Which units attention may take. Operands in halves (matrix units of GPUs) are off by default,
  // as every option that rounds more: forced on a CPU driver they move fables' king prompt by a
  // mean KL of 1.5e-2, over the bar of 5e-3; BF16 models pass theirs (tests, AttentionInHalves).
  AttentionPolicy attention = {.path = {}, .half_operands = false};
};

// Ok when every kernel runs the model's shapes at these options on a device of these caps; else
// kUnsupported naming the fields of config.json and the kernel's rule. Pure.
[[nodiscard]] Status check_supported(const ModelConfig& config, const ModelOptions& options,
                                     const Caps& caps);
// The same for the limits that hold on every device, one token at a time.
[[nodiscard]] Status check_supported(const ModelConfig& config);

// Bytes of the workspace and of the tables that a Model allocates besides its weights.
[[nodiscard]] uint64_t workspace_bytes(const ModelConfig& config, const ModelOptions& options);
// Bytes of the cache for `pages` pages, MTP layers included.
[[nodiscard]] uint64_t cache_bytes(const ModelConfig& config, uint32_t pages, CacheFormat format);

class Model {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Model>> create(Device& device, ModelConfig config,
                                                             Weights weights,
                                                             const ModelOptions& options = {});
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  [[nodiscard]] const ModelConfig& config() const;
  [[nodiscard]] const Weights& weights() const;
  [[nodiscard]] const ModelOptions& options() const;

  // Residual stream, float [max_tokens, hidden]: rows of the batch in order.
  [[nodiscard]] DeviceAddress x() const;
  // Final hidden states (after model.norm), float [max_tokens, hidden] with row_stride() between
  // rows, written by record_final_norm and record_mtp; a part of workspace().
  [[nodiscard]] DeviceAddress hidden() const;
  [[nodiscard]] uint32_t row_stride() const;      // elements between rows of x() and hidden()
  [[nodiscard]] const Buffer& workspace() const;  // for copies to and from x() and hidden()
  // Logits, float [max_logit_rows, vocab], written by record_head and record_mtp_head.
  [[nodiscard]] const Buffer& logits() const;

  // Pieces of a pass. All end with a barrier: what they wrote may be read by the next call.
  [[nodiscard]] Status record_embedding(Recorder& recorder, DeviceAddress ids, uint32_t tokens);
  [[nodiscard]] Status record_layer(Recorder& recorder, const LayerWeights& layer,
                                    uint32_t cache_layer, const PrefillBatch& batch,
                                    const CacheView& cache);
  [[nodiscard]] Status record_layer(Recorder& recorder, const LayerWeights& layer,
                                    uint32_t cache_layer, const DecodeBatch& batch,
                                    const CacheView& cache);
  // hidden()[0..tokens) = norm(x)
  [[nodiscard]] Status record_final_norm(Recorder& recorder, uint32_t tokens);
  // logits()[0..rows) = hidden rows [first, first + rows) times the output head.
  [[nodiscard]] Status record_head(Recorder& recorder, uint32_t first, uint32_t rows);
  // logits()[i] from hidden row rows[i]; rows that do not follow one another are gathered first.
  [[nodiscard]] Status record_head(Recorder& recorder, std::span<const uint32_t> rows);

  // Whole passes: embedding, every layer, final norm.
  [[nodiscard]] Status record(Recorder& recorder, const PrefillBatch& batch,
                              const CacheView& cache);
  [[nodiscard]] Status record(Recorder& recorder, const DecodeBatch& batch, const CacheView& cache);

  // The MTP module `index` over rows: x = eh_proj([norm(embedding(ids)); norm(previous hidden)]),
  // its layer, then head norm into hidden(). batch.ids are the tokens one further than
  // batch.positions say; previous_hidden float [tokens, hidden] has row_stride() too and may be
  // hidden() itself, whose rows are then overwritten at the end.
  [[nodiscard]] Status record_mtp(Recorder& recorder, uint32_t index, const PrefillBatch& batch,
                                  const CacheView& cache, DeviceAddress previous_hidden);
  [[nodiscard]] Status record_mtp(Recorder& recorder, uint32_t index, const DecodeBatch& batch,
                                  const CacheView& cache, DeviceAddress previous_hidden);
  [[nodiscard]] Status record_mtp_head(Recorder& recorder, uint32_t index, uint32_t first,
                                       uint32_t rows);
  [[nodiscard]] Status record_mtp_head(Recorder& recorder, uint32_t index,
                                       std::span<const uint32_t> rows);

 private:
  struct Impl;
  explicit Model(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hadal::model
