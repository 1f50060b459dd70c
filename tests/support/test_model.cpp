#include "support/test_model.h"

#include <gtest/gtest.h>

#include "support/gpu.h"

namespace hadal::test {

TestModelOptions for_context(uint32_t context, uint32_t chunk) {
  TestModelOptions options;
  options.model.max_context = context;
  options.model.max_tokens = options.model.max_logit_rows = chunk;
  return options;
}

TestModel::TestModel(const std::filesystem::path& dir, const TestModelOptions& options)
    : recorder_(options.recorder) {
  const auto build = [&]() -> Status {
    HADAL_ASSIGN(model::ModelConfig config, model::load_config(dir));
    HADAL_ASSIGN(model::Checkpoint checkpoint, model::Checkpoint::open(dir));
    checkpoint_ = std::make_shared<const model::Checkpoint>(std::move(checkpoint));
    HADAL_ASSIGN(model::Weights weights,
                 model::Weights::load(*device(), *checkpoint_, config, options.load));
    const uint32_t all =
        ceil_div(options.model.max_context, runtime::kPageTokens) * options.model.max_decode_rows;
    const uint32_t pages = options.pages ? options.pages : all;
    HADAL_ASSIGN(runtime::KvCache cache,
                 runtime::KvCache::create(*device(), config, pages, options.cache_format));
    cache_ = std::make_unique<runtime::KvCache>(std::move(cache));
    pages_ = std::make_unique<runtime::PagePool>(pages);
    HADAL_ASSIGN(model_,
                 model::Model::create(*device(), config, std::move(weights), options.model));
    HADAL_ASSIGN(runtime::Evaluator evaluator,
                 runtime::Evaluator::create(*device(), *model_, *cache_, *pages_, recorder_));
    evaluator_ = std::make_unique<runtime::Evaluator>(std::move(evaluator));
    return {};
  };
  const Status status = build();
  EXPECT_TRUE(status.ok()) << dir << ": " << status.message();
}

std::vector<float> TestModel::logits(const std::vector<uint32_t>& ids,
                                     runtime::EvaluationForm form) {
  Result<std::vector<float>> result = evaluator_->logits(ids, form);
  EXPECT_TRUE(result.ok()) << result.status().message();
  return result.ok() ? std::move(result).value() : std::vector<float>();
}

std::vector<uint32_t> TestModel::greedy(const std::vector<uint32_t>& prompt, uint32_t count) {
  Result<runtime::Generator> generator =
      runtime::Generator::create(*device(), *model_, *cache_, *pages_, recorder_);
  EXPECT_TRUE(generator.ok()) << generator.status().message();
  runtime::GenerateOptions options;
  options.max_new_tokens = count;
  Result<runtime::GenerateResult> result = generator->generate(prompt, options);
  EXPECT_TRUE(result.ok()) << result.status().message();
  return result.ok() ? result->ids : std::vector<uint32_t>();
}

}  // namespace hadal::test
