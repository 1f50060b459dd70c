// What generation_config.json says as defaults of hadal-chat and hadal-serve.
#include <gtest/gtest.h>

#include "common/generation_defaults.h"

namespace hadal::examples {
namespace {

TEST(GenerationDefaultsHost, OnlyWhatIsSaid) {
  const runtime::SamplingOptions before{.temperature = 0.6f, .top_p = 0.95f, .logit_bias = {}};
  runtime::SamplingOptions options = before;
  model::GenerationConfig config;
  apply_generation_config(config, options);
  EXPECT_EQ(options.temperature, 0.6f);
  EXPECT_EQ(options.top_p, 0.95f);
  EXPECT_EQ(generation_text(config), "");
  config.temperature = 0.0, config.min_p = 0.25;
  apply_generation_config(config, options);
  EXPECT_EQ(options.temperature, 0.0f);
  EXPECT_EQ(options.top_p, 0.95f);
  EXPECT_EQ(options.min_p, 0.25f);
  EXPECT_EQ(generation_text(config), "temperature 0, min_p 0.25");
}

TEST(GenerationDefaultsHost, FlagsGoFirst) {
  model::GenerationConfig config;
  config.temperature = 0.3, config.top_p = 0.5, config.top_k = 40, config.min_p = 0.1;
  config.repetition_penalty = 1.5, config.max_new_tokens = 12;
  EXPECT_EQ(generation_text(config),
            "temperature 0.3, top_k 40, top_p 0.5, min_p 0.1, repetition_penalty 1.5, "
            "max_new_tokens 12");
  runtime::SamplingOptions options;
  apply_generation_config(config, options);
  EXPECT_EQ(options.temperature, 0.3f);
  EXPECT_EQ(options.top_p, 0.5f);
  EXPECT_EQ(options.top_k, 40u);
  EXPECT_EQ(options.min_p, 0.1f);
  EXPECT_EQ(options.repetition_penalty, 1.5f);
  forget_given(config, [](std::string_view flag) {
    return flag == "--temperature" || flag == "--top-k" || flag == "--max-tokens";
  });
  EXPECT_EQ(generation_text(config), "top_p 0.5, min_p 0.1, repetition_penalty 1.5");
  forget_given(config, [](std::string_view) { return true; });
  EXPECT_EQ(generation_text(config), "");
}

}  // namespace
}  // namespace hadal::examples
