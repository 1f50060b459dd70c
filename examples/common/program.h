// What the example programs share: error exit, driver settings, loading a model with a progress bar.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "hadal/device.h"
#include "hadal/model/config.h"
#include "hadal/model/model.h"
#include "hadal/model/tokenizer.h"
#include "hadal/runtime/kv_cache.h"
#include "hadal/status.h"

namespace hadal::examples {

inline constexpr int kExitError = 2;         // any refused input; one line says why
inline constexpr int kExitInterrupted = 130;  // Ctrl-C

// Prints "hadal-NAME: message" to standard error; returns kExitError (kExitInterrupted if cancelled).
int report(const std::string& program, const Status& status);

// Settings of Mesa's CPU driver that only take effect before the first Vulkan call, unless the user has
// set them: full vectors on AVX-512, and no worker threads for a model so small that waking them
// costs more than its work. The library itself reads and sets no environment.
void prepare_cpu_driver(uint64_t checkpoint_bytes);

// True once Ctrl-C was pressed (after install_interrupt_handler).
void install_interrupt_handler();
[[nodiscard]] bool interrupted();

// $XDG_CACHE_HOME/hadal or ~/.cache/hadal; empty when neither is known.
[[nodiscard]] std::filesystem::path default_cache_dir();

// Largest resident set so far, in bytes (0 where /proc has no answer).
[[nodiscard]] uint64_t peak_resident_bytes();
[[nodiscard]] std::string bytes_text(uint64_t bytes);  // "13.4 MiB"

// "5,17,3" to numbers. Errors: kInvalidArgument quoting the word that is none.
[[nodiscard]] Result<std::vector<uint32_t>> parse_ids(const std::string& text);
// A whole file, or standard input for "-". Errors: kIo.
[[nodiscard]] Result<std::string> read_text(const std::string& file);
// Writes beside the file and renames, so that nothing is ever half-written. Errors: kIo.
[[nodiscard]] Status write_file(const std::filesystem::path& file, std::span<const std::byte> data);

struct ModelRequest {
  std::filesystem::path directory;
  std::string device;
  uint32_t context = 0;          // positions the cache must hold; 0 = what the model declares
  uint32_t max_tokens = 512;     // prefill chunk
  uint32_t max_logit_rows = 1;
  ElementType cache_type = ElementType::kF32;
  bool absorb_bf16 = false;
  bool load_mtp = false;
  bool progress = true;  // a bar on standard error for loads over a second, when it is a terminal
};

struct LoadedModel {
  std::unique_ptr<Device> device;
  std::unique_ptr<model::Model> model;
  std::unique_ptr<runtime::KvCache> cache;
  std::unique_ptr<runtime::PageAllocator> pages;
  double load_seconds = 0;
  uint64_t checkpoint_bytes = 0;
};

// Opens, checks, plans (weights + workspace + cache against the device's free memory, with the numbers,
// before anything is allocated) and loads.
[[nodiscard]] Result<LoadedModel> load_model(const ModelRequest& request);

}  // namespace hadal::examples
