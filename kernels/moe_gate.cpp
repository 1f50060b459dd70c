#include "hadal/moe_gate.h"

#include <fmt/format.h>

#include "hadal/device.h"
#include "hadal/recorder.h"
#include "kernel_util.h"
#include "layout/moe_gate.h"
#include "vk/pipeline.h"

namespace hadal {

MoeGateShape MoeGateShape::packed(uint32_t tokens, uint32_t experts, uint32_t top_k) {
  MoeGateShape shape;
  shape.tokens = tokens, shape.experts = experts, shape.top_k = top_k;
  shape.logits_stride = experts;
  return shape;
}

std::string MoeGateConfig::to_string() const {
  if (lanes_top_k) {
    return fmt::format("moe_gate: {} tokens per workgroup{}", workgroup_size,
                       sorted_groups ? ", sorted" : "");
  }
  return fmt::format("moe_gate: one token per workgroup of {}", workgroup_size);
}

Status moe_gate_check(const MoeGateShape& s, const Caps& caps) {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "moe_gate: " + std::move(text));
  };
  if (s.tokens > caps.max_workgroup_count[0]) {
    return error(
        fmt::format("tokens must be at most {}, got {}", caps.max_workgroup_count[0], s.tokens));
  }
  if (s.experts == 0 || s.experts > layout::kMoeGateMaxExperts) {
    return error(
        fmt::format("experts must be in 1..{}, got {}", layout::kMoeGateMaxExperts, s.experts));
  }
  if (s.top_k > layout::kMoeGateMaxTopK) {
    return error(fmt::format("top_k must be at most {}, got {}", layout::kMoeGateMaxTopK, s.top_k));
  }
  if (s.top_k > s.experts) {
    return error(fmt::format("top_k must be at most experts, got {} > {}", s.top_k, s.experts));
  }
  if (s.logits_stride < s.experts) {
    return error(fmt::format("logits_stride must be at least experts, got {} < {}", s.logits_stride,
                             s.experts));
  }
  if (s.method == GateMethod::kGreedy) return {};
  if (s.n_group == 0 || s.n_group > layout::kMoeGateMaxGroups) {
    return error(
        fmt::format("n_group must be in 1..{}, got {}", layout::kMoeGateMaxGroups, s.n_group));
  }
  if (s.experts % s.n_group) {
    return error(
        fmt::format("experts must be a multiple of n_group, got {} % {}", s.experts, s.n_group));
  }
  if (s.topk_group == 0 || s.topk_group > s.n_group) {
    return error(
        fmt::format("topk_group must be in 1..n_group, got {} of {}", s.topk_group, s.n_group));
  }
  const uint32_t candidates = s.topk_group * (s.experts / s.n_group);
  if (s.top_k > candidates) {
    return error(fmt::format("top_k must be at most the {} experts of topk_group groups, got {}",
                             candidates, s.top_k));
  }
  if (s.method == GateMethod::kNoauxTc && s.n_group > 1 && s.experts / s.n_group < 2) {
    return error(fmt::format("a group must have at least 2 experts, got {} of {} groups", s.experts,
                             s.n_group));
  }
  return {};
}

namespace {

// One group is all groups: nothing to leave out.
bool leaves_groups_out(const MoeGateShape& s) {
  return s.method != GateMethod::kGreedy && s.topk_group < s.n_group;
}

// MoeGateConfig::sorted_groups that the shape needs, or 0 where moe_gate_sorted does not fit it.
uint32_t sorted_groups_of(const MoeGateShape& s) {
  const uint32_t kept = leaves_groups_out(s) ? s.topk_group : 1;
  const uint32_t size = leaves_groups_out(s) ? s.experts / s.n_group : s.experts;
  const bool fits = s.scoring == GateScoring::kSigmoid && s.top_k <= layout::kMoeGateSortedTopK &&
                    kept <= layout::kMoeGateSortedKept && size &&
                    size % layout::kMoeGateSortedExperts == 0;
  return fits ? kept : 0;
}

}  // namespace

MoeGateConfig moe_gate_choose(const MoeGateShape& shape, const Caps& caps) {
  MoeGateConfig config;
  config.workgroup_size = column_workgroup_size(caps);
  // Sorting by insertion: moe_gate.md. Decided by what never differs between batches.
  if (caps.scalar_uniforms && shape.top_k <= 16) config.lanes_top_k = shape.top_k;
  if (config.lanes_top_k && row_vectors(caps)) config.sorted_groups = sorted_groups_of(shape);
  return config;
}

MoeGate::MoeGate(const Device& device, const vk::Pipeline* pipeline, MoeGateConfig config)
    : device_(&device), pipeline_(pipeline), config_(config) {}

Result<MoeGate> MoeGate::create(Device& device, const MoeGateConfig& config) {
  if (config.lanes_top_k && config.sorted_groups) {
    HADAL_ASSIGN(const vk::Pipeline* sorted,
                 vk::Pipeline::get(device, "moe_gate_sorted", config.workgroup_size,
                                   {{layout::kMoeGateSpecTopK, config.lanes_top_k},
                                    {layout::kMoeGateSpecKept, config.sorted_groups}},
                                   sizeof(layout::MoeGatePush)));
    return MoeGate(device, sorted, config);
  }
  if (config.lanes_top_k) {
    HADAL_ASSIGN(const vk::Pipeline* lanes,
                 vk::Pipeline::get(device, "moe_gate_lanes", config.workgroup_size,
                                   {{layout::kMoeGateSpecTopK, config.lanes_top_k}},
                                   sizeof(layout::MoeGatePush)));
    return MoeGate(device, lanes, config);
  }
  HADAL_ASSIGN(const vk::Pipeline* pipeline,
               vk::Pipeline::get(device, "moe_gate", config.workgroup_size, {},
                                 sizeof(layout::MoeGatePush)));
  return MoeGate(device, pipeline, config);
}

Status MoeGate::record(Recorder& recorder, const MoeGateShape& shape,
                       const MoeGateArgs& args) const {
  HADAL_TRY(moe_gate_check(shape, device_->caps()));
  if (shape.tokens == 0 || shape.top_k == 0) return {};
  if (config_.lanes_top_k && config_.lanes_top_k != shape.top_k) {
    return {Errc::kInvalidArgument, "moe_gate: top_k must be the configuration's"};
  }
  if (config_.lanes_top_k && config_.sorted_groups &&
      config_.sorted_groups != sorted_groups_of(shape)) {
    return {Errc::kInvalidArgument, "moe_gate: the groups must be the configuration's"};
  }
  const bool has_bias = shape.method == GateMethod::kNoauxTc;

  layout::MoeGatePush push{};
  push.logits = args.logits, push.bias = args.bias;
  push.indices = args.indices, push.weights = args.weights;
  push.experts = shape.experts, push.top_k = shape.top_k;
  push.n_group = shape.n_group, push.topk_group = shape.topk_group;
  push.logits_stride = shape.logits_stride;
  push.scaling = shape.scaling;
  push.tokens = shape.tokens;
  if (shape.scoring == GateScoring::kSoftmax) push.flags |= layout::kMoeGateFlagSoftmax;
  if (has_bias) push.flags |= layout::kMoeGateFlagBias | layout::kMoeGateFlagGroupTop2;
  if (leaves_groups_out(shape)) push.flags |= layout::kMoeGateFlagGroups;
  if (shape.norm) push.flags |= layout::kMoeGateFlagNorm;

  const DeviceRange reads[] = {
      {args.logits, strided_bytes(shape.tokens, shape.experts, shape.logits_stride, 4)},
      {args.bias, has_bias ? uint64_t{shape.experts} * 4 : 0}};
  const uint64_t out_bytes = uint64_t{shape.tokens} * shape.top_k * 4;
  const DeviceRange writes[] = {{args.indices, out_bytes}, {args.weights, out_bytes}};
  Recorder::Dispatch dispatch;
  dispatch.pipeline = pipeline_;
  dispatch.label = "moe_gate";
  dispatch.push = push_bytes(push);
  dispatch.groups = {shape.tokens, 1, 1};
  if (config_.lanes_top_k) dispatch.groups[0] = ceil_div(shape.tokens, config_.workgroup_size);
  dispatch.reads = reads;
  dispatch.writes = writes;
  return recorder.dispatch(dispatch);
}

}  // namespace hadal
