#include "hadal/model/fingerprint.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <string>
#include <vector>

namespace hadal::model {
namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87u, kPrime2 = 0xC2B2AE3D27D4EB4Fu,
                   kPrime3 = 0x165667B19E3779F9u, kPrime4 = 0x85EBCA77C2B2AE63u,
                   kPrime5 = 0x27D4EB2F165667C5u;

// The next `count` bytes as a little-endian number, on any host.
uint64_t little_endian(const std::byte* bytes, size_t count) {
  uint64_t value = 0;
  for (size_t i = 0; i < count; ++i) value |= uint64_t(bytes[i]) << (8 * i);
  return value;
}

uint64_t round(uint64_t sum, uint64_t lane) {
  return std::rotl(sum + lane * kPrime2, 31) * kPrime1;
}

uint64_t mix(uint64_t hash) {
  hash = (hash ^ hash >> 33) * kPrime2;
  hash = (hash ^ hash >> 29) * kPrime3;
  return hash ^ hash >> 32;
}

}  // namespace

uint64_t xxh64(std::span<const std::byte> bytes) {
  const std::byte *at = bytes.data(), *const end = at + bytes.size();
  uint64_t hash = kPrime5;
  if (bytes.size() >= 32) {
    std::array<uint64_t, 4> sums{kPrime1 + kPrime2, kPrime2, 0, 0 - kPrime1};
    for (; end - at >= 32; at += 32) {
      for (size_t i = 0; i < 4; ++i) sums[i] = round(sums[i], little_endian(at + 8 * i, 8));
    }
    hash = std::rotl(sums[0], 1) + std::rotl(sums[1], 7) + std::rotl(sums[2], 12) +
           std::rotl(sums[3], 18);
    for (const uint64_t sum : sums) hash = (hash ^ round(0, sum)) * kPrime1 + kPrime4;
  }
  hash += bytes.size();
  for (; end - at >= 8; at += 8) {
    hash = std::rotl(hash ^ round(0, little_endian(at, 8)), 27) * kPrime1 + kPrime4;
  }
  if (end - at >= 4) {
    hash = std::rotl(hash ^ little_endian(at, 4) * kPrime1, 23) * kPrime2 + kPrime3;
    at += 4;
  }
  for (; at < end; ++at) hash = std::rotl(hash ^ uint64_t(*at) * kPrime5, 11) * kPrime1;
  return mix(hash);
}

uint64_t checkpoint_fingerprint(const Checkpoint& checkpoint, const ModelConfig& c) {
  std::string text = fmt::format(
      "{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {}",
      c.vocab_size, c.hidden_size, c.intermediate_size, c.moe_intermediate_size,
      c.num_hidden_layers, c.first_k_dense_replace, c.moe_layer_freq, c.num_attention_heads,
      c.q_lora_rank, c.kv_lora_rank, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim,
      c.n_routed_experts, c.num_experts_per_tok, c.n_shared_experts, c.n_group, c.topk_group,
      c.norm_topk_prob, c.routed_scaling_factor, int(c.scoring_func), int(c.topk_method),
      c.num_nextn_predict_layers, c.rms_norm_eps, c.rope_theta, c.rope_interleave,
      int(c.weight_format), c.max_position_embeddings);
  if (c.yarn) {
    text += fmt::format(" {} {} {} {} {} {}", c.yarn->factor, c.yarn->beta_fast, c.yarn->beta_slow,
                        c.yarn->mscale, c.yarn->mscale_all_dim,
                        c.yarn->original_max_position_embeddings);
  }
  std::vector<const TensorView*> tensors;
  for (const TensorView& tensor : checkpoint.tensors()) tensors.push_back(&tensor);
  std::sort(tensors.begin(), tensors.end(),
            [](const TensorView* a, const TensorView* b) { return a->name < b->name; });
  for (const TensorView* tensor : tensors) {
    text += fmt::format("\n{} {} {} ", tensor->name, dtype_name(tensor->dtype),
                        fmt::join(tensor->shape, ","));
    const size_t edge = std::min<size_t>(tensor->bytes.size(), 64);
    for (const auto part : {tensor->bytes.first(edge), tensor->bytes.last(edge)}) {
      text.append(reinterpret_cast<const char*>(part.data()), part.size());
    }
  }
  return xxh64(std::as_bytes(std::span(text)));
}

}  // namespace hadal::model
