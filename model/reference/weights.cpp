#include "weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <initializer_list>
#include <string>
#include <utility>

namespace hadal::model::reference {
namespace {

using Shape = std::vector<uint64_t>;

uint64_t blocks(uint64_t size) {
  return (size + ModelConfig::kFp8Block - 1) / ModelConfig::kFp8Block;
}

// Looks tensors up; the first error stays, later look-ups return nullptr.
class Finder {
 public:
  explicit Finder(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  [[nodiscard]] const Status& status() const { return status_; }
  [[nodiscard]] bool has(const std::string& name) const {
    return checkpoint_.find(name) != nullptr;
  }

  const TensorView* tensor(const std::string& name, const Shape& shape,
                           std::initializer_list<DType> dtypes) {
    if (!status_.ok()) return nullptr;
    const TensorView* view = checkpoint_.find(name);
    if (view == nullptr) {
      fail(fmt::format("{}: must be in the checkpoint, got nothing", name));
      return nullptr;
    }
    if (view->shape != shape) {
      fail(fmt::format("{}: shape must be [{}], got [{}]", name, fmt::join(shape, ", "),
                       fmt::join(view->shape, ", ")));
      return nullptr;
    }
    for (const DType dtype : dtypes) {
      if (view->dtype == dtype) return view;
    }
    fail(fmt::format("{}: type must be {}, got {}", name, dtype_name(*dtypes.begin()),
                     dtype_name(view->dtype)));
    return nullptr;
  }

  // Norm weights and biases: some tools write them as float32.
  const TensorView* vector(const std::string& name, uint32_t size) {
    return tensor(name, {size}, {DType::kBf16, DType::kF32});
  }

  Linear linear(const std::string& name, uint32_t n, uint32_t k) {
    Linear found{.n = n, .k = k};
    found.weight = tensor(name + ".weight", {n, k}, {DType::kBf16, DType::kF8E4M3});
    if (found.weight != nullptr && found.weight->dtype == DType::kF8E4M3) {
      found.scale = tensor(name + ".weight_scale_inv", {blocks(n), blocks(k)}, {DType::kF32});
    }
    return found;
  }

  MlpWeights mlp(const std::string& name, uint32_t hidden, uint32_t width) {
    return {.gate = linear(name + ".gate_proj", width, hidden),
            .up = linear(name + ".up_proj", width, hidden),
            .down = linear(name + ".down_proj", hidden, width)};
  }

 private:
  void fail(std::string message) { status_ = Status(Errc::kMalformed, std::move(message)); }

  const Checkpoint& checkpoint_;
  Status status_;
};

void find_attention(Finder& find, const std::string& name, const ModelConfig& c,
                    LayerWeights& layer) {
  const uint32_t heads = c.num_attention_heads;
  if (c.q_lora_rank == 0) {
    layer.q = find.linear(name + ".q_proj", heads * c.qk_head_dim(), c.hidden_size);
  } else {
    layer.q_a = find.linear(name + ".q_a_proj", c.q_lora_rank, c.hidden_size);
    layer.q_a_norm = find.vector(name + ".q_a_layernorm.weight", c.q_lora_rank);
    layer.q_b = find.linear(name + ".q_b_proj", heads * c.qk_head_dim(), c.q_lora_rank);
  }
  layer.kv_a = find.linear(name + ".kv_a_proj_with_mqa", c.cache_row_elems(), c.hidden_size);
  layer.kv_a_norm = find.vector(name + ".kv_a_layernorm.weight", c.kv_lora_rank);
  layer.kv_b =
      find.linear(name + ".kv_b_proj", heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank);
  layer.o = find.linear(name + ".o_proj", c.hidden_size, heads * c.v_head_dim);
}

void find_moe(Finder& find, const std::string& name, const ModelConfig& c, LayerWeights& layer) {
  layer.router = find.linear(name + ".gate", c.n_routed_experts, c.hidden_size);
  if (c.topk_method == TopkMethod::kNoauxTc) {
    layer.correction_bias = find.vector(name + ".gate.e_score_correction_bias", c.n_routed_experts);
  }
  for (uint32_t e = 0; e < c.n_routed_experts; ++e) {
    layer.experts.push_back(
        find.mlp(fmt::format("{}.experts.{}", name, e), c.hidden_size, c.moe_intermediate_size));
  }
  if (c.n_shared_experts > 0) {
    layer.shared = find.mlp(name + ".shared_experts", c.hidden_size, c.shared_intermediate_size());
  }
}

LayerWeights find_layer(Finder& find, const ModelConfig& c, uint32_t index) {
  const std::string name = fmt::format("model.layers.{}", index);
  LayerWeights layer;
  layer.input_norm = find.vector(name + ".input_layernorm.weight", c.hidden_size);
  find_attention(find, name + ".self_attn", c, layer);
  layer.post_norm = find.vector(name + ".post_attention_layernorm.weight", c.hidden_size);
  layer.moe = c.is_moe_layer(index);
  if (layer.moe) {
    find_moe(find, name + ".mlp", c, layer);
  } else {
    layer.dense = find.mlp(name + ".mlp", c.hidden_size, c.intermediate_size);
  }
  return layer;
}

// The published checkpoint repeats embedding and head in the MTP layer; one without them shares.
MtpWeights find_mtp(Finder& find, const ModelConfig& c, uint32_t index, const ModelWeights& main) {
  const std::string name = fmt::format("model.layers.{}", index);
  MtpWeights mtp;
  mtp.embedding = main.embedding;
  mtp.head = main.head;
  if (find.has(name + ".embed_tokens.weight")) {
    mtp.embedding =
        find.tensor(name + ".embed_tokens.weight", {c.vocab_size, c.hidden_size}, {DType::kBf16});
  }
  mtp.embedding_norm = find.vector(name + ".enorm.weight", c.hidden_size);
  mtp.hidden_norm = find.vector(name + ".hnorm.weight", c.hidden_size);
  mtp.projection = find.linear(name + ".eh_proj", c.hidden_size, 2 * c.hidden_size);
  mtp.norm = find.vector(name + ".shared_head.norm.weight", c.hidden_size);
  if (find.has(name + ".shared_head.head.weight")) {
    mtp.head = find.linear(name + ".shared_head.head", c.vocab_size, c.hidden_size);
  }
  return mtp;
}

}  // namespace

Result<ModelWeights> find_weights(const Checkpoint& checkpoint, const ModelConfig& c) {
  Finder find(checkpoint);
  ModelWeights weights;
  const Shape table = {c.vocab_size, c.hidden_size};
  weights.embedding = find.tensor("model.embed_tokens.weight", table, {DType::kBf16});
  weights.norm = find.vector("model.norm.weight", c.hidden_size);
  weights.head = c.tie_word_embeddings
                     ? Linear{.weight = weights.embedding, .n = c.vocab_size, .k = c.hidden_size}
                     : find.linear("lm_head", c.vocab_size, c.hidden_size);
  for (uint32_t i = 0; i < c.num_hidden_layers + c.num_nextn_predict_layers; ++i) {
    weights.layers.push_back(find_layer(find, c, i));
    if (i >= c.num_hidden_layers) weights.mtp.push_back(find_mtp(find, c, i, weights));
    HADAL_TRY(find.status());
  }
  return weights;
}

}  // namespace hadal::model::reference
