// A loaded model, and engines that serve it: what every case of the pipeline bench runs on.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "hadal/runtime/engine.h"

namespace hadal::bench {

using Clock = std::chrono::steady_clock;

[[nodiscard]] inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr uint32_t kShortPrompt = 8;  // in front of what is decoded

struct PipelineOptions {
  std::string directory, device, json, cache_dir, trace;
  std::vector<uint32_t> prompts{128, 512}, sequences{32};
  uint32_t generated = 64, chunk = 512, repetitions = 10;
  uint32_t text_tokens = 0;   // of the speculation case; 0: none
  uint32_t reuse_prompt = 0;  // tokens of the prefix reuse case's prompt; 0: none
  bool kernels = false;

  // The most positions of a sequence, and rows of a decode step, that the cases need.
  [[nodiscard]] uint32_t context() const;
  [[nodiscard]] uint32_t rows() const;
};

// An engine with a cache of its own, so that engines can take turns. Runs requests to their end.
class ServedEngine {
 public:
  ServedEngine(Device& device, model::Model& model, uint32_t pages,
               const runtime::EngineOptions& options);

  // What a run of requests with the same number of new tokens took.
  struct Run {
    double first_token_seconds = 0.0;  // until every request had its first token
    double decode_seconds = 0.0;       // from there to the end
    uint64_t decoded_tokens = 0;       // in that time
    uint64_t decode_steps = 0;
  };
  // Adds a request for each prompt and steps until all have ended, greedily.
  [[nodiscard]] Run run(const std::vector<std::vector<uint32_t>>& prompts, uint32_t new_tokens);

  [[nodiscard]] runtime::Engine& engine() { return *engine_; }
  // Whether every drawn id was in range and the logits of the last draws are finite.
  [[nodiscard]] bool is_right();

 private:
  // Of the first row, which every draw of the pipeline writes.
  [[nodiscard]] bool logits_are_finite(const model::Pass& pass);
  Device& device_;
  uint32_t vocab_;
  std::unique_ptr<runtime::KvCache> cache_;
  std::unique_ptr<runtime::PagePool> pages_;
  std::unique_ptr<runtime::Engine> engine_;
  bool ids_in_range_ = true, decoded_ = false;
};

class ServedModel {
 public:
  explicit ServedModel(const PipelineOptions& options);

  // An engine for `sequences` at a time.
  [[nodiscard]] ServedEngine engine(uint32_t sequences, runtime::EngineOptions options = {});
  // `count` ids, never the same again, so that no engine knows a prefix of them.
  [[nodiscard]] std::vector<uint32_t> random_ids(uint32_t count);

  [[nodiscard]] const PipelineOptions& options() const { return options_; }
  [[nodiscard]] const Caps& caps() const { return device_->caps(); }
  [[nodiscard]] bool has_mtp() const { return !model_->weights().mtp.empty(); }
  [[nodiscard]] double load_seconds() const { return load_seconds_; }

 private:
  const PipelineOptions& options_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<model::Model> model_;
  double load_seconds_ = 0;
  std::mt19937 random_{7};
};

}  // namespace hadal::bench
