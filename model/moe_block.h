// The feed-forward half of a layer: x += MLP(norm(x)), dense or mixture of experts. Private.
#pragma once

#include "hadal/model/model.h"
#include "ops.h"

namespace hadal::model {

struct MoeBlock {
  const Ops& ops;
  const ModelConfig& config;
  const Workspace& work;

  [[nodiscard]] Status record(Recorder& recorder, const LayerWeights& layer, uint32_t tokens) const;

 private:
  [[nodiscard]] Status record_dense(Recorder& recorder, const MlpWeights& w, uint32_t tokens) const;
  [[nodiscard]] Status record_moe(Recorder& recorder, const MoeWeights& w, uint32_t tokens) const;
  [[nodiscard]] Status route(Recorder& recorder, const MoeWeights& w, uint32_t tokens) const;
  // d[rows, n] = act W_e^T with e the expert of each row; `command` is the index of the dispatch
  // size.
  [[nodiscard]] Status grouped(Recorder& recorder, const ExpertWeights& w, const Activation& act,
                               DeviceAddress a_rows, uint32_t tokens, const Rows& d,
                               uint32_t command) const;
};

}  // namespace hadal::model
