#include "common/program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <new>
#include <thread>

#include "hadal/model/safetensors.h"
#include "hadal/model/weights.h"
#include "hadal/runtime/memory_plan.h"

namespace hadal::examples {
namespace {

volatile std::sig_atomic_t g_interrupted = 0;
void on_interrupt(int) {
  g_interrupted = 1;
}

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

// What a message quotes may hold line breaks and escape sequences, and be long.
std::string one_line(std::string text) {
  constexpr size_t kMost = 1000;
  if (text.size() > kMost)
    text = text.substr(0, kMost / 2) + "..." + text.substr(text.size() - kMost / 2);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text;
}

// A standard stream that was closed would lend its number to the next file that is opened.
void open_standard_streams() {
  for (int fd = 0; fd <= 2; ++fd) {
    if (fcntl(fd, F_GETFD) == -1 && open("/dev/null", O_RDWR) != fd) return;
  }
}

// The whole of a stream, at most kMaxTextBytes.
Result<std::string> read_stream(std::istream& in, const std::string& name) {
  constexpr size_t kMaxTextBytes = size_t{256} << 20;  // some 60 million tokens
  std::string text;
  std::vector<char> piece(1 << 16);
  while (in.read(piece.data(), std::streamsize(piece.size())) || in.gcount() > 0) {
    text.append(piece.data(), size_t(in.gcount()));
    if (text.size() > kMaxTextBytes) {
      return Status(Errc::kInvalidArgument, fmt::format("{}: text must be at most {}, got more",
                                                        name, bytes_text(kMaxTextBytes)));
    }
  }
  if (interrupted()) return Status(Errc::kCancelled, "interrupted");  // a read ends at a signal
  if (in.bad()) return Status(Errc::kIo, fmt::format("{}: cannot be read", name));
  return text;
}

}  // namespace

int report(const std::string& program, const Status& status) {
  const bool cancelled = status.code() == Errc::kCancelled;
  const std::string line =
      fmt::format("{}: {}\n", program, cancelled ? "interrupted" : one_line(status.message()));
  std::fputs(line.c_str(), stderr);  // fmt::print throws where standard error is closed
  return cancelled ? kExitInterrupted : kExitError;
}

int run_program(CLI::App& app, int argc, char** argv, const std::function<Status()>& run) {
  open_standard_streams();
  const std::string& name = app.get_name();
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& e) {
    return report(name, {Errc::kInvalidArgument, e.what()});
  }
  Status status;
  try {
    status = run();
  } catch (const std::bad_alloc&) {
    status = {Errc::kOutOfHostMemory, "the host has too little memory"};
  } catch (const std::exception& e) {  // of fmt on an output that takes no more
    status = {Errc::kInternal, e.what()};
  }
  if (status.ok() && (std::fflush(stdout) != 0 || std::ferror(stdout))) {
    status = {Errc::kIo, "standard output cannot be written"};
  }
  return status.ok() ? 0 : report(name, status);
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

bool interrupted() {
  return g_interrupted != 0;
}

runtime::WarmUp warm_up() {
  return {.threads = std::max(std::thread::hardware_concurrency(), 1u), .cancelled = interrupted};
}

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
  for (size_t begin = 0; begin <= text.size() && !text.empty();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    uint32_t id = 0;
    const auto [stop, error] = std::from_chars(text.data() + begin, text.data() + end, id);
    if (error != std::errc() || stop != text.data() + end) {
      return Status(Errc::kInvalidArgument,
                    fmt::format("--ids: must be numbers below 2^32 with commas between, got '{}'",
                                text.substr(begin, std::min<size_t>(end - begin, 40))));
    }
    ids.push_back(id);
    begin = end + 1;
  }
  return ids;
}

std::string refuse_inexact_integer(const std::string& text) {
  uint64_t value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool exact = error == std::errc() && stop == text.data() + text.size();
  return exact ? "" : "must be a whole number below 2^64, got " + text.substr(0, 40);
}

Result<std::string> read_text(const std::string& file) {
  if (file == "-") return read_stream(std::cin, "standard input");
  std::error_code error;
  std::ifstream in(file, std::ios::binary);
  if (!in.is_open() || std::filesystem::is_directory(file, error)) {
    return Status(Errc::kIo, fmt::format("{}: cannot be read", file));
  }
  return read_stream(in, file);
}

Status write_file(const std::filesystem::path& file, std::span<const std::byte> data) {
  std::error_code error;
  // A device or a pipe is written, not replaced.
  const auto kind = std::filesystem::status(file, error).type();
  const bool replace =
      kind == std::filesystem::file_type::regular || kind == std::filesystem::file_type::not_found;
  const auto target = replace ? std::filesystem::path(file).concat(".partial") : file;
  std::ofstream out(target, std::ios::binary);
  out.write(reinterpret_cast<const char*>(data.data()), std::streamsize(data.size()));
  out.close();
  error.clear();
  if (out && replace) std::filesystem::rename(target, file, error);
  if (!out || error) {
    std::error_code ignored;
    if (replace) std::filesystem::remove(target, ignored);
    return {Errc::kIo, fmt::format("{}: cannot be written", file.string())};
  }
  return {};
}

Status check_writable(const std::string& option, const std::filesystem::path& file) {
  if (file.empty()) return {};
  std::error_code error;
  const auto refuse = [&](const char* rule) {
    return Status(Errc::kIo, fmt::format("{}: {} {}", option, file.string(), rule));
  };
  if (std::filesystem::is_directory(file, error)) return refuse("must be a file, got a directory");
  const auto parent = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
  if (!std::filesystem::is_directory(parent, error)) {
    return refuse("must lie in a directory that exists");
  }
  const bool exists = std::filesystem::exists(file, error);
  const bool regular = std::filesystem::is_regular_file(file, error);
  if ((exists && access(file.c_str(), W_OK) != 0) ||
      ((!exists || regular) && access(parent.c_str(), W_OK) != 0)) {
    return refuse("must be writable");
  }
  return {};
}

Result<model::ModelConfig> load_config(const std::filesystem::path& directory) {
  std::error_code error;
  if (!std::filesystem::is_directory(directory, error)) {
    return Status(Errc::kIo,
                  fmt::format("MODEL_DIR: {} must be a directory, got {}", directory.string(),
                              std::filesystem::exists(directory, error) ? "another kind of file"
                                                                        : "nothing of that name"));
  }
  return model::load_config(directory);
}

Status check_tokenizer(const std::filesystem::path& directory, const model::Tokenizer& tokenizer,
                       const model::ModelConfig& config) {
  if (tokenizer.vocab_size() <= config.vocab_size) return {};
  return {Errc::kMalformed,
          fmt::format("{}: ids must be below config.json's vocab_size of {}, got {}",
                      (directory / "tokenizer.json").string(), config.vocab_size,
                      tokenizer.vocab_size() - 1)};
}

Result<std::optional<model::ChatTemplate>> load_chat_template(
    const std::filesystem::path& directory) {
  std::optional<model::ChatTemplate> chat_template;
  Result<model::ChatTemplate> loaded = model::ChatTemplate::load(directory);
  if (loaded.ok()) chat_template.emplace(std::move(*loaded));
  if (loaded.ok() || loaded.status().code() == Errc::kUnsupported) return chat_template;
  return loaded.status();
}

Status check_ids(std::span<const uint32_t> ids, const model::ModelConfig& config) {
  if (ids.empty()) {
    return {Errc::kInvalidArgument, "the text must have at least one token, got 0"};
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < config.vocab_size) continue;
    return {Errc::kInvalidArgument,
            fmt::format("token ids must be below the vocabulary's {}, got {} at index {}",
                        config.vocab_size, ids[i], i)};
  }
  return {};
}

Result<std::vector<uint32_t>> load_end_ids(const std::filesystem::path& directory,
                                           const model::ModelConfig& config) {
  HADAL_ASSIGN(const model::GenerationConfig generation,
               model::load_generation_config(directory, config));
  return model::end_ids(config, generation);
}

Result<uint32_t> choose_context(uint32_t wanted, const model::ModelConfig& config) {
  if (wanted <= config.max_position_embeddings) {
    return wanted ? wanted : config.max_position_embeddings;
  }
  return Status(Errc::kInvalidArgument,
                fmt::format("--context: must be at most the model's {}, got {}",
                            config.max_position_embeddings, wanted));
}

CLI::Option* add_cache_option(CLI::App& app, CacheFormat& format) {
  std::map<std::string, CacheFormat> formats;
  for (const CacheFormat f : {CacheFormat::kF32, CacheFormat::kBf16, CacheFormat::kFp8}) {
    formats.emplace(cache_format_name(f), f);
  }
  const auto set = [&format, formats](const std::string& word) { format = formats.at(word); };
  return app.add_option_function<std::string>("--cache", set, "form of the latent cache's rows")
      ->check(CLI::IsMember({"f32", "bf16", "fp8"}))
      ->default_str(std::string(cache_format_name(format)));
}

namespace {

// Pages of the cache. A context or a number of pages that was not asked for shrinks to what fits;
// one sequence of the wanted context has to.
Result<uint32_t> plan_cache(const ModelRequest& request, const model::ModelConfig& config,
                            uint64_t weights_bytes, const Caps& caps,
                            model::ModelOptions& options) {
  const auto plan = [&] {
    return runtime::plan_memory(config, weights_bytes, options, request.cache_format, caps);
  };
  runtime::MemoryPlan memory = plan();
  if (memory.sequences() == 0 && request.context == 0 && memory.longest_context > 0 &&
      memory.longest_context >= options.max_tokens) {
    options.max_context = memory.longest_context;
    memory = plan();
  }
  HADAL_TRY(memory.check(memory.pages_per_sequence()));
  return request.pages ? std::min(request.pages, memory.most_pages) : memory.pages_per_sequence();
}

}  // namespace

Result<LoadedModel> load_model(const ModelRequest& request) {
  const auto start = Clock::now();
  LoadedModel loaded;
  HADAL_ASSIGN(model::ModelConfig config, load_config(request.directory));
  HADAL_ASSIGN(const model::Checkpoint checkpoint, model::Checkpoint::open(request.directory));
  loaded.checkpoint_bytes = checkpoint.data_bytes();
  prepare_cpu_driver(loaded.checkpoint_bytes);

  model::ModelOptions options;
  HADAL_ASSIGN(options.max_context, choose_context(request.context, config));
  options.max_tokens = std::min(request.max_tokens, options.max_context);
  options.max_logit_rows = request.max_logit_rows;
  options.max_decode_rows = request.decode_rows;
  options.max_tokens = std::max(options.max_tokens, request.decode_rows);
  model::LoadOptions load;
  load.absorb_bf16 = request.absorb_bf16;
  load.load_mtp = request.load_mtp;
  load.read_ahead_bytes = uint64_t{32} << 20;
  HADAL_ASSIGN(const uint64_t weights_bytes, model::weights_device_bytes(checkpoint, config, load));
  DeviceOptions device_options;
  device_options.select = request.device;
  device_options.cache_dir = default_cache_dir();
  HADAL_ASSIGN(loaded.device, Device::create(device_options));
  HADAL_ASSIGN(const uint32_t pages,
               plan_cache(request, config, weights_bytes, loaded.device->caps(), options));
  HADAL_TRY(model::check_supported(config, options, loaded.device->caps()));
  if (interrupted()) return Status(Errc::kCancelled, "load: cancelled");
  ProgressBar bar(request.progress);
  load.progress = [&](uint64_t done, uint64_t total) {
    bar.update(done, total);
    return !interrupted();
  };
  HADAL_ASSIGN(model::Weights weights,
               model::Weights::load(*loaded.device, checkpoint, config, load));
  HADAL_ASSIGN(runtime::KvCache cache,
               runtime::KvCache::create(*loaded.device, config, pages, request.cache_format));
  loaded.cache = std::make_unique<runtime::KvCache>(std::move(cache));
  loaded.pages = std::make_unique<runtime::PagePool>(pages);
  HADAL_ASSIGN(loaded.model, model::Model::create(*loaded.device, std::move(config),
                                                  std::move(weights), options));
  loaded.load_seconds = seconds_since(start);
  return loaded;
}

}  // namespace hadal::examples
