// What the engine's entry points share: what stands behind the opaque handles. Private.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "entry.h"
#include "hadal/hadal_engine.h"
#include "hadal/model/chat_template.h"
#include "hadal/model/model.h"
#include "hadal/model/tokenizer.h"
#include "hadal/runtime/engine.h"
#include "hadal/runtime/kv_cache.h"
#include "hadal/runtime/page_pool.h"

struct hadal_tokenizer {
  hadal::model::Tokenizer tokenizer;
  // A template that cannot be read does not keep the rest from being used.
  hadal::Result<hadal::model::ChatTemplate> chat;
};

// Members go in reverse order: each uses those in front of it.
struct hadal_engine {
  std::unique_ptr<hadal::Device> device;
  std::unique_ptr<hadal_tokenizer> tokenizer;
  std::unique_ptr<hadal::model::Model> model;
  std::unique_ptr<hadal::runtime::KvCache> cache;
  std::unique_ptr<hadal::runtime::PagePool> pages;
  std::optional<hadal::runtime::Engine> engine;
  std::vector<uint32_t> end_ids;  // of a request
  uint32_t max_requests = 0, max_rows = 0;
  std::string driver;
  mutable std::atomic<bool> in_call = false;

  // What the last step gave, in both forms. `waiting`: an error kept the tokens from the caller.
  std::vector<hadal::runtime::EngineToken> tokens;
  bool waiting = false;
  std::vector<hadal_engine_token> entries;
  std::vector<const hadal_engine_token*> entry_pointers;
  std::vector<hadal_token_logprob> top;
  std::vector<std::byte> exported;
};

namespace hadal::capi {

inline constexpr const char* kEngine = "engine";

// Whose call it is: the engine serves one at a time.
class Turn {
 public:
  explicit Turn(const hadal_engine* engine)
      : engine_(engine), mine_(engine && !engine->in_call.exchange(true)) {}
  ~Turn() {
    if (mine_) engine_->in_call = false;
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  [[nodiscard]] Status status() const {
    if (!engine_) return invalid(kEngine, "engine must not be null");
    if (mine_) return {};
    return invalid(kEngine, "engine must not be in another call, of a thread or a callback");
  }

 private:
  const hadal_engine* engine_;
  bool mine_;
};

[[nodiscard]] Result<std::unique_ptr<hadal_tokenizer>> load_tokenizer(const char* model_dir);

// The request as the engine takes it. Reads only what never changes: thread-safe.
[[nodiscard]] Result<runtime::EngineRequest> read_request(const hadal_engine& engine,
                                                          const hadal_engine_request* request);
// Throws for what a callback may not answer: the engine then ends the request with its text.
[[nodiscard]] runtime::TokenMask token_mask(hadal_mask_fn mask, void* user);

// Fills the caller's array, whose room *count says; null: only counts.
template <class T>
[[nodiscard]] Status fill(std::string_view kernel, const T* values, size_t size, size_t* count,
                          T* out) {
  if (!count) return invalid(kernel, "count must not be null");
  if (out && *count < size) {
    return invalid(kernel, fmt::format("count must be at least {}, got {}", size, *count));
  }
  if (out) std::copy_n(values, size, out);
  *count = size;
  return {};
}

}  // namespace hadal::capi
