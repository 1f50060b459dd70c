#include "hadal/embedding.h"

#include <fmt/format.h>

#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/embedding.h"
#include "vk/pipeline.h"

namespace hadal {

EmbeddingShape EmbeddingShape::packed(uint32_t tokens, uint32_t hidden, uint32_t vocab) {
  return {tokens, hidden, vocab, hidden, hidden};
}

std::string EmbeddingConfig::to_string() const {
  return fmt::format("embedding: workgroup {}", workgroup_size);
}

Status embedding_check(const EmbeddingShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "embedding: " + std::move(text));
  };
  // At least 4 invocations of 8 channels in a workgroup: inside every device's workgroup count.
  constexpr uint32_t kMaxHidden = 1u << 20;
  if (s.hidden > kMaxHidden) {
    return error(fmt::format("hidden must be at most {}, got {}", kMaxHidden, s.hidden));
  }
  if (s.table_stride < s.hidden) {
    return error(
        fmt::format("table_stride must be at least hidden, got {} < {}", s.table_stride, s.hidden));
  }
  if (s.y_stride < s.hidden) {
    return error(
        fmt::format("y_stride must be at least hidden, got {} < {}", s.y_stride, s.hidden));
  }
  const uint32_t max_tokens = caps.max_workgroup_count[0];
  if (s.tokens > max_tokens) {
    return error(fmt::format("tokens must be at most {}, got {}", max_tokens, s.tokens));
  }
  return {};
}

EmbeddingConfig embedding_choose(const EmbeddingShape&, const Caps& caps) {
  return {column_workgroup_size(caps)};
}

Embedding::Embedding(const Device& device, const vk::Pipeline* pipeline, EmbeddingConfig config)
    : device_(&device), pipeline_(pipeline), config_(config) {}

Result<Embedding> Embedding::create(Device& device, const EmbeddingConfig& config) {
  HADAL_ASSIGN(const vk::Pipeline* pipeline,
               vk::Pipeline::get(device, "embedding", config.workgroup_size, {},
                                 sizeof(layout::EmbeddingPush)));
  return Embedding(device, pipeline, config);
}

Status Embedding::record(Recorder& recorder, const EmbeddingShape& shape,
                         const EmbeddingArgs& args) const {
  HADAL_TRY(embedding_check(shape, device_->caps()));
  if (args.ids % 4 || args.y % 4 || args.table % 2) {
    return {Errc::kInvalidArgument,
            fmt::format("embedding: ids and y must be 4-byte and table 2-byte aligned, got {:#x}, "
                        "{:#x}, {:#x}",
                        args.ids, args.y, args.table)};
  }
  if (shape.tokens == 0 || shape.hidden == 0) return {};

  layout::EmbeddingPush push{};
  push.ids = args.ids, push.table = args.table, push.y = args.y;
  push.hidden = shape.hidden, push.vocab = shape.vocab;
  push.table_stride = shape.table_stride, push.y_stride = shape.y_stride;

  const DeviceRange reads[] = {
      {args.ids, uint64_t{shape.tokens} * 4},
      {args.table, strided_bytes(shape.vocab, shape.hidden, shape.table_stride, 2)}};
  const DeviceRange y{args.y, strided_bytes(shape.tokens, shape.hidden, shape.y_stride, 4)};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "embedding";
  dispatch.push = push_bytes(push);
  dispatch.groups = {
      shape.tokens,
      ceil_div(shape.hidden, config_.workgroup_size * layout::kEmbeddingElemsPerInvocation), 1};
  dispatch.reads = reads;
  dispatch.writes = {&y, 1};
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
