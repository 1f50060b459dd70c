// The generator on the small checkpoint: an earlier prompt's pages change the time, never a token.
#include "hadal/runtime/generator.h"

#include <gtest/gtest.h>

#include "support/gpu.h"
#include "support/random.h"
#include "support/test_model.h"

namespace hadal::test {
namespace {

class GeneratorGpu : public GpuTest {};

runtime::GenerateResult generate(TestModel& m, runtime::Generator& generator,
                                 const std::vector<uint32_t>& prompt, float temperature) {
  runtime::GenerateOptions options;
  options.max_new_tokens = 24;
  options.sampling.temperature = temperature, options.sampling.seed = 7;
  Result<runtime::GenerateResult> result = generator.generate(prompt, options);
  EXPECT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(m.pages().stats().used, 0u);
  return result.ok() ? *result : runtime::GenerateResult{};
}

TEST_F(GeneratorGpu, AReusedPrefixGivesTheSameTokens) {
  TestModelOptions options = for_context(512, 48);  // chunks that are no multiple of a page
  TestModel fresh(HADAL_SOURCE_DIR "/examples/models/fables", options);
  TestModel used(HADAL_SOURCE_DIR "/examples/models/fables", options);
  ASSERT_TRUE(fresh.ok() && used.ok());
  auto first = runtime::Generator::create(*device(), fresh.model(), fresh.cache(), fresh.pages());
  auto second = runtime::Generator::create(*device(), used.model(), used.cache(), used.pages());
  ASSERT_TRUE(first.ok() && second.ok());
  Random random(3);
  std::vector<uint32_t> text;
  for (int i = 0; i < 300; ++i) text.push_back(random.below(500));
  (void)generate(used, *second, {text.begin(), text.begin() + 200}, 0.0f);  // leaves 3 pages
  for (const uint32_t length : {65u, 192u, 193u, 260u, 300u}) {
    const std::vector<uint32_t> prompt(text.begin(), text.begin() + length);
    for (const float temperature : {0.0f, 1.0f}) {
      // The fresh model's cache is filled by other prompts, so that nothing is taken over.
      std::vector<uint32_t> other(511, uint32_t(length));
      (void)generate(fresh, *first, other, 0.0f);
      const auto expected = generate(fresh, *first, prompt, temperature);
      const auto reused = generate(used, *second, prompt, temperature);
      EXPECT_EQ(expected.reused_tokens, 0u);
      EXPECT_GE(reused.reused_tokens, std::min((length - 1) / 64 * 64, 192u));
      EXPECT_EQ(expected.ids, reused.ids) << length;
    }
  }
}

}  // namespace
}  // namespace hadal::test
