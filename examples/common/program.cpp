#include "common/program.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>

#include "hadal/model/safetensors.h"
#include "hadal/model/weights.h"

namespace hadal::examples {
namespace {

volatile std::sig_atomic_t g_interrupted = 0;
void on_interrupt(int) { g_interrupted = 1; }

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A bar that appears once a load has lasted a second, redrawn at most ten times a second.
class ProgressBar {
 public:
  explicit ProgressBar(bool enabled) : enabled_(enabled && isatty(STDERR_FILENO)) {}
  ~ProgressBar() {
    if (shown_) fmt::print(stderr, "\r\033[K");
  }
  void update(uint64_t done, uint64_t total) {
    const double elapsed = seconds_since(start_);
    if (!enabled_ || elapsed < 1.0 || total == 0 || elapsed < next_) return;
    next_ = elapsed + 0.1;
    shown_ = true;
    constexpr uint32_t kWidth = 40;
    const double fraction = double(done) / double(total);
    const auto filled = uint32_t(fraction * kWidth);
    fmt::print(stderr, "\rloading [{}{}] {:3.0f} %  {} of {}", std::string(filled, '#'),
               std::string(kWidth - filled, ' '), 100 * fraction, bytes_text(done),
               bytes_text(total));
  }

 private:
  bool enabled_;
  bool shown_ = false;
  double next_ = 0;
  Clock::time_point start_ = Clock::now();
};

Status check_memory(const Caps& caps, uint64_t weights, uint64_t workspace, uint64_t cache,
                    uint32_t context) {
  const uint64_t needed = weights + workspace + cache;
  if (needed <= caps.device_heap_free_bytes) return {};
  return {Errc::kOutOfDeviceMemory,
          fmt::format("load: {} are needed (weights {}, workspace {}, cache of {} positions {}), "
                      "{} has {} free of {}",
                      bytes_text(needed), bytes_text(weights), bytes_text(workspace), context,
                      bytes_text(cache), caps.device_name, bytes_text(caps.device_heap_free_bytes),
                      bytes_text(caps.device_heap_bytes))};
}

}  // namespace

int report(const std::string& program, const Status& status) {
  if (status.code() == Errc::kCancelled) {
    fmt::print(stderr, "\n{}: interrupted\n", program);
    return kExitInterrupted;
  }
  fmt::print(stderr, "{}: {}\n", program, status.message());
  return kExitError;
}

void prepare_cpu_driver(uint64_t checkpoint_bytes) {
  // Measured (bench/README.md): a decode step of a small model is some hundred dispatches of
  // microseconds each, and waking a worker costs more than that.
  constexpr uint64_t kSmallModelBytes = uint64_t{64} << 20;
  if (checkpoint_bytes <= kSmallModelBytes) setenv("LP_NUM_THREADS", "0", /*overwrite=*/0);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) setenv("LP_NATIVE_VECTOR_WIDTH", "512", /*overwrite=*/0);
#endif
}

void install_interrupt_handler() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  action.sa_flags = SA_RESETHAND;  // a second Ctrl-C ends the program at once
  sigaction(SIGINT, &action, nullptr);
}

bool interrupted() { return g_interrupted != 0; }

std::filesystem::path default_cache_dir() {
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"); xdg && *xdg) {
    return std::filesystem::path(xdg) / "hadal";
  }
  if (const char* home = std::getenv("HOME"); home && *home) {
    return std::filesystem::path(home) / ".cache" / "hadal";
  }
  return {};
}

uint64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word != "VmHWM:") continue;
    uint64_t kib = 0;
    status >> kib;
    return kib * 1024;
  }
  return 0;
}

std::string bytes_text(uint64_t bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = double(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit < 4; ++unit) value /= 1024;
  return fmt::format("{:.{}f} {}", value, unit == 0 ? 0 : 1, units[unit]);
}

Result<std::vector<uint32_t>> parse_ids(const std::string& text) {
  std::vector<uint32_t> ids;
  std::string word;
  std::istringstream in(text);
  while (std::getline(in, word, ',')) {
    size_t used = 0;
    unsigned long value = 0;
    try {
      value = std::stoul(word, &used);
    } catch (const std::exception&) {
      used = 0;
    }
    if (used == 0 || used != word.size() || value > UINT32_MAX || word[0] == '-') {
      return Status(Errc::kInvalidArgument,
                    fmt::format("--ids: must be numbers with commas, got '{}'", word));
    }
    ids.push_back(uint32_t(value));
  }
  return ids;
}

Result<std::string> read_text(const std::string& file) {
  if (file == "-") return std::string(std::istreambuf_iterator<char>(std::cin), {});
  std::ifstream in(file, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(in), {});
  if (!in.is_open() || in.bad()) return Status(Errc::kIo, fmt::format("{}: cannot be read", file));
  return text;
}

Status write_file(const std::filesystem::path& file, std::span<const std::byte> data) {
  const auto partial = std::filesystem::path(file).concat(".partial");
  std::ofstream out(partial, std::ios::binary);
  out.write(reinterpret_cast<const char*>(data.data()), std::streamsize(data.size()));
  out.close();
  std::error_code error;
  if (out) std::filesystem::rename(partial, file, error);
  if (!out || error) {
    std::filesystem::remove(partial, error);
    return {Errc::kIo, fmt::format("{}: cannot be written", file.string())};
  }
  return {};
}

Result<LoadedModel> load_model(const ModelRequest& request) {
  const auto start = Clock::now();
  LoadedModel loaded;
  HADAL_ASSIGN(model::ModelConfig config, model::load_config(request.directory));
  HADAL_ASSIGN(const model::Checkpoint checkpoint, model::Checkpoint::open(request.directory));
  loaded.checkpoint_bytes = checkpoint.data_bytes();
  prepare_cpu_driver(loaded.checkpoint_bytes);

  model::ModelOptions options;
  options.max_context = request.context ? request.context : config.max_position_embeddings;
  if (options.max_context > config.max_position_embeddings) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("load: the context must be at most the model's {}, got {}",
                              config.max_position_embeddings, options.max_context));
  }
  options.max_tokens = std::min(request.max_tokens, options.max_context);
  options.max_logit_rows = request.max_logit_rows;
  model::LoadOptions load;
  load.absorb_bf16 = request.absorb_bf16;
  load.load_mtp = request.load_mtp;
  HADAL_ASSIGN(const uint64_t weights_bytes,
               model::weights_device_bytes(checkpoint, config, load));
  DeviceOptions device_options;
  device_options.select = request.device;
  device_options.cache_dir = default_cache_dir();
  HADAL_ASSIGN(loaded.device, Device::create(device_options));
  const uint32_t pages = ceil_div(options.max_context, runtime::kPageTokens);
  HADAL_TRY(check_memory(loaded.device->caps(), weights_bytes,
                         model::workspace_bytes(config, options),
                         model::cache_bytes(config, pages, request.cache_type),
                         options.max_context));
  ProgressBar bar(request.progress);
  load.progress = [&](uint64_t done, uint64_t total) {
    bar.update(done, total);
    return !interrupted();
  };
  HADAL_ASSIGN(model::Weights weights,
               model::Weights::load(*loaded.device, checkpoint, config, load));
  HADAL_ASSIGN(runtime::KvCache cache,
               runtime::KvCache::create(*loaded.device, config, pages, request.cache_type));
  loaded.cache = std::make_unique<runtime::KvCache>(std::move(cache));
  loaded.pages = std::make_unique<runtime::PageAllocator>(pages);
  HADAL_ASSIGN(loaded.model, model::Model::create(*loaded.device, std::move(config),
                                                  std::move(weights), options));
  loaded.load_seconds = seconds_since(start);
  return loaded;
}

}  // namespace hadal::examples
