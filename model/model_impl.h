// What is behind hadal::model::Model. Private.
#pragma once

#include "hadal/model/model.h"
#include "mla_block.h"
#include "moe_block.h"
#include "ops.h"
#include "workspace.h"

namespace hadal::model {

struct Model::Impl {
  ModelConfig config;
  ModelOptions options;
  Weights weights;
  Workspace work;
  Buffer rope_table, logits;
  Ops ops;
  MlaBlock attention;
  MoeBlock feed_forward;

  Impl(Device& device, ModelConfig c, ModelOptions o, Weights w, Workspace workspace, Buffer rope,
       Buffer logit_rows)
      : config(std::move(c)),
        options(o),
        weights(std::move(w)),
        work(std::move(workspace)),
        rope_table(std::move(rope)),
        logits(std::move(logit_rows)),
        ops(device, config),
        attention{ops, config, options, work, rope_table.address()},
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
  [[nodiscard]] Status layer(Recorder& recorder, const LayerWeights& layer, uint32_t cache_layer,
                             const Batch& batch, const CacheView& cache) const {
    const DeviceAddress base = cache.base + cache_layer * cache.layer_stride_bytes;
    HADAL_TRY(attention.record(recorder, layer, batch, cache, base));
    return feed_forward.record(recorder, layer, batch.tokens);
  }
};

}  // namespace hadal::model
