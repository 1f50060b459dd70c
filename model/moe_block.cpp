#include "moe_block.h"

#include <algorithm>

#include "hadal/bf16_grouped_gemm.h"
#include "hadal/fp8_grouped_gemm.h"
#include "hadal/moe_gate.h"
#include "hadal/moe_permute.h"

namespace hadal::model {
namespace {

// Both grouped GEMMs of a layer walk one tile list, cut for the shorter of their tiles.
Fp8GroupedGemmShape fp8_shape(const ExpertWeights& w, uint32_t rows, uint32_t experts) {
  Fp8GroupedGemmShape shape = Fp8GroupedGemmShape::packed(rows, experts, w.n, w.k);
  shape.b_stride = w.b_stride, shape.b_scale_stride = w.b_scale_stride;
  return shape;
}

Bf16GroupedGemmShape bf16_shape(const ExpertWeights& w, uint32_t rows, uint32_t experts) {
  Bf16GroupedGemmShape shape = Bf16GroupedGemmShape::packed(rows, experts, w.n, w.k);
  shape.b_stride = w.b_stride;
  return shape;
}

struct TilePlan {
  uint32_t tile_m = 0, column_groups = 0;
};

TilePlan tile_plan(const ExpertWeights& w, uint32_t rows, uint32_t experts, const Caps& caps) {
  if (w.is_fp8) {
    const auto config = fp8_grouped_gemm_choose(fp8_shape(w, rows, experts), caps);
    return {config.tile_m, config.column_groups(w.n)};
  }
  const auto config = bf16_grouped_gemm_choose(bf16_shape(w, rows, experts), caps);
  return {config.tile_m, config.column_groups(w.n)};
}

}  // namespace

Status MoeBlock::record(Recorder& recorder, const LayerWeights& layer, uint32_t tokens) const {
  Forms forms;
  if (layer.dense) {
    forms = Forms::of(layer.dense->gate.is_fp8()) | Forms::of(layer.dense->up.is_fp8());
  } else {
    forms = Forms{/*f32=*/true, layer.moe->gate.is_fp8 || layer.moe->up.is_fp8};  // router: float
    if (layer.moe->shared) forms = forms | Forms::of(layer.moe->shared->gate.is_fp8());
  }
  HADAL_TRY(ops.norm(recorder, work.x, layer.post_attention_norm, config.rms_norm_eps, tokens,
                     config.hidden_size, work.normed, forms));
  recorder.barrier();
  return layer.dense ? record_dense(recorder, *layer.dense, tokens)
                     : record_moe(recorder, *layer.moe, tokens);
}

Status MoeBlock::record_dense(Recorder& recorder, const MlpWeights& w, uint32_t tokens) const {
  const uint32_t width = w.gate.n;
  const Rows gate{work.gate.address, round_up(width, 16)}, up{work.up.address, round_up(width, 16)};
  const Activation act{{work.swiglu.f32.address, round_up(width, 16)},
                       {work.swiglu.q.address, round_up(width, 16)},
                       {work.swiglu.scale.address, ceil_div(width, kFp8BlockElems)}};
  HADAL_TRY(ops.linear(recorder, w.gate, work.normed, tokens, gate));
  HADAL_TRY(ops.linear(recorder, w.up, work.normed, tokens, up));
  recorder.barrier();
  HADAL_TRY(ops.swiglu(recorder, gate, up, tokens, width, act, Forms::of(w.down.is_fp8())));
  recorder.barrier();
  HADAL_TRY(ops.linear(recorder, w.down, act, tokens, work.x, /*accumulate=*/true));
  recorder.barrier();
  return {};
}

Status MoeBlock::route(Recorder& recorder, const MoeWeights& w, uint32_t tokens) const {
  MoeGateShape gate;
  gate.tokens = tokens, gate.experts = config.n_routed_experts;
  gate.top_k = config.num_experts_per_tok;
  gate.n_group = config.n_group, gate.topk_group = config.topk_group;
  gate.scoring =
      config.scoring_func == GateScore::kSigmoid ? GateScoring::kSigmoid : GateScoring::kSoftmax;
  gate.method = config.topk_method == TopkMethod::kNoauxTc ? GateMethod::kNoauxTc
                : config.topk_method == TopkMethod::kGroupLimitedGreedy
                    ? GateMethod::kGroupLimitedGreedy
                    : GateMethod::kGreedy;
  gate.norm = config.norm_topk_prob;
  gate.scaling = float(config.routed_scaling_factor);
  gate.logits_stride = work.router_logits.stride;
  HADAL_TRY(ops.record<MoeGate>(
      recorder, moe_gate_choose, gate,
      MoeGateArgs{work.router_logits.address, w.bias, work.expert_ids, work.expert_weights}));
  recorder.barrier();

  const uint32_t rows = tokens * gate.top_k;
  const Caps& caps = ops.device().caps();
  const TilePlan up = tile_plan(w.gate, rows, gate.experts, caps);
  const TilePlan down = tile_plan(w.down, rows, gate.experts, caps);
  MoePermuteShape permute;
  permute.tokens = tokens, permute.experts = gate.experts, permute.top_k = gate.top_k;
  permute.tile_m = std::min(up.tile_m, down.tile_m);  // a shorter tile suits both
  permute.command_count = 2;
  permute.groups_x = {up.column_groups, down.column_groups, 0, 0};
  MoePermuteArgs args;
  args.indices = work.expert_ids;
  args.row_token = work.row_token, args.row_of = work.row_of;
  args.segment_ends = work.segment_ends, args.tiles = work.tiles;
  args.commands = work.buffer.address() + work.commands_offset;
  HADAL_TRY(ops.record<MoePermute>(recorder, moe_permute_choose, permute, args));
  return {};
}

Status MoeBlock::grouped(Recorder& recorder, const ExpertWeights& w, const Activation& act,
                         DeviceAddress a_rows, uint32_t tokens, const Rows& d,
                         uint32_t command) const {
  const uint32_t rows = tokens * config.num_experts_per_tok, experts = config.n_routed_experts;
  const uint64_t indirect_offset = work.commands_offset + 12ull * command;
  if (w.is_fp8) {
    Fp8GroupedGemmShape shape = fp8_shape(w, rows, experts);
    shape.tokens = a_rows ? tokens : rows;
    shape.a_stride = act.q.stride, shape.a_scale_stride = act.scale.stride;
    shape.d_stride = d.stride;
    return ops.record<Fp8GroupedGemm>(
        recorder, [](const auto& s, const Caps& caps) { return fp8_grouped_gemm_choose(s, caps); },
        shape,
        Fp8GroupedGemmArgs{act.q.address, act.scale.address, a_rows, w.table, work.tiles,
                           &work.buffer, indirect_offset, d.address});
  }
  Bf16GroupedGemmShape shape = bf16_shape(w, rows, experts);
  shape.tokens = a_rows ? tokens : rows;
  shape.a_stride = act.f32.stride;
  shape.d_stride = d.stride;
  return ops.record<Bf16GroupedGemm>(
      recorder, bf16_grouped_gemm_choose, shape,
      Bf16GroupedGemmArgs{act.f32.address, a_rows, w.table, work.tiles, &work.buffer,
                          indirect_offset, d.address});
}

Status MoeBlock::record_moe(Recorder& recorder, const MoeWeights& w, uint32_t tokens) const {
  const uint32_t width = config.moe_intermediate_size;
  const uint32_t rows = tokens * config.num_experts_per_tok;
  const uint32_t shared_width = config.shared_intermediate_size();
  // Independent work stands between the same barriers: routing beside the shared experts.
  HADAL_TRY(ops.linear(recorder, w.router, work.normed, tokens, work.router_logits));
  if (w.shared) {
    HADAL_TRY(ops.linear(recorder, w.shared->gate, work.normed, tokens, work.shared_gate));
    HADAL_TRY(ops.linear(recorder, w.shared->up, work.normed, tokens, work.shared_up));
  }
  recorder.barrier();
  if (w.shared) {
    HADAL_TRY(ops.swiglu(recorder, work.shared_gate, work.shared_up, tokens, shared_width,
                         work.shared_swiglu, Forms::of(w.shared->down.is_fp8())));
  }
  HADAL_TRY(route(recorder, w, tokens));
  if (w.shared) {
    HADAL_TRY(ops.linear(recorder, w.shared->down, work.shared_swiglu, tokens, work.shared_out));
  }
  recorder.barrier();

  const Rows gate{work.gate.address, round_up(width, 16)}, up{work.up.address, round_up(width, 16)};
  const Activation act{{work.swiglu.f32.address, round_up(width, 16)},
                       {work.swiglu.q.address, round_up(width, 16)},
                       {work.swiglu.scale.address, ceil_div(width, kFp8BlockElems)}};
  HADAL_TRY(grouped(recorder, w.gate, work.normed, work.row_token, tokens, gate, 0));
  HADAL_TRY(grouped(recorder, w.up, work.normed, work.row_token, tokens, up, 0));
  recorder.barrier();
  HADAL_TRY(ops.swiglu(recorder, gate, up, rows, width, act, Forms::of(w.down.is_fp8)));
  recorder.barrier();
  HADAL_TRY(grouped(recorder, w.down, act, 0, tokens, work.expert_out, 1));
  recorder.barrier();

  MoeCombineShape combine;
  combine.tokens = tokens, combine.hidden = config.hidden_size;
  combine.top_k = config.num_experts_per_tok;
  combine.x_stride = work.x.stride, combine.y_stride = work.expert_out.stride;
  combine.shared_stride = work.shared_out.stride;
  combine.accumulate = true, combine.has_shared = w.shared.has_value();
  MoeCombineArgs args;
  args.x = work.x.address, args.y = work.expert_out.address;
  args.shared = w.shared ? work.shared_out.address : 0;
  args.weights = work.expert_weights, args.row_of = work.row_of;
  HADAL_TRY(ops.record<MoeCombine>(recorder, moe_combine_choose, combine, args));
  recorder.barrier();
  return {};
}

}  // namespace hadal::model
