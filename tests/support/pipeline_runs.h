// Which pipelines a device has run: those bound in command buffers that were submitted. A driver
// may compile at a pipeline's first run what it left out when it made it.
#pragma once

#include <vulkan/vulkan_core.h>

#include <set>

#include "hadal/device.h"

namespace hadal::test {

// For its lifetime it replaces entries of the device's function table. One at a time in a process.
class PipelineRuns {
 public:
  explicit PipelineRuns(Device& device);
  ~PipelineRuns();
  PipelineRuns(const PipelineRuns&) = delete;
  PipelineRuns& operator=(const PipelineRuns&) = delete;

  [[nodiscard]] std::set<VkPipeline> pipelines() const;

 private:
  Device* device_;
};

}  // namespace hadal::test
