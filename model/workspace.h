// The device memory that one batch needs between kernels, planned once for the largest batch.
// Regions of a layer are reused by the next; all rows are float unless a comment says otherwise.
// Private.
#pragma once

#include <cstdint>

#include "hadal/buffer.h"
#include "hadal/device.h"
#include "hadal/mla_decode.h"
#include "hadal/model/config.h"
#include "hadal/model/model.h"

namespace hadal::model {

// A row-major array on the device. Strides in elements.
struct Rows {
  DeviceAddress address = 0;
  uint32_t stride = 0;
};

// An activation in the forms that linears read: float for bfloat16 weights, e4m3 with scales for
// FP8.
struct Activation {
  Rows f32;
  Rows q;      // bytes
  Rows scale;  // float per 128 channels
};

// The shape of a decode attention call over `tokens` rows (strides are the block's to fill in).
[[nodiscard]] MlaDecodeShape decode_shape(const ModelConfig& config, const ModelOptions& options,
                                          uint32_t tokens, uint32_t max_kv_len);

struct Workspace {
  // [tokens, ...]
  Rows x, hidden;
  Activation normed;        // [hidden_size]
  Rows q_a;                 // [q_lora_rank]
  Activation q_a_normed;    // [q_lora_rank]
  Rows kv_a;                // [kv_lora_rank + rope]
  Rows q;                   // [heads * (nope + rope)]
  Rows attention;           // [heads * v], unnormalised while prefill folds key chunks
  Activation attention_in;  // quantised attention; f32 is `attention` itself
  Rows q_latent, o_latent;  // [heads * kv_lora_rank], decode
  Rows softmax_state;       // [heads * 2], prefill
  // [expansion_rows, ...], prefill
  Activation latent;                    // [kv_lora_rank]
  Rows k_pe;                            // [rope]
  Rows kv;                              // [heads * (nope + v)]
  DeviceAddress attention_scratch = 0;  // of mla_prefill and mla_decode
  // MLP and experts: [tokens or tokens * top_k, ...]
  Rows gate, up;      // widest of dense, expert and shared
  Activation swiglu;  // the same
  Rows shared_gate, shared_up, shared_out;
  Activation shared_swiglu;
  Rows expert_out;                                   // [tokens * top_k, hidden]
  Rows router_logits;                                // [experts]
  DeviceAddress expert_ids = 0, expert_weights = 0;  // u32, float [tokens, top_k]
  DeviceAddress row_token = 0, row_of = 0;           // u32 [tokens * top_k]
  DeviceAddress segment_ends = 0, tiles = 0;         // u32 [experts], MoeTile [max]
  uint64_t commands_offset = 0;  // in `buffer`: VkDispatchIndirectCommand [2], gate+up and down
  Rows mtp_in;                   // [2 * hidden]: normed embedding, normed hidden
  Rows head_in;                  // [max_logit_rows, hidden]: gathered rows of `hidden`

  Buffer buffer;

  [[nodiscard]] static Result<Workspace> create(Device& device, const ModelConfig& config,
                                                const ModelOptions& options);
};

}  // namespace hadal::model
