// An engine on the small checkpoint, random requests for it, and what each gives alone.
#pragma once

#include "hadal/runtime/engine.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "support/golden.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/test_model.h"

namespace hadal::test {

inline constexpr const char* kModel = HADAL_SOURCE_DIR "/examples/models/fables";

// A model whose cache has `pages` pages.
struct Served {
  TestModel model;
  runtime::PagePool pool;
  Served(uint32_t pages, uint32_t rows, uint32_t context, CacheFormat format = CacheFormat::kF32)
      : model(kModel, options(pages, rows, context, format)), pool(pages) {}
  static TestModelOptions options(uint32_t pages, uint32_t rows, uint32_t context,
                                  CacheFormat format = CacheFormat::kF32) {
    TestModelOptions o = for_context(context, 64);
    o.cache_format = format;
    o.model.max_decode_rows = rows;
    o.pages = pages;
    return o;
  }
  [[nodiscard]] runtime::Engine engine(runtime::EngineOptions options) {
    options.max_rows = model.model().options().max_decode_rows;
    options.max_chunk = 64;
    auto engine = runtime::Engine::create(*device(), model.model(), model.cache(), pool, options);
    EXPECT_TRUE(engine.ok()) << engine.status().message();
    return std::move(engine).value();
  }
};

// With common beginnings; sampled, penalised, masked and with log-probabilities or not; prompt and
// new tokens fit.
[[nodiscard]] runtime::EngineRequest random_request(Random& random, uint32_t context);
// What a request gave.
struct Given {
  std::vector<uint32_t> ids;
  std::vector<runtime::TokenLogprobs> logprobs;
  bool operator==(const Given&) const = default;
};

[[nodiscard]] Given alone(runtime::Generator& generator, const runtime::EngineRequest& request);
// Requests in 6 pages, 6 at a time: preempted, with common prefixes, cancelled. Fails the test
// where one's tokens are not those that it gets alone.
runtime::EngineStats expect_tokens_as_alone(runtime::EngineOptions options, uint32_t requests = 40);

}  // namespace hadal::test
