// The two halves of a decoder layer.
#pragma once

#include "hadal/model/config.h"
#include "hadal/model/reference/model.h"
#include "weights.h"

namespace hadal::model::reference {

// Shapes are the caller's to check.
[[nodiscard]] AttentionTrace run_attention(const LayerWeights& layer, const ModelConfig& config,
                                           const Matrix& x, const ReferenceOptions& options,
                                           uint32_t first_position, const Matrix& past);
[[nodiscard]] MlpTrace run_mlp(const LayerWeights& layer, const ModelConfig& config,
                               const Matrix& x, const ReferenceOptions& options);

}  // namespace hadal::model::reference
