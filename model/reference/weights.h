// The tensors of a model, found in a checkpoint and checked; nothing is decoded here.
#pragma once

#include <cstdint>
#include <vector>

#include "hadal/model/config.h"
#include "hadal/model/safetensors.h"
#include "hadal/status.h"

namespace hadal::model::reference {

// weight [n, k]: e4m3 with `scale` float [ceil(n/128), ceil(k/128)], or bfloat16 without.
struct Linear {
  const TensorView* weight = nullptr;
  const TensorView* scale = nullptr;
  uint32_t n = 0, k = 0;
};

struct MlpWeights {
  Linear gate, up, down;
};

struct LayerWeights {
  const TensorView* input_norm = nullptr;
  Linear q;  // only without query compression
  Linear q_a, q_b;
  const TensorView* q_a_norm = nullptr;
  Linear kv_a, kv_b, o;
  const TensorView* kv_a_norm = nullptr;

  const TensorView* post_norm = nullptr;
  bool moe = false;
  MlpWeights dense;                             // dense layers
  Linear router;                                // MoE layers, like the rest
  const TensorView* correction_bias = nullptr;  // topk_method noaux_tc only
  std::vector<MlpWeights> experts;
  MlpWeights shared;  // n_shared_experts > 0 only
};

struct MtpWeights {
  const TensorView* embedding = nullptr;
  const TensorView* embedding_norm = nullptr;  // enorm
  const TensorView* hidden_norm = nullptr;     // hnorm
  Linear projection;                           // eh_proj
  const TensorView* norm = nullptr;            // shared_head.norm
  Linear head;                                 // shared_head.head
};

struct ModelWeights {
  const TensorView* embedding = nullptr;
  const TensorView* norm = nullptr;
  Linear head;
  std::vector<LayerWeights> layers;  // main layers, then MTP layers
  std::vector<MtpWeights> mtp;
};

// Errors: kMalformed for a tensor that is absent or has another shape or type.
[[nodiscard]] Result<ModelWeights> find_weights(const Checkpoint& checkpoint,
                                                const ModelConfig& config);

}  // namespace hadal::model::reference
