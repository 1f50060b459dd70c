// What the targets of the engine's C ABI work with: a host's device with the validation layer,
// small engines of the fables checkpoint on it, states of requests, tokenizers with chat templates.
// Each is made at its first use, so that what needs no device runs without one.
#pragma once

#include <hadal/hadal_engine.h>

#include <vector>

#include "consumer/vulkan_host.h"

namespace hadal::fuzz {

class EngineWorld {
 public:
  EngineWorld();
  ~EngineWorld();
  EngineWorld(const EngineWorld&) = delete;
  EngineWorld& operator=(const EngineWorld&) = delete;

  // Whether there is a Vulkan device and the validation layer; engines need both.
  [[nodiscard]] bool has_device() const { return device_.device != VK_NULL_HANDLE; }
  // Of the validation layer.
  [[nodiscard]] int messages() const { return instance_.messages; }

  static constexpr uint32_t kVocabulary = 2048, kContext = 256;  // of the engines
  // Kinds of engine: one that decodes plainly in few pages, one that also guesses and swaps.
  static constexpr uint32_t kKinds = 2;
  [[nodiscard]] hadal_engine_options options(uint32_t kind) const;
  [[nodiscard]] hadal_engine* engine(uint32_t kind);
  // The engines are made anew at their next use, so that what they keep stays small.
  void renew();

  // A request of the engine's, one behind its prompt and one that decodes.
  static constexpr uint32_t kStates = 2;
  [[nodiscard]] const std::vector<unsigned char>& state(uint32_t index);

  // The fables tokenizer: without a chat template, then with each of tests/chat_templates.
  [[nodiscard]] const std::vector<hadal_tokenizer*>& tokenizers();

 private:
  host_instance instance_{};
  host_device device_{};
  hadal_context_info context_{};
  hadal_engine* engines_[kKinds]{};
  std::vector<unsigned char> states_[kStates];
  std::vector<hadal_tokenizer*> tokenizers_;
};

}  // namespace hadal::fuzz
