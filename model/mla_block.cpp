#include "mla_block.h"

#include "hadal/mla_absorb.h"
#include "hadal/mla_cache_read.h"
#include "hadal/mla_cache_write.h"
#include "hadal/mla_decode.h"
#include "hadal/mla_prefill.h"
#include "hadal/rope.h"

namespace hadal::model {

Status MlaBlock::write_cache(Recorder& recorder, const AttentionWeights& w, uint32_t tokens,
                             DeviceAddress positions, DeviceAddress slots, const CacheView& cache,
                             DeviceAddress cache_base) const {
  MlaCacheWriteShape shape;
  shape.tokens = tokens, shape.rank = config.kv_lora_rank, shape.rope = config.qk_rope_head_dim;
  shape.y_stride = work.kv_a.stride, shape.row_stride = cache.row_stride;
  shape.cache_rows = cache.pages * 64;
  shape.max_position = options.max_context;
  shape.interleaved = config.rope_interleave;
  shape.eps = float(ModelConfig::kInnerNormEps);
  shape.cache_format = cache.format;
  // An FP8 kv_b_proj takes its input quantised; rounding it here gives both attention forms the
  // same.
  if (w.kv_b.is_fp8() && options.round_latent) {
    shape.rounding = ops.scale_format() == ScaleFormat::kUe8m0 ? LatentRounding::kFp8Ue8m0
                                                               : LatentRounding::kFp8;
  }
  MlaCacheWriteArgs args;
  args.y = work.kv_a.address, args.weight = w.kv_a_norm;
  args.positions = positions, args.table = rope_table, args.slots = slots, args.cache = cache_base;
  return ops.record<MlaCacheWrite>(recorder, mla_cache_write_choose, shape, args);
}

Status MlaBlock::rotate_query(Recorder& recorder, uint32_t tokens, DeviceAddress positions) const {
  RopeShape shape;
  shape.rows = tokens, shape.heads = config.num_attention_heads;
  shape.dim = config.qk_rope_head_dim;
  shape.row_stride = work.q.stride, shape.head_stride = config.qk_head_dim();
  shape.offset = config.qk_nope_head_dim;
  shape.interleaved = config.rope_interleave;
  shape.max_position = options.max_context;
  return ops.record<Rope>(recorder, rope_choose, shape,
                          RopeArgs{work.q.address, positions, rope_table});
}

Status MlaBlock::project(Recorder& recorder, const LayerWeights& layer, uint32_t tokens,
                         DeviceAddress positions, DeviceAddress slots, const CacheView& cache,
                         DeviceAddress cache_base) const {
  const AttentionWeights& w = layer.attention;
  const LinearWeight& first = w.q_a ? *w.q_a : w.q_b;
  HADAL_TRY(ops.norm(recorder, work.x, layer.input_norm, config.rms_norm_eps, tokens,
                     config.hidden_size, work.normed,
                     Forms::of(first.is_fp8()) | Forms::of(w.kv_a.is_fp8())));
  recorder.barrier();
  HADAL_TRY(ops.linear(recorder, w.kv_a, work.normed, tokens, work.kv_a));
  HADAL_TRY(ops.linear(recorder, first, work.normed, tokens, w.q_a ? work.q_a : work.q));
  recorder.barrier();
  HADAL_TRY(write_cache(recorder, w, tokens, positions, slots, cache, cache_base));
  if (w.q_a) {
    HADAL_TRY(ops.norm(recorder, work.q_a, w.q_a_norm, ModelConfig::kInnerNormEps, tokens,
                       config.q_lora_rank, work.q_a_normed, Forms::of(w.q_b.is_fp8())));
    recorder.barrier();
    HADAL_TRY(ops.linear(recorder, w.q_b, work.q_a_normed, tokens, work.q));
    recorder.barrier();
  }
  HADAL_TRY(rotate_query(recorder, tokens, positions));
  recorder.barrier();
  return {};
}

Status MlaBlock::read_latents(Recorder& recorder, const AttentionWeights& w,
                              const PrefillBatch& batch, const PrefillExpansion::Window& window,
                              const CacheView& cache, DeviceAddress cache_base) const {
  MlaCacheReadShape read;
  read.rank = config.kv_lora_rank, read.rope = config.qk_rope_head_dim;
  read.row_stride = cache.row_stride, read.cache_format = cache.format;
  read.cache_rows = cache.pages * 64;
  read.latent_stride = work.latent.f32.stride, read.k_pe_stride = work.k_pe.stride;
  read.q_stride = work.latent.q.stride, read.scale_stride = work.latent.scale.stride;
  read.scale_format = ops.scale_format();
  for (uint32_t i = window.first; i < window.first + window.pieces; ++i) {
    const MlaPrefillSequence& piece = batch.expansion.pieces[i];
    const PrefillSequence& sequence = batch.sequences[batch.expansion.sequences[i]];
    const uint64_t row = piece.kv_row;
    read.rows = piece.kv_rows, read.begin = piece.kv_begin;
    read.table_pages = sequence.table_entries;
    MlaCacheReadArgs args;
    args.cache = cache_base, args.block_table = batch.block_tables + 4ull * sequence.table_begin;
    args.k_pe = work.k_pe.address + 4 * row * work.k_pe.stride;
    if (w.kv_b.is_fp8()) {
      args.q = work.latent.q.address + row * work.latent.q.stride;
      args.scale = work.latent.scale.address + 4 * row * work.latent.scale.stride;
    } else {
      args.latent = work.latent.f32.address + 4 * row * work.latent.f32.stride;
    }
    HADAL_TRY(ops.record<MlaCacheRead>(recorder, mla_cache_read_choose, read, args));
  }
  recorder.barrier();
  return {};
}

Status MlaBlock::attend_window(Recorder& recorder, const PrefillBatch& batch,
                               const PrefillExpansion::Window& window) const {
  MlaPrefillShape shape;
  shape.q_len = batch.tokens, shape.kv_rows = window.kv_rows;
  shape.heads = config.num_attention_heads;
  shape.nope = config.qk_nope_head_dim, shape.rope = config.qk_rope_head_dim;
  shape.v = config.v_head_dim;
  shape.q_row_stride = work.q.stride, shape.q_head_stride = config.qk_head_dim();
  shape.kv_row_stride = work.kv.stride, shape.k_pe_stride = work.k_pe.stride;
  shape.o_row_stride = work.attention.stride, shape.o_head_stride = config.v_head_dim;
  shape.scale = float(config.softmax_scale());
  MlaPrefillArgs args;
  args.q = work.q.address, args.kv = work.kv.address, args.k_pe = work.k_pe.address;
  args.o = work.attention.address, args.state = work.softmax_state.address;
  args.scratch = work.attention_scratch;
  if (batch.sequences.size() == 1) {
    const MlaPrefillSequence& piece = batch.expansion.pieces[window.first];
    shape.q_begin = piece.q_begin, shape.kv_begin = piece.kv_begin;
    shape.first = piece.flags & MlaPrefillSequence::kFirst;
    shape.last = piece.flags & MlaPrefillSequence::kLast;
  } else {
    shape.sequences = window.pieces, shape.max_q_len = window.max_q_len;
    args.sequences = batch.pieces + uint64_t{window.first} * sizeof(MlaPrefillSequence);
  }
  HADAL_TRY(ops.record<MlaPrefill>(
      recorder,
      [&](const auto& s, const Caps& caps) {
        return mla_prefill_choose(s, caps, options.attention);
      },
      shape, args));
  recorder.barrier();
  return {};
}

Status MlaBlock::project_out(Recorder& recorder, const AttentionWeights& w, uint32_t tokens) const {
  if (w.o.is_fp8()) {
    HADAL_TRY(ops.quantize(recorder, work.attention_in, tokens, w.o.k));
    recorder.barrier();
  }
  HADAL_TRY(ops.linear(recorder, w.o, work.attention_in, tokens, work.x, /*accumulate=*/true));
  recorder.barrier();
  return {};
}

Status MlaBlock::record(Recorder& recorder, const LayerWeights& layer, const PrefillBatch& batch,
                        const CacheView& cache, DeviceAddress cache_base) const {
  HADAL_TRY(
      project(recorder, layer, batch.tokens, batch.positions, batch.slots, cache, cache_base));
  for (const PrefillExpansion::Window& window : batch.expansion.windows) {
    HADAL_TRY(read_latents(recorder, layer.attention, batch, window, cache, cache_base));
    HADAL_TRY(ops.linear(recorder, layer.attention.kv_b, work.latent, window.kv_rows, work.kv));
    recorder.barrier();
    HADAL_TRY(attend_window(recorder, batch, window));
  }
  return project_out(recorder, layer.attention, batch.tokens);
}

Status MlaBlock::absorb(Recorder& recorder, const AttentionWeights& w, bool query,
                        uint32_t tokens) const {
  MlaAbsorbShape shape;
  shape.tokens = tokens, shape.heads = config.num_attention_heads;
  shape.nope = config.qk_nope_head_dim, shape.v = config.v_head_dim;
  shape.rank = config.kv_lora_rank;
  shape.direction = query ? MlaAbsorbDirection::kQuery : MlaAbsorbDirection::kValue;
  shape.weight_type = w.absorb.is_fp8() ? MlaAbsorbWeight::kE4m3 : MlaAbsorbWeight::kBf16;
  shape.w_stride = w.absorb.b_stride, shape.w_scale_stride = w.absorb.b_scale_stride;
  const Rows& in = query ? work.q : work.o_latent;
  const Rows& out = query ? work.q_latent : work.attention;
  shape.in_token_stride = in.stride, shape.out_token_stride = out.stride;
  shape.in_head_stride = query ? config.qk_head_dim() : config.kv_lora_rank;
  shape.out_head_stride = query ? config.kv_lora_rank : config.v_head_dim;
  MlaAbsorbArgs args;
  args.in = in.address, args.w = w.absorb.b, args.w_scale = w.absorb.b_scale,
  args.out = out.address;
  HADAL_TRY(ops.record<MlaAbsorb>(recorder, mla_absorb_choose, shape, args));
  recorder.barrier();
  return {};
}

Status MlaBlock::record(Recorder& recorder, const LayerWeights& layer, const DecodeBatch& batch,
                        const CacheView& cache, DeviceAddress cache_base) const {
  HADAL_TRY(
      project(recorder, layer, batch.tokens, batch.positions, batch.slots, cache, cache_base));
  HADAL_TRY(absorb(recorder, layer.attention, /*query=*/true, batch.tokens));
  MlaDecodeShape shape = decode_shape(config, options, batch.tokens, batch.max_kv_len);
  shape.table_stride = batch.table_stride;
  shape.cache_rows = cache.pages * 64;
  shape.row_stride = cache.row_stride, shape.cache_format = cache.format;
  shape.q_latent_row_stride = work.q_latent.stride;
  shape.q_latent_head_stride = config.kv_lora_rank;
  shape.q_pe_row_stride = work.q.stride, shape.q_pe_head_stride = config.qk_head_dim();
  shape.o_row_stride = work.o_latent.stride, shape.o_head_stride = config.kv_lora_rank;
  shape.scale = float(config.softmax_scale());
  MlaDecodeArgs args;
  args.q_latent = work.q_latent.address;
  args.q_pe = work.q.address + 4ull * config.qk_nope_head_dim;
  args.cache = cache_base, args.block_tables = batch.block_tables, args.kv_lens = batch.kv_lens;
  args.o = work.o_latent.address, args.scratch = work.attention_scratch;
  HADAL_TRY(ops.record<MlaDecode>(
      recorder,
      [&](const auto& s, const Caps& caps) {
        return mla_decode_choose(s, caps, options.attention);
      },
      shape, args));
  recorder.barrier();
  HADAL_TRY(absorb(recorder, layer.attention, /*query=*/false, batch.tokens));
  return project_out(recorder, layer.attention, batch.tokens);
}

}  // namespace hadal::model
