#include "support/roofline.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "hadal/recorder.h"
#include "layout/interop.h"
#include "support/bench.h"
#include "vk/device_impl.h"

namespace hadal::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr uint32_t kRoofFma[] = {
#include "roof_fma.inc"
};
constexpr uint32_t kRoofRead[] = {
#include "roof_read.inc"
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// hadal::kernels embeds no bench shaders, so their pipelines are made here.
std::unique_ptr<vk::Pipeline> make_pipeline(Device& device, std::span<const uint32_t> words,
                                            uint32_t workgroup, bool use_fma, uint32_t push_bytes) {
  vk::DeviceImpl& impl = device.impl();
  const auto check = [](VkResult result) { require(vk::to_status(result, "bench: roofline")); };
  const VkPushConstantRange range{VK_SHADER_STAGE_COMPUTE_BIT, 0, push_bytes};
  VkPipelineLayoutCreateInfo layout_info{};
  layout_info.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO;
  layout_info.pushConstantRangeCount = 1, layout_info.pPushConstantRanges = &range;
  VkPipelineLayout layout = VK_NULL_HANDLE;
  check(impl.table.CreatePipelineLayout(impl.device, &layout_info, nullptr, &layout));
  VkShaderModuleCreateInfo module_info{};
  module_info.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO;
  module_info.codeSize = words.size_bytes(), module_info.pCode = words.data();
  VkShaderModule module = VK_NULL_HANDLE;
  check(impl.table.CreateShaderModule(impl.device, &module_info, nullptr, &module));
  const VkSpecializationMapEntry entries[] = {{layout::kSpecWorkgroupSize, 0, 4},
                                              {layout::kSpecUseFma, 4, 4}};
  const uint32_t values[] = {workgroup, use_fma};
  const VkSpecializationInfo specialization{2, entries, sizeof(values), values};
  VkComputePipelineCreateInfo info{};
  info.sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO;
  info.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO;
  info.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
  info.stage.module = module, info.stage.pName = "main";
  info.stage.pSpecializationInfo = &specialization;
  info.layout = layout;
  VkPipeline handle = VK_NULL_HANDLE;
  check(impl.table.CreateComputePipelines(impl.device, impl.pipeline_cache, 1, &info, nullptr,
                                          &handle));
  impl.table.DestroyShaderModule(impl.device, module, nullptr);
  return std::make_unique<vk::Pipeline>(impl, layout, handle);
}

// Shortest of `runs` on the device.
double best_seconds(Device& device, const std::function<Status(Recorder&)>& record, bool dispatch,
                    int runs) {
  RecorderOptions options;
  options.timestamps = dispatch && device.caps().timestamp_period_ns > 0;
  Recorder recorder = require(Recorder::create(device, options));
  require(record(recorder));
  require(recorder.end());
  double best = 1e30;
  for (int i = 0; i < runs; ++i) {
    const auto start = Clock::now();
    require(device.run(recorder));
    double seconds = seconds_since(start);
    if (options.timestamps) seconds = require(recorder.timings()).front().ns * 1e-9;
    best = std::min(best, seconds);
  }
  return best;
}

double measure_fma(Device& device, bool use_fma) {
  struct {
    uint64_t result;
    uint32_t iterations;
    float factor, addend;
    uint32_t padding;
  } push{};
  const Caps& caps = device.caps();
  const uint32_t workgroup = caps.is_cpu ? caps.subgroup_size : 256;
  const uint32_t groups = caps.is_cpu ? 8 * device_threads(caps) : 8192;
  const Buffer result = require(device.allocate(uint64_t{workgroup} * groups * 4));
  const auto pipeline = make_pipeline(device, kRoofFma, workgroup, use_fma, sizeof(push));
  push.result = result.address(), push.factor = 0.999f, push.addend = 0.001f;
  double flop_per_s = 0;
  // Longer and longer, until the work hides the dispatch.
  for (uint32_t iterations = 64; iterations < 60000; iterations *= 4) {
    push.iterations = iterations;
    const double seconds = best_seconds(
        device,
        [&](Recorder& recorder) {
          Recorder::Dispatch dispatch;
          dispatch.pipeline = pipeline.get(), dispatch.label = "roof_fma";
          dispatch.push = std::as_bytes(std::span(&push, 1));
          dispatch.groups = {groups, 1, 1};
          return recorder.dispatch(dispatch);
        },
        true, 5);
    flop_per_s = 2.0 * 12 * 32 * iterations * workgroup * groups / seconds;
    if (seconds > 5e-3) break;
  }
  return flop_per_s;
}

double measure_read_shader(Device& device, const Buffer& source) {
  struct {
    uint64_t source, result;
  } push{};
  constexpr uint32_t kWorkgroup = 256;
  const uint32_t groups = uint32_t(source.bytes() / (uint64_t{kWorkgroup} * 16 * 16));
  const Buffer result = require(device.allocate(uint64_t{kWorkgroup} * groups * 4));
  const auto pipeline = make_pipeline(device, kRoofRead, kWorkgroup, true, sizeof(push));
  push.source = source.address(), push.result = result.address();
  const double seconds = best_seconds(
      device,
      [&](Recorder& recorder) {
        Recorder::Dispatch dispatch;
        dispatch.pipeline = pipeline.get(), dispatch.label = "roof_read";
        dispatch.push = std::as_bytes(std::span(&push, 1));
        dispatch.groups = {groups, 1, 1};
        return recorder.dispatch(dispatch);
      },
      true, 5);
  return double(groups) * kWorkgroup * 16 * 16 / seconds;
}

// Eight sums of eight words: eight 512-bit registers, or as many narrower ones as the machine has.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#endif
uint64_t
read_words(const uint64_t* words, size_t count) {
  uint64_t sum[64] = {};
  for (size_t i = 0; i + 64 <= count; i += 64) {
    for (size_t j = 0; j < 64; ++j) sum[j] ^= words[i + j];
  }
  uint64_t all = 0;
  for (uint64_t s : sum) all ^= s;
  return all;
}

// Reads memory of the process on huge pages: the core's limit, not that of a driver's allocator.
double measure_read_host(uint64_t bytes, uint32_t threads) {
  constexpr std::align_val_t kHugePage{2u << 20};
  const std::unique_ptr<uint64_t, void (*)(uint64_t*)> memory(
      static_cast<uint64_t*>(::operator new(bytes, kHugePage)),
      [](uint64_t* words) { ::operator delete (words, std::align_val_t{2u << 20}); });
  madvise(memory.get(), bytes, MADV_HUGEPAGE);  // a wish; without it the figure is lower
  std::fill_n(memory.get(), bytes / 8, 1);
  const size_t share = bytes / 8 / threads;
  std::vector<uint64_t> sink(threads);
  double best = 1e30;
  for (int run = 0; run < 8; ++run) {
    std::vector<std::thread> workers;
    const auto start = Clock::now();
    for (uint32_t t = 1; t < threads; ++t) {
      workers.emplace_back([&, t] { sink[t] = read_words(memory.get() + t * share, share); });
    }
    sink[0] = read_words(memory.get(), share);
    for (std::thread& worker : workers) worker.join();
    best = std::min(best, seconds_since(start));
  }
  volatile uint64_t keep = sink[0];
  (void)keep;
  return double(share) * 8 * threads / best;
}

}  // namespace

uint32_t device_threads(const Caps& caps) {
  if (!caps.is_cpu) return 0;
  if (const char* text = std::getenv("LP_NUM_THREADS")) return std::max(1, std::atoi(text));
  return std::max(1u, std::thread::hardware_concurrency());
}

Roofline measure_roofline(Device& device, bool quick) {
  const bool cpu = device.caps().is_cpu;
  // Far beyond any cache; a GPU needs more to be busy for a millisecond.
  const uint64_t bytes = quick ? 128u << 20 : cpu ? 256u << 20 : 1u << 30;
  const Buffer from = require(device.allocate(bytes)), to = require(device.allocate(bytes));
  Roofline roof;
  const uint32_t copies = cpu ? 1 : 8;  // one is over before a GPU's submission is paid for
  // The first run also touches the pages.
  const double seconds = best_seconds(
      device,
      [&](Recorder& recorder) -> Status {
        for (uint32_t i = 0; i < copies; ++i) {
          if (const Status status = recorder.copy(from, 0, to, 0, bytes); !status.ok())
            return status;
          recorder.barrier();
        }
        return {};
      },
      false, 6);
  roof.copy_bytes_per_s = 2.0 * double(bytes) * copies / seconds;
  roof.read_bytes_per_s = cpu ? measure_read_host(bytes, device_threads(device.caps()))
                              : measure_read_shader(device, to);
  roof.fma_flop_per_s = std::max(measure_fma(device, true), measure_fma(device, false));
  return roof;
}

}  // namespace hadal::bench
