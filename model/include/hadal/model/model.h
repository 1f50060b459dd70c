// A DeepSeek-V3-family model on the device: its weights, tables and limits. A Pass (pass.h) records
// its kernels over a workspace; who decides which tokens run, and where their cache rows lie, is
// the runtime.
//
// Two forms of the same attention (DeepSeek-V3 report 2.1; facts in kernels/mla_*.md):
//   prefill  (unabsorbed) many tokens of one or several sequences; kv_b_proj expands latents
//   decode   (absorbed) many sequences, one row each; the query moves into latent space
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
  uint32_t max_logit_rows = 1;     // rows of the largest head call behind a prefill
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

// Bytes of the tables that a Model allocates besides its weights, and of the passes of one prefill
// and one decode pipeline over it.
[[nodiscard]] uint64_t workspace_bytes(const ModelConfig& config, const ModelOptions& options);
// Bytes of the cache for `pages` pages, MTP layers included.
[[nodiscard]] uint64_t cache_bytes(const ModelConfig& config, uint32_t pages, CacheFormat format);

class Model {
 public:
  // Errors: kInvalidArgument for options that contradict each other, those of check_supported and
  // of the device. Thread-safe once created.
  [[nodiscard]] static Result<std::unique_ptr<Model>> create(Device& device, ModelConfig config,
                                                             Weights weights,
                                                             const ModelOptions& options = {});
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  [[nodiscard]] const ModelConfig& config() const;
  [[nodiscard]] const Weights& weights() const;
  [[nodiscard]] const ModelOptions& options() const;

 private:
  friend class Pass;
  struct Impl;
  explicit Model(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace hadal::model
