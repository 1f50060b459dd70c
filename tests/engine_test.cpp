// The engine on the small checkpoint: whoever shares the steps, the tokens are those of each
// request alone.
#include "hadal/runtime/engine.h"

#include <gtest/gtest.h>

#include <map>

#include "support/gpu.h"
#include "support/random.h"
#include "support/test_model.h"

namespace hadal::test {
namespace {

constexpr const char* kModel = HADAL_SOURCE_DIR "/examples/models/fables";

// A model whose cache has `pages` pages.
struct Served {
  TestModel model;
  runtime::PagePool pool;
  Served(uint32_t pages, uint32_t rows, uint32_t context)
      : model(kModel, options(pages, rows, context)), pool(pages) {}
  static TestModelOptions options(uint32_t pages, uint32_t rows, uint32_t context) {
    TestModelOptions o = for_context(context, 64);
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

runtime::EngineRequest random_request(Random& random, uint32_t context) {
  runtime::EngineRequest request;
  const uint32_t length = 1 + random.below(random.below(2) ? 40 : 150);
  const uint32_t beginning = random.below(2);
  for (uint32_t i = 0; i < length; ++i) {
    request.prompt.push_back(i < 100 ? 3 + (i * 7 + beginning) % 400 : random.below(500));
  }
  request.max_new_tokens = 1 + random.below(std::min(90u, context - length));
  if (random.below(2)) {
    request.sampling.temperature = 0.8f, request.sampling.top_p = 0.9f;
    request.sampling.seed = random.below(1000);
  }
  if (random.below(3) == 0) request.stop_ids = {random.below(500), random.below(500)};
  request.priority = int32_t(random.below(3));
  return request;
}

std::vector<uint32_t> alone(runtime::Generator& generator, const runtime::EngineRequest& request) {
  runtime::GenerateOptions options;
  options.max_new_tokens = request.max_new_tokens;
  options.sampling = request.sampling, options.stop_ids = request.stop_ids;
  auto result = generator.generate(request.prompt, options);
  EXPECT_TRUE(result.ok()) << result.status().message();
  return result.ok() ? result->ids : std::vector<uint32_t>();
}

class EngineGpu : public GpuTest {};

// 40 requests in 6 pages, 6 at a time: preempted, replayed, with common prefixes, cancelled.
TEST_F(EngineGpu, WhoSharesTheStepsChangesNoToken) {
  constexpr uint32_t kContext = 256;
  Served single(8, 1, kContext), many(6, 6, kContext);
  ASSERT_TRUE(single.model.ok() && many.model.ok());
  auto generator = runtime::Generator::create(*device(), single.model.model(), single.model.cache(),
                                              single.pool);
  ASSERT_TRUE(generator.ok());
  runtime::EngineOptions options;
  options.aging_steps = 20, options.step_seconds = 0.005;
  runtime::Engine engine = many.engine(options);
  Random random(5);
  std::map<runtime::RequestId, std::vector<uint32_t>> expected, got;
  std::map<runtime::RequestId, runtime::FinishReason> finished;
  uint32_t made = 0, cancelled = 0;
  while (made < 40 || !engine.idle()) {
    while (made < 40 && random.below(3)) {
      const runtime::EngineRequest request = random_request(random, kContext);
      const auto id = engine.add(request);
      ASSERT_TRUE(id.ok()) << id.status().message();
      expected[*id] = alone(*generator, request);
      ++made;
    }
    if (random.below(20) == 0 && !expected.empty()) {
      const auto victim = std::next(expected.begin(), random.below(uint32_t(expected.size())));
      if (!finished.count(victim->first)) {
        engine.cancel(victim->first);
        got.erase(victim->first);
        expected.erase(victim), ++cancelled;
      }
    }
    const auto tokens = engine.step();
    ASSERT_TRUE(tokens.ok()) << tokens.status().message();
    for (const runtime::EngineToken& token : *tokens) {
      EXPECT_FALSE(finished.count(token.request));
      got[token.request].push_back(token.id);
      if (token.finish != runtime::FinishReason::kNone) finished[token.request] = token.finish;
    }
  }
  for (const auto& [id, ids] : expected) {
    EXPECT_EQ(got[id], ids) << "request " << id;
    EXPECT_TRUE(finished.count(id)) << id;
  }
  EXPECT_EQ(got.size(), expected.size());
  const runtime::EngineStats stats = engine.stats();
  EXPECT_GT(cancelled, 0u);
  EXPECT_GT(stats.scheduler.preemptions, 5u);
  EXPECT_GT(stats.scheduler.reused_tokens, 200u);
  EXPECT_EQ(stats.pages.used, 0u);
}

TEST_F(EngineGpu, EndsByLengthContextAndStop) {
  Served served(8, 2, 128);
  ASSERT_TRUE(served.model.ok());
  runtime::Engine engine = served.engine({});
  EXPECT_TRUE(engine.step()->empty());
  runtime::EngineRequest request;
  request.prompt = std::vector<uint32_t>(125, 5), request.max_new_tokens = 100;
  const auto run = [&] {
    const auto id = engine.add(request);
    EXPECT_TRUE(id.ok());
    std::vector<runtime::EngineToken> all;
    while (!engine.idle()) {
      const auto tokens = engine.step();
      all.insert(all.end(), tokens->begin(), tokens->end());
    }
    return all;
  };
  std::vector<runtime::EngineToken> tokens = run();
  ASSERT_EQ(tokens.size(), 3u);  // the context ends
  EXPECT_EQ(tokens[2].finish, runtime::FinishReason::kLength);
  request.stop_ids = {tokens[1].id};
  if (tokens[0].id == tokens[1].id) GTEST_SKIP() << "the model repeats itself";
  tokens = run();
  ASSERT_EQ(tokens.size(), 2u);
  EXPECT_EQ(tokens[1].finish, runtime::FinishReason::kStop);
  EXPECT_EQ(tokens[0].finish, runtime::FinishReason::kNone);
}

TEST_F(EngineGpu, RefusesByName) {
  Served served(2, 2, 256);
  ASSERT_TRUE(served.model.ok());
  runtime::Engine engine = served.engine({});
  const auto message = [&](runtime::EngineRequest request) {
    const auto id = engine.add(request);
    return id.status().message();
  };
  runtime::EngineRequest request;
  EXPECT_EQ(message(request), "scheduler: the prompt must have at least one token, got 0");
  request.prompt = {1, 100000};
  EXPECT_NE(message(request).find("engine: token ids must be below"), std::string::npos);
  request.prompt.assign(256, 1);
  EXPECT_EQ(message(request),
            "engine: the prompt must be shorter than the context of 256 tokens, got 256");
  request.prompt.assign(100, 1);
  EXPECT_EQ(message(request), "scheduler: 4 pages are needed, the cache has 2");
  request.sampling.top_p = 0.0f;
  EXPECT_NE(message(request).find("top_p"), std::string::npos);
  engine.cancel(12345);
  EXPECT_TRUE(engine.idle());
  runtime::EngineOptions options;
  options.max_rows = 3;
  EXPECT_EQ(runtime::Engine::create(*device(), served.model.model(), served.model.cache(),
                                    served.pool, options)
                .status()
                .message(),
            "engine: max_rows must be 1 to the model's 2, got 3");
}

}  // namespace
}  // namespace hadal::test
