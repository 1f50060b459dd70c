// The small checkpoint behind a cache of few pages, for tests of engines.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>

#include "hadal/runtime/engine.h"
#include "support/gpu.h"
#include "support/test_model.h"

namespace hadal::test {

inline constexpr const char* kFables = HADAL_SOURCE_DIR "/examples/models/fables";

// A model whose cache has `pages` pages, with `rows` rows of a decode step.
struct Served {
  TestModel model;
  runtime::PagePool pool;
  Served(uint32_t pages, uint32_t rows, uint32_t context, CacheFormat format = CacheFormat::kF32)
      : model(kFables, options(pages, rows, context, format)), pool(pages) {}
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

}  // namespace hadal::test
