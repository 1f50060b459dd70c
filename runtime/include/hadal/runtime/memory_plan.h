// What fits on a device, said before anything is allocated. Pure.
//
//   weights + workspace(options) + pages * page_bytes <= free
//
// A page is 64 positions of one sequence in every layer; the workspace grows with the context by
// its rope table and decode attention's partial results. Besides it the pipelines allocate some
// words per row and page.
#pragma once

#include <cstdint>
#include <string>

#include "hadal/cache_format.h"
#include "hadal/caps.h"
#include "hadal/model/config.h"
#include "hadal/model/model.h"
#include "hadal/status.h"

namespace hadal::runtime {

struct MemoryPlan {
  uint64_t free_bytes = 0;            // of the device's memory
  uint64_t largest_buffer_bytes = 0;  // workspace and cache are one buffer each
  uint64_t weights_bytes = 0, workspace_bytes = 0;
  uint64_t page_bytes = 0;
  uint32_t context = 0;          // that the plan is for
  uint32_t most_pages = 0;       // of the cache, beside weights and workspace
  uint32_t longest_context = 0;  // of a single sequence with its own workspace, at most the
                                 // model's max_position_embeddings; 0: nothing fits

  [[nodiscard]] uint32_t pages_per_sequence() const;
  // Sequences of the whole context at once.
  [[nodiscard]] uint32_t sequences() const { return most_pages / pages_per_sequence(); }
  [[nodiscard]] uint64_t needed_bytes(uint32_t pages) const {
    return weights_bytes + workspace_bytes + pages * page_bytes;
  }
  // Errors: kOutOfDeviceMemory with the numbers, and what would fit.
  [[nodiscard]] Status check(uint32_t pages) const;
};

// `weights_bytes`: model::weights_device_bytes, of a checkpoint or of the config alone. Requires
// options.max_context of at least 1.
[[nodiscard]] MemoryPlan plan_memory(const model::ModelConfig& config, uint64_t weights_bytes,
                                     const model::ModelOptions& options, CacheFormat format,
                                     const Caps& caps);

}  // namespace hadal::runtime
