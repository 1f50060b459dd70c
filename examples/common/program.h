// What the example programs share: error exit, driver settings, loading a model with a progress
// bar.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hadal/device.h"
#include "hadal/model/chat_template.h"
#include "hadal/model/config.h"
#include "hadal/model/generation_config.h"
#include "hadal/model/model.h"
#include "hadal/model/tokenizer.h"
#include "hadal/runtime/kv_cache.h"
#include "hadal/runtime/warm_up.h"
#include "hadal/status.h"

namespace hadal::examples {

inline constexpr int kExitError = 2;          // any refused input; one line says why
inline constexpr int kExitInterrupted = 130;  // Ctrl-C

// Prints "hadal-NAME: message" to standard error, always one line; returns kExitError
// (kExitInterrupted if cancelled).
int report(const std::string& program, const Status& status);
// The whole of a main(): parses, calls `run`, reports. --help and --version print and return 0; a
// refused option, an exception (host memory) and an unwritable standard output are reported like
// any Status.
int run_program(CLI::App& app, int argc, char** argv, const std::function<Status()>& run);

// Settings of Mesa's CPU driver that only take effect before the first Vulkan call, unless the user
// has set them: full vectors on AVX-512, and no worker threads for a model so small that waking
// them costs more than its work. The library itself reads and sets no environment.
void prepare_cpu_driver(uint64_t checkpoint_bytes);

// True once Ctrl-C was pressed (after install_interrupt_handler).
void install_interrupt_handler();
[[nodiscard]] bool interrupted();

// On every core, until Ctrl-C.
[[nodiscard]] runtime::WarmUp warm_up();

// $XDG_CACHE_HOME/hadal or ~/.cache/hadal; empty when neither is known.
[[nodiscard]] std::filesystem::path default_cache_dir();

// Largest resident set so far, in bytes (0 where /proc has no answer).
[[nodiscard]] uint64_t peak_resident_bytes();
[[nodiscard]] std::string bytes_text(uint64_t bytes);  // "13.4 MiB"

// "5,17,3" to numbers. Errors: kInvalidArgument quoting the word that is none.
[[nodiscard]] Result<std::vector<uint32_t>> parse_ids(const std::string& text);
// A check for CLI11, which takes the largest number for one that is larger.
[[nodiscard]] std::string refuse_inexact_integer(const std::string& text);
// A whole file, or standard input for "-", of at most 256 MiB. Errors: kIo, kInvalidArgument.
[[nodiscard]] Result<std::string> read_text(const std::string& file);
// Writes beside the file and renames, so that nothing is ever half-written; into what is not a
// regular file (a pipe, /dev/stdout) directly. Errors: kIo.
[[nodiscard]] Status write_file(const std::filesystem::path& file, std::span<const std::byte> data);
// Whether write_file has a chance, asked before the work whose result it writes. Errors: kIo.
[[nodiscard]] Status check_writable(const std::string& option, const std::filesystem::path& file);

// What is known without loading the model, so that a refusal comes at once.
// load_config, and a word for a directory that is none. Errors: kIo, those of load_config.
[[nodiscard]] Result<model::ModelConfig> load_config(const std::filesystem::path& directory);
// Errors: kMalformed when the tokenizer has ids that the model has not.
[[nodiscard]] Status check_tokenizer(const std::filesystem::path& directory,
                                     const model::Tokenizer& tokenizer,
                                     const model::ModelConfig& config);
// None where the checkpoint has none. Errors: those of ChatTemplate::load.
[[nodiscard]] Result<std::optional<model::ChatTemplate>> load_chat_template(
    const std::filesystem::path& directory);
// Errors: kInvalidArgument for no ids, or one outside the vocabulary.
[[nodiscard]] Status check_ids(std::span<const uint32_t> ids, const model::ModelConfig& config);
// Where a text ends: model::end_ids of config.json and generation_config.json. Errors: those of
// model::load_generation_config.
[[nodiscard]] Result<std::vector<uint32_t>> load_end_ids(const std::filesystem::path& directory,
                                                         const model::ModelConfig& config);
// The positions to plan for: `wanted`, or the model's for 0. Errors: kInvalidArgument beyond the
// model's.
[[nodiscard]] Result<uint32_t> choose_context(uint32_t wanted, const model::ModelConfig& config);

// --cache: how the latent cache is stored, by cache_format_name.
CLI::Option* add_cache_option(CLI::App& app, CacheFormat& format);

struct ModelRequest {
  std::filesystem::path directory;
  std::string device;
  uint32_t context = 0;  // positions the cache must hold; 0 = what the model declares, or what fits
  uint32_t max_tokens = 512;  // prefill chunk
  uint32_t max_logit_rows = 1;
  uint32_t decode_rows = 1;  // sequences of a decode step
  uint32_t pages = 0;        // of the cache; 0 = one sequence of the whole context
  CacheFormat cache_format = CacheFormat::kF32;
  bool absorb_bf16 = false;
  bool load_mtp = false;
  bool progress = true;  // a bar on standard error for loads over a second, when it is a terminal
};

struct LoadedModel {
  std::unique_ptr<Device> device;
  std::unique_ptr<model::Model> model;
  std::unique_ptr<runtime::KvCache> cache;
  std::unique_ptr<runtime::PagePool> pages;
  double load_seconds = 0;
  uint64_t checkpoint_bytes = 0;
};

// Opens, checks, plans (weights + workspace + cache against the device's free memory, with the
// numbers, before anything is allocated) and loads.
[[nodiscard]] Result<LoadedModel> load_model(const ModelRequest& request);

}  // namespace hadal::examples
