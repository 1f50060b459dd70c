// What is behind hadal::model::Model and Pass. Private.
#pragma once

#include "hadal/model/model.h"
#include "hadal/model/pass.h"
#include "mla_block.h"
#include "moe_block.h"
#include "ops.h"
#include "workspace.h"

namespace hadal::model {

struct Model::Impl {
  ModelConfig config;
  ModelOptions options;
  Weights weights;
  Buffer rope_table;
  Ops ops;

  Impl(Device& device, ModelConfig c, ModelOptions o, Weights w, Buffer rope)
      : config(std::move(c)),
        options(o),
        weights(std::move(w)),
        rope_table(std::move(rope)),
        ops(device, config) {}
};

struct Pass::Impl {
  const ModelConfig& config;
  const Weights& weights;
  const Ops& ops;
  PassShape shape;
  Workspace work;
  Buffer logits;
  MlaBlock attention;
  MoeBlock feed_forward;

  Impl(const Model::Impl& model, const PassShape& s, Workspace workspace, Buffer logit_rows)
      : config(model.config),
        weights(model.weights),
        ops(model.ops),
        shape(s),
        work(std::move(workspace)),
        logits(std::move(logit_rows)),
        attention{ops, config, model.options, work, model.rope_table.address()},
        feed_forward{ops, config, work} {}

  [[nodiscard]] Status check_tokens(uint32_t tokens, uint32_t most) const;
  [[nodiscard]] Status embed(Recorder& recorder, DeviceAddress table, DeviceAddress ids,
                             uint32_t tokens, const Rows& y) const;
  [[nodiscard]] Status head(Recorder& recorder, const LinearWeight& w, uint32_t first,
                            uint32_t rows) const;
  // Of these hidden rows.
  [[nodiscard]] Status head(Recorder& recorder, const LinearWeight& w,
                            std::span<const uint32_t> rows) const;
  // In mtp.cpp, for its callers there.
  template <class Batch>
  [[nodiscard]] Status mtp(Recorder& recorder, uint32_t index, const Batch& batch,
                           const CacheView& cache, DeviceAddress previous_hidden) const;
  template <class Batch>
  [[nodiscard]] Status attend(Recorder& recorder, const LayerWeights& layer, uint32_t cache_layer,
                              const Batch& batch, const CacheView& cache) const {
    const DeviceAddress base = cache.base + cache_layer * cache.layer_stride_bytes;
    return attention.record(recorder, layer, batch, cache, base);
  }
  template <class Batch>
  [[nodiscard]] Status layer(Recorder& recorder, const LayerWeights& layer, uint32_t cache_layer,
                             const Batch& batch, const CacheView& cache) const {
    HADAL_TRY(attend(recorder, layer, cache_layer, batch, cache));
    return feed_forward.record(recorder, layer, batch.tokens);
  }
};

}  // namespace hadal::model
