// What a config may hold (config.cpp) is wider than what the kernels run. Every kernel is asked
// here with the shapes of the largest batch, so that its own rules, told once, refuse a model
// before it is loaded.
#include <fmt/format.h>

#include <algorithm>

#include "hadal/bf16_gemm.h"
#include "hadal/bf16_grouped_gemm.h"
#include "hadal/embedding.h"
#include "hadal/fp8_gemm.h"
#include "hadal/fp8_grouped_gemm.h"
#include "hadal/fp8_quantize.h"
#include "hadal/mla_absorb.h"
#include "hadal/mla_cache_read.h"
#include "hadal/mla_cache_write.h"
#include "hadal/mla_decode.h"
#include "hadal/mla_prefill.h"
#include "hadal/model/model.h"
#include "hadal/moe_gate.h"
#include "hadal/moe_permute.h"
#include "hadal/rms_norm.h"
#include "hadal/rope.h"
#include "hadal/sample.h"
#include "hadal/swiglu.h"
#include "workspace.h"

namespace hadal::model {
namespace {

// Says which fields of config.json (or which option) a kernel's refusal comes from.
Status from(const char* fields, const Status& refusal) {
  if (refusal.ok()) return {};
  return {Errc::kUnsupported,
          fmt::format("config.json: {} must suit the kernels; {}", fields, refusal.message())};
}

// A linear of any type over up to `m` rows. Its columns must also fit the workgroup count of the
// choice made for every smaller number of rows.
Status check_linear(uint32_t m, uint32_t n, uint32_t k, const Caps& caps) {
  const uint64_t limit = caps.max_workgroup_count[0];
  const auto fits = [&](const char* name, uint64_t group_columns) -> Status {
    const uint64_t most = group_columns * limit;
    if (n <= most) return {};
    return {Errc::kInvalidArgument, fmt::format("{}: n must be at most {}, got {}", name, most, n)};
  };
  for (const uint32_t rows : {1u, 4u, 8u, m}) {
    const Fp8GemmShape fp8 = Fp8GemmShape::packed(rows, n, k);
    const Bf16GemmShape bf16 = Bf16GemmShape::packed(rows, n, k);
    HADAL_TRY(fp8_gemm_check(fp8, caps));
    HADAL_TRY(bf16_gemm_check(bf16, caps));
    HADAL_TRY(fits("fp8_gemm", fp8_gemm_choose(fp8, caps).group_columns()));
    const Bf16GemmConfig config = bf16_gemm_choose(bf16, caps);
    HADAL_TRY(fits("bf16_gemm", uint64_t{config.tile_n} * config.workgroup_size));
  }
  return {};
}

Status check_attention(const ModelConfig& c, const ModelOptions& o, const Caps& caps) {
  const uint32_t heads = c.num_attention_heads, nope = c.qk_nope_head_dim, v = c.v_head_dim;
  const uint32_t rank = c.kv_lora_rank, rope = c.qk_rope_head_dim, t = o.max_tokens;
  const uint32_t rows = round_up(o.max_context, 64);
  constexpr const char* kLatent = "kv_lora_rank and qk_rope_head_dim (or the context)";
  constexpr const char* kHeads =
      "num_attention_heads, qk_nope_head_dim, qk_rope_head_dim and v_head_dim";
  MlaDecodeShape decode = decode_shape(c, o, o.max_decode_rows, o.max_context);
  HADAL_TRY(from(kLatent, mla_decode_check(decode, caps)));
  HADAL_TRY(from(
      kLatent, mla_cache_write_check(MlaCacheWriteShape::packed(t, rank, rope, rows, rows), caps)));
  HADAL_TRY(from(
      kLatent,
      mla_cache_read_check(
          MlaCacheReadShape::packed(0, std::min(o.expansion_rows, rows), rank, rope, rows), caps)));
  HADAL_TRY(
      from(kHeads, mla_prefill_check(MlaPrefillShape::packed(0, t, heads, nope, rope, v), caps)));
  for (const auto direction : {MlaAbsorbDirection::kQuery, MlaAbsorbDirection::kValue}) {
    for (const auto type : {MlaAbsorbWeight::kE4m3, MlaAbsorbWeight::kBf16}) {
      HADAL_TRY(from(kHeads, mla_absorb_check(MlaAbsorbShape::packed(o.max_decode_rows, heads, nope,
                                                                     v, rank, direction, type),
                                              caps)));
    }
  }
  RopeShape query = RopeShape::packed(t, heads, rope, rows);
  query.offset = nope, query.head_stride = c.qk_head_dim();
  query.row_stride = heads * c.qk_head_dim();
  HADAL_TRY(from(kHeads, rope_check(query, caps)));
  HADAL_TRY(from(kHeads, fp8_quantize_check(Fp8QuantizeShape::packed(t, heads * v), caps)));
  HADAL_TRY(from(kHeads, check_linear(t, heads * c.qk_head_dim(),
                                      c.q_lora_rank ? c.q_lora_rank : c.hidden_size, caps)));
  HADAL_TRY(
      from(kHeads, check_linear(std::max(t, o.expansion_rows), heads * (nope + v), rank, caps)));
  return from(kHeads, check_linear(t, c.hidden_size, heads * v, caps));
}

Status check_experts(const ModelConfig& c, const ModelOptions& o, const Caps& caps) {
  if (c.n_routed_experts == 0) return {};
  const uint32_t experts = c.n_routed_experts, top_k = c.num_experts_per_tok, t = o.max_tokens;
  const uint32_t width = c.moe_intermediate_size, shared = c.shared_intermediate_size();
  constexpr const char* kRouting = "n_routed_experts, num_experts_per_tok and n_group";
  MoeGateShape gate = MoeGateShape::packed(t, experts, top_k);
  gate.n_group = c.n_group, gate.topk_group = c.topk_group;
  gate.method = c.topk_method == TopkMethod::kNoauxTc              ? GateMethod::kNoauxTc
                : c.topk_method == TopkMethod::kGroupLimitedGreedy ? GateMethod::kGroupLimitedGreedy
                                                                   : GateMethod::kGreedy;
  HADAL_TRY(from(kRouting, moe_gate_check(gate, caps)));
  constexpr const char* kBatch = "num_experts_per_tok (or tokens per step)";
  HADAL_TRY(
      from(kBatch, moe_combine_check(MoeCombineShape::packed(t, c.hidden_size, top_k), caps)));
  // The grouped GEMMs choose the same tile for all projections; every smaller batch makes fewer
  // tiles.
  for (const uint32_t tokens : {1u, t}) {
    const uint32_t rows = tokens * top_k;
    for (const auto& [n, k] : {std::pair(width, c.hidden_size), std::pair(c.hidden_size, width)}) {
      const auto fp8 = Fp8GroupedGemmShape::packed(rows, experts, n, k);
      const auto bf16 = Bf16GroupedGemmShape::packed(rows, experts, n, k);
      const auto fp8_config = fp8_grouped_gemm_choose(fp8, caps);
      const auto bf16_config = bf16_grouped_gemm_choose(bf16, caps);
      MoePermuteShape permute = MoePermuteShape::packed(tokens, experts, top_k, fp8_config.tile_m);
      permute.command_count = 1;
      permute.groups_x[0] = std::max(fp8_config.column_groups(n), bf16_config.column_groups(n));
      HADAL_TRY(from(kBatch, moe_permute_check(permute, caps)));
      HADAL_TRY(from("moe_intermediate_size", fp8_grouped_gemm_check(fp8, caps)));
      HADAL_TRY(from("moe_intermediate_size", bf16_grouped_gemm_check(bf16, caps)));
    }
    HADAL_TRY(from("moe_intermediate_size (or tokens per step)",
                   swiglu_check(SwigluShape::packed(rows, width), caps)));
  }
  constexpr const char* kShared = "n_shared_experts x moe_intermediate_size";
  HADAL_TRY(from(kShared, swiglu_check(SwigluShape::packed(t, shared), caps)));
  HADAL_TRY(from(kShared, check_linear(t, shared, c.hidden_size, caps)));
  return from(kShared, check_linear(t, c.hidden_size, shared, caps));
}

}  // namespace

Status check_supported(const ModelConfig& c, const ModelOptions& o, const Caps& caps) {
  const uint32_t t = o.max_tokens;
  RmsNormShape norm = RmsNormShape::packed(t, c.hidden_size);
  norm.eps = float(c.rms_norm_eps);
  HADAL_TRY(from("rms_norm_eps and hidden_size", rms_norm_check(norm, caps)));
  HADAL_TRY(from("hidden_size",
                 embedding_check(EmbeddingShape::packed(t, c.hidden_size, c.vocab_size), caps)));
  HADAL_TRY(from("vocab_size", sample_check(SampleShape::packed(1, c.vocab_size), caps)));
  HADAL_TRY(from("vocab_size", check_linear(o.max_logit_rows, c.vocab_size, c.hidden_size, caps)));
  HADAL_TRY(
      from("intermediate_size", swiglu_check(SwigluShape::packed(t, c.intermediate_size), caps)));
  HADAL_TRY(from("intermediate_size", check_linear(t, c.intermediate_size, c.hidden_size, caps)));
  HADAL_TRY(from("q_lora_rank", rms_norm_check(RmsNormShape::packed(t, c.q_lora_rank), caps)));
  HADAL_TRY(check_attention(c, o, caps));
  return check_experts(c, o, caps);
}

Status check_supported(const ModelConfig& config) {
  Caps caps = minimum_caps(32);
  caps.max_workgroup_count.fill(UINT32_MAX);  // what is left are limits that no device lifts
  ModelOptions options;
  options.max_tokens = 1;
  options.max_context = config.max_position_embeddings;
  return check_supported(config, options, caps);
}

}  // namespace hadal::model
