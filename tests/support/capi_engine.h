// Engines through the C ABI for tests: options, requests in the ABI's form, what a request gave.
#pragma once

#include <gtest/gtest.h>
#include <hadal/hadal_engine.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "support/engine.h"

namespace hadal::test {

// A structure of the ABI, zeroed but for its size.
template <class T>
T abi() {
  T value;
  std::memset(&value, 0, sizeof(value));
  value.struct_size = sizeof(value);
  return value;
}

struct EngineDeleter {
  void operator()(hadal_engine* engine) const { hadal_engine_destroy(engine); }
  void operator()(hadal_tokenizer* tokenizer) const { hadal_tokenizer_destroy(tokenizer); }
};
using EnginePtr = std::unique_ptr<hadal_engine, EngineDeleter>;
using TokenizerPtr = std::unique_ptr<hadal_tokenizer, EngineDeleter>;

// The fables checkpoint with room for six short requests.
inline hadal_engine_options engine_options(uint32_t pages = 24) {
  auto o = abi<hadal_engine_options>();
  o.model_dir = kFables;
  o.max_context = 256, o.max_requests = 6, o.max_chunk = 64, o.cache_pages = pages;
  return o;
}

inline EnginePtr load_engine(const hadal_engine_options& options) {
  hadal_error error = HADAL_ERROR_INIT;
  hadal_engine* engine = nullptr;
  EXPECT_EQ(hadal_engine_load(&options, &engine, &error), HADAL_OK) << error.message;
  return EnginePtr(engine);
}

// `of` in the ABI's form, without end-of-text tokens of the model's; it points into `of`.
struct AbiRequest {
  explicit AbiRequest(const runtime::EngineRequest& of);
  hadal_engine_request request = abi<hadal_engine_request>();
  std::vector<hadal_logit_bias> bias;
  std::vector<const char*> stop;
  const runtime::EngineRequest* source;
};

inline AbiRequest::AbiRequest(const runtime::EngineRequest& of) : source(&of) {
  hadal_engine_request& r = request;
  r.prompt = of.prompt.data(), r.prompt_tokens = of.prompt.size();
  r.max_new_tokens = of.max_new_tokens;
  const auto& s = of.sampling;
  r.temperature = s.temperature, r.top_k = s.top_k, r.top_p = s.top_p, r.min_p = s.min_p;
  r.seed = s.seed, r.repetition_penalty = s.repetition_penalty;
  r.presence_penalty = s.presence_penalty, r.frequency_penalty = s.frequency_penalty;
  for (const auto& b : s.logit_bias) bias.push_back({b.id, b.value});
  r.logit_bias = bias.data(), r.logit_bias_count = bias.size();
  r.flags = HADAL_REQUEST_IGNORE_EOS;
  if (of.logprobs) r.flags |= HADAL_REQUEST_LOGPROBS, r.top_logprobs = *of.logprobs;
  if (of.mask) {
    r.mask_user = const_cast<runtime::EngineRequest*>(source);
    r.mask = [](void* user, const uint32_t* generated, size_t count, uint32_t* allowed,
                size_t words) {
      const auto* asked = static_cast<const runtime::EngineRequest*>(user);
      return int(asked->mask({generated, count}, {allowed, words}));
    };
  }
  r.stop_ids = of.stop_ids.data(), r.stop_ids_count = of.stop_ids.size();
  for (const std::string& text : of.stop) stop.push_back(text.c_str());
  r.stop = stop.data(), r.stop_count = stop.size();
  r.priority = of.priority;
}

// What a request gave through the ABI, and how it ended.
struct AbiGiven {
  Given given;
  std::string text;
  hadal_finish finish = HADAL_FINISH_NONE;
  hadal_status status = HADAL_OK;
  std::string message;
};

// Steps until nothing is left, or `most` steps.
inline std::map<hadal_request_id, AbiGiven> run_engine(hadal_engine* engine, int most = 100000) {
  std::map<hadal_request_id, AbiGiven> all;
  hadal_error error = HADAL_ERROR_INIT;
  for (int i = 0; i < most && !hadal_engine_idle(engine); ++i) {
    const hadal_engine_token* const* tokens = nullptr;
    size_t count = 0;
    EXPECT_EQ(hadal_engine_step(engine, &tokens, &count, &error), HADAL_OK) << error.message;
    if (testing::Test::HasFailure()) break;
    for (size_t t = 0; t < count; ++t) {
      const hadal_engine_token& token = *tokens[t];
      AbiGiven& g = all[token.request];
      EXPECT_EQ(g.finish, uint32_t{HADAL_FINISH_NONE}) << "an entry behind the last";
      EXPECT_EQ(token.struct_size, sizeof(token));
      EXPECT_EQ(token.text[token.text_bytes], 0);
      g.text.append(token.text, token.text_bytes);
      g.finish = token.finish, g.status = token.status, g.message = token.message;
      if (!token.has_token) continue;
      g.given.ids.push_back(token.id);
      if (!token.has_logprob) continue;
      runtime::TokenLogprobs& logprobs = g.given.logprobs.emplace_back();
      logprobs.chosen = token.logprob;
      for (size_t n = 0; n < token.top_count; ++n) {
        logprobs.top.push_back({token.top[n].id, token.top[n].logprob});
      }
    }
  }
  return all;
}

inline hadal_request_id add_request(hadal_engine* engine, const hadal_engine_request& request) {
  hadal_error error = HADAL_ERROR_INIT;
  hadal_request_id id = 0;
  EXPECT_EQ(hadal_engine_add(engine, &request, &id, &error), HADAL_OK) << error.message;
  return id;
}

// A suite with an engine on a device of its own, which goes with the suite: before the driver's
// libraries are unloaded. Not a GpuTest, whose device lives longer than the validation layer likes
// beside a host's instance.
template <uint32_t kPages>
class SharedEngineTest : public ::testing::Test {
 protected:
  static void TearDownTestSuite() { engine_.reset(); }
  void SetUp() override {
    uint32_t devices = 0;
    if (hadal_engine_device_count(&devices, &error_) == HADAL_ERROR_NO_DEVICE) {
      GTEST_SKIP() << error_.message;
    }
    ASSERT_TRUE(shared());
  }
  static hadal_engine* shared() {
    if (!engine_) engine_ = load_engine(engine_options(kPages));
    return engine_.get();
  }
  hadal_error error_ = HADAL_ERROR_INIT;

 private:
  static inline EnginePtr engine_;
};

// A greedy request of `tokens` ids that begin with `first`.
inline runtime::EngineRequest plain_request(uint32_t tokens = 12, uint32_t new_tokens = 8,
                                            uint32_t first = 5) {
  runtime::EngineRequest request;
  for (uint32_t i = 0; i < tokens; ++i) request.prompt.push_back(3 + (first + 7 * i) % 400);
  request.max_new_tokens = new_tokens;
  return request;
}

}  // namespace hadal::test
