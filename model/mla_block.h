// Multi-head latent attention of one layer: x += o_proj(attention(norm(x))), in its two forms.
// Private.
#pragma once

#include "hadal/model/model.h"
#include "ops.h"

namespace hadal::model {

struct MlaBlock {
  const Ops& ops;
  const ModelConfig& config;
  const ModelOptions& options;
  const Workspace& work;
  DeviceAddress rope_table;  // float [max_context, rope dim], cos and sin of each pair

  // Prefill: writes the batch's cache rows, expands the latents of each sequence's positions [0,
  // begin + tokens) window by window (PrefillExpansion) and folds them left to right.
  [[nodiscard]] Status record(Recorder& recorder, const LayerWeights& layer,
                              const PrefillBatch& batch, const CacheView& cache,
                              DeviceAddress cache_base) const;
  // Decode: one row per sequence against the paged cache, in latent space.
  [[nodiscard]] Status record(Recorder& recorder, const LayerWeights& layer,
                              const DecodeBatch& batch, const CacheView& cache,
                              DeviceAddress cache_base) const;

 private:
  // normed x -> q (rotated) and this batch's cache rows.
  [[nodiscard]] Status project(Recorder& recorder, const LayerWeights& layer, uint32_t tokens,
                               DeviceAddress positions, DeviceAddress slots, const CacheView& cache,
                               DeviceAddress cache_base) const;
  [[nodiscard]] Status write_cache(Recorder& recorder, const AttentionWeights& w, uint32_t tokens,
                                   DeviceAddress positions, DeviceAddress slots,
                                   const CacheView& cache, DeviceAddress cache_base) const;
  [[nodiscard]] Status rotate_query(Recorder& recorder, uint32_t tokens,
                                    DeviceAddress positions) const;
  // A window's latents out of the cache, as kv_b_proj takes them.
  [[nodiscard]] Status read_latents(Recorder& recorder, const AttentionWeights& w,
                                    const PrefillBatch& batch,
                                    const PrefillExpansion::Window& window, const CacheView& cache,
                                    DeviceAddress cache_base) const;
  [[nodiscard]] Status attend_window(Recorder& recorder, const PrefillBatch& batch,
                                     const PrefillExpansion::Window& window) const;
  [[nodiscard]] Status absorb(Recorder& recorder, const AttentionWeights& w, bool query,
                              uint32_t tokens) const;
  // x += o_proj(attention)
  [[nodiscard]] Status project_out(Recorder& recorder, const AttentionWeights& w,
                                   uint32_t tokens) const;
};

}  // namespace hadal::model
