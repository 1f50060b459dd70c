#include "hadal/model/model.h"

#include <fmt/format.h>

#include <algorithm>

#include "hadal/rope.h"
#include "model_impl.h"

namespace hadal::model {
namespace {

// In pieces: a table of a long context is large, and the host's copy comes on top of the plan.
Status upload_rope_table(Device& device, const ModelConfig& config, uint32_t positions,
                         const Buffer& table) {
  const std::vector<double> frequencies = config.rope_inverse_frequencies();
  constexpr uint32_t kPiece = 4096;
  for (uint32_t first = 0; first < positions; first += kPiece) {
    const std::vector<float> piece = rope_table(frequencies, config.rope_amplitude(), first,
                                                std::min(kPiece, positions - first));
    HADAL_TRY(device.upload(table, 4ull * first * config.qk_rope_head_dim,
                            std::as_bytes(std::span(piece))));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Model>> Model::create(Device& device, ModelConfig config, Weights weights,
                                             const ModelOptions& options) {
  if (options.max_tokens == 0 || options.max_context == 0 || options.max_logit_rows == 0 ||
      options.max_decode_rows == 0 || options.max_decode_rows > options.max_tokens) {
    return Status(Errc::kInvalidArgument,
                  "model: max_tokens, max_context, max_logit_rows and max_decode_rows must be at "
                  "least 1, and max_decode_rows at most max_tokens");
  }
  if (options.expansion_rows == 0 || options.expansion_rows % 64) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("model: expansion_rows must be a positive multiple of 64, got {}",
                              options.expansion_rows));
  }
  HADAL_TRY(check_supported(config, options, device.caps()));
  HADAL_ASSIGN(Buffer rope, device.allocate(4ull * options.max_context * config.qk_rope_head_dim));
  HADAL_TRY(upload_rope_table(device, config, options.max_context, rope));
  auto impl = std::make_unique<Impl>(device, std::move(config), options, std::move(weights),
                                     std::move(rope));
  return std::unique_ptr<Model>(new Model(std::move(impl)));
}

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Model::~Model() = default;

const ModelConfig& Model::config() const {
  return impl_->config;
}
const Weights& Model::weights() const {
  return impl_->weights;
}
const ModelOptions& Model::options() const {
  return impl_->options;
}
}  // namespace hadal::model
