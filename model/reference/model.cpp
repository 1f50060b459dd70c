#include "hadal/model/reference/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "layer.h"
#include "ops.h"
#include "weights.h"

namespace hadal::model::reference {
namespace {

Status refuse(std::string_view what, std::string_view rule, uint64_t got, uint64_t limit) {
  return {Errc::kInvalidArgument,
          fmt::format("model reference: {} must {} {}, got {}", what, rule, limit, got)};
}

Status check_ids(std::span<const uint32_t> ids, uint32_t vocab) {
  for (const uint32_t id : ids) {
    if (id >= vocab) return refuse("a token id", "be less than", id, vocab);
  }
  return {};
}

Status check_columns(std::string_view what, const Matrix& x, uint32_t columns) {
  if (x.columns != columns) {
    return refuse(fmt::format("columns of {}", what), "be", x.columns, columns);
  }
  if (x.data.size() != size_t{x.rows} * x.columns) {
    return refuse(fmt::format("data of {}", what), "hold", x.data.size(),
                  size_t{x.rows} * x.columns);
  }
  return {};
}

}  // namespace

struct ReferenceModel::Impl {
  std::shared_ptr<const Checkpoint> checkpoint;  // keeps the bytes of the weights alive
  ModelConfig config;
  ModelWeights weights;

  [[nodiscard]] Status check_layer(uint32_t layer) const {
    if (layer < weights.layers.size()) return {};
    return refuse("layer", "be less than", layer, weights.layers.size());
  }
  [[nodiscard]] Status check_mtp() const {
    if (!weights.mtp.empty()) return {};
    return {Errc::kInvalidArgument, "model reference: the model must have an MTP layer, got none"};
  }
};

Result<ReferenceModel> ReferenceModel::create(std::shared_ptr<const Checkpoint> checkpoint,
                                              const ModelConfig& config) {
  if (checkpoint == nullptr) {
    return {Errc::kInvalidArgument, "model reference: checkpoint must be given, got nullptr"};
  }
  HADAL_ASSIGN(ModelWeights weights, find_weights(*checkpoint, config));
  auto impl = std::make_shared<Impl>(std::move(checkpoint), config, std::move(weights));
  return ReferenceModel(std::move(impl));
}

Result<Matrix> ReferenceModel::embed(std::span<const uint32_t> ids) const {
  HADAL_TRY(check_ids(ids, config().vocab_size));
  return embedding(ids, *impl_->weights.embedding);
}

Result<AttentionTrace> ReferenceModel::attention_block(uint32_t layer, const Matrix& x,
                                                       const ReferenceOptions& options,
                                                       uint32_t first_position,
                                                       const Matrix& past) const {
  HADAL_TRY(impl_->check_layer(layer));
  HADAL_TRY(check_columns("x", x, config().hidden_size));
  if (past.rows > 0) HADAL_TRY(check_columns("past", past, config().cache_row_elems()));
  return run_attention(impl_->weights.layers[layer], config(), x, options, first_position, past);
}

Result<MlpTrace> ReferenceModel::mlp_block(uint32_t layer, const Matrix& x,
                                           const ReferenceOptions& options) const {
  HADAL_TRY(impl_->check_layer(layer));
  HADAL_TRY(check_columns("x", x, config().hidden_size));
  return run_mlp(impl_->weights.layers[layer], config(), x, options);
}

Result<Matrix> ReferenceModel::decoder_layer(uint32_t layer, const Matrix& x,
                                             const ReferenceOptions& options) const {
  HADAL_ASSIGN(AttentionTrace attention, attention_block(layer, x, options));
  HADAL_ASSIGN(MlpTrace mlp, mlp_block(layer, attention.result, options));
  return std::move(mlp.result);
}

Result<Matrix> ReferenceModel::final_norm(const Matrix& x) const {
  HADAL_TRY(check_columns("x", x, config().hidden_size));
  return rms_norm(x, *impl_->weights.norm, config().rms_norm_eps);
}

Result<Matrix> ReferenceModel::logits(const Matrix& hidden) const {
  HADAL_TRY(check_columns("hidden", hidden, config().hidden_size));
  return linear(hidden, impl_->weights.head, config());
}

Result<ForwardResult> ReferenceModel::forward(std::span<const uint32_t> ids,
                                              const ReferenceOptions& options) const {
  HADAL_ASSIGN(Matrix x, embed(ids));
  for (uint32_t layer = 0; layer < config().num_hidden_layers; ++layer) {
    HADAL_ASSIGN(x, decoder_layer(layer, x, options));
  }
  ForwardResult result;
  HADAL_ASSIGN(result.hidden, final_norm(x));
  HADAL_ASSIGN(result.logits, logits(result.hidden));
  return result;
}

Result<Matrix> ReferenceModel::mtp_input(std::span<const uint32_t> next_ids,
                                         const Matrix& hidden) const {
  HADAL_TRY(impl_->check_mtp());
  HADAL_TRY(check_ids(next_ids, config().vocab_size));
  HADAL_TRY(check_columns("hidden", hidden, config().hidden_size));
  if (next_ids.size() != hidden.rows) {
    return refuse("rows of hidden", "be as many as ids,", hidden.rows, next_ids.size());
  }
  const MtpWeights& mtp = impl_->weights.mtp.front();
  const double eps = config().rms_norm_eps;
  const Matrix e = rms_norm(embedding(next_ids, *mtp.embedding), *mtp.embedding_norm, eps);
  const Matrix h = rms_norm(hidden, *mtp.hidden_norm, eps);
  Matrix both(hidden.rows, 2 * config().hidden_size);
  for (uint32_t i = 0; i < both.rows; ++i) {
    std::ranges::copy(e.row(i), both.row(i).begin());
    std::ranges::copy(h.row(i), both.row(i).begin() + config().hidden_size);
  }
  return linear(both, mtp.projection, config());
}

Result<Matrix> ReferenceModel::mtp_norm(const Matrix& x) const {
  HADAL_TRY(impl_->check_mtp());
  HADAL_TRY(check_columns("x", x, config().hidden_size));
  return rms_norm(x, *impl_->weights.mtp.front().norm, config().rms_norm_eps);
}

Result<Matrix> ReferenceModel::mtp_head(const Matrix& normed) const {
  HADAL_TRY(impl_->check_mtp());
  HADAL_TRY(check_columns("normed", normed, config().hidden_size));
  return linear(normed, impl_->weights.mtp.front().head, config());
}

Result<Matrix> ReferenceModel::mtp_logits(std::span<const uint32_t> ids, const Matrix& hidden,
                                          const ReferenceOptions& options) const {
  HADAL_TRY(impl_->check_mtp());
  HADAL_TRY(check_columns("hidden", hidden, config().hidden_size));
  if (ids.size() != hidden.rows || ids.empty()) {
    return refuse("rows of hidden", "be as many as ids (at least 1),", hidden.rows, ids.size());
  }
  Matrix previous = hidden;
  previous.rows -= 1;
  previous.data.resize(size_t{previous.rows} * previous.columns);
  HADAL_ASSIGN(Matrix x, mtp_input(ids.subspan(1), previous));
  HADAL_ASSIGN(x, decoder_layer(config().num_hidden_layers, x, options));
  HADAL_ASSIGN(x, mtp_norm(x));
  return mtp_head(x);
}

const ModelConfig& ReferenceModel::config() const {
  return impl_->config;
}

}  // namespace hadal::model::reference
