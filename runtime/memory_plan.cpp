#include "hadal/runtime/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "hadal/runtime/page_pool.h"
#include "hadal/types.h"

namespace hadal::runtime {
namespace {

std::string gib(uint64_t bytes) {
  const double mib = double(bytes) / (1 << 20);
  return mib < 1024 ? fmt::format("{:.1f} MiB", mib) : fmt::format("{:.1f} GiB", mib / 1024);
}

// The largest context of a single sequence; everything grows with it.
uint32_t longest_context(const model::ModelConfig& config, model::ModelOptions options,
                         const MemoryPlan& plan) {
  const auto fits = [&](uint32_t context) {
    model::ModelOptions o = options;
    o.max_context = context;
    o.max_tokens = std::min(o.max_tokens, context);
    o.max_decode_rows = std::min(o.max_decode_rows, o.max_tokens);
    const uint64_t workspace = model::workspace_bytes(config, o);
    const uint64_t cache = ceil_div(context, kPageTokens) * plan.page_bytes;
    return std::max(workspace, cache) <= plan.largest_buffer_bytes &&
           plan.weights_bytes + workspace + cache <= plan.free_bytes;
  };
  uint32_t good = 0, bad = config.max_position_embeddings + 1;
  while (bad - good > 1) {
    const uint32_t middle = good + (bad - good) / 2;
    (fits(middle) ? good : bad) = middle;
  }
  return good;
}

}  // namespace

uint32_t MemoryPlan::pages_per_sequence() const {
  return ceil_div(context, kPageTokens);
}

Status MemoryPlan::check(uint32_t pages) const {
  const std::string plan =
      fmt::format("memory: {} are needed (weights {}, workspace {}, cache of {} positions {})",
                  gib(needed_bytes(pages)), gib(weights_bytes), gib(workspace_bytes),
                  uint64_t{pages} * kPageTokens, gib(pages * page_bytes));
  const uint64_t largest = std::max(workspace_bytes, pages * page_bytes);
  std::string limit;
  if (needed_bytes(pages) > free_bytes) {
    limit = fmt::format("the device has {} free", gib(free_bytes));
  } else if (largest > largest_buffer_bytes) {
    limit = fmt::format("the device allows {} in one buffer", gib(largest_buffer_bytes));
  } else {
    return {};
  }
  const std::string advice =
      longest_context == 0
          ? "not even one position would fit"
          : fmt::format("a context of {} for one sequence would fit", longest_context);
  return {Errc::kOutOfDeviceMemory, fmt::format("{}, {}; {}", plan, limit, advice)};
}

MemoryPlan plan_memory(const model::ModelConfig& config, uint64_t weights_bytes,
                       const model::ModelOptions& options, CacheFormat format, const Caps& caps) {
  MemoryPlan plan;
  plan.free_bytes = caps.device_heap_free_bytes;
  plan.largest_buffer_bytes = std::min(caps.max_allocation_bytes, caps.max_buffer_bytes);
  plan.weights_bytes = weights_bytes;
  plan.workspace_bytes = model::workspace_bytes(config, options);
  plan.page_bytes = model::cache_bytes(config, 1, format);
  plan.context = options.max_context;
  const uint64_t fixed = plan.weights_bytes + plan.workspace_bytes;
  if (fixed <= plan.free_bytes && plan.workspace_bytes <= plan.largest_buffer_bytes) {
    const uint64_t room = std::min(plan.free_bytes - fixed, plan.largest_buffer_bytes);
    // Rows of the cache are numbered with 32 bits.
    plan.most_pages =
        uint32_t(std::min<uint64_t>(room / plan.page_bytes, UINT32_MAX / kPageTokens));
  }
  plan.longest_context = longest_context(config, options, plan);
  return plan;
}

}  // namespace hadal::runtime
