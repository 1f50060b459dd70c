// A checkpoint loaded on the test device, with what it takes to run it.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "hadal/model/model.h"
#include "hadal/model/safetensors.h"
#include "hadal/runtime/evaluator.h"
#include "hadal/runtime/generator.h"
#include "hadal/runtime/kv_cache.h"

namespace hadal::test {

struct TestModelOptions {
  model::ModelOptions model;
  model::LoadOptions load;
  CacheFormat cache_format = CacheFormat::kF32;
  RecorderOptions recorder;
  uint32_t pages = 0;  // of the cache; 0: max_context for each decode row
};

class TestModel {
 public:
  // Loads `dir` on test::device(). Test failures are reported through gtest; check ok().
  TestModel(const std::filesystem::path& dir, const TestModelOptions& options);
  [[nodiscard]] bool ok() const { return evaluator_ != nullptr; }
  [[nodiscard]] model::Model& model() { return *model_; }
  [[nodiscard]] const runtime::KvCache& cache() const { return *cache_; }
  [[nodiscard]] runtime::PagePool& pages() { return *pages_; }
  [[nodiscard]] runtime::Evaluator& evaluator() { return *evaluator_; }
  [[nodiscard]] std::shared_ptr<const model::Checkpoint> checkpoint() const { return checkpoint_; }

  // Logits [ids, vocab], failing the test on an error.
  [[nodiscard]] std::vector<float> logits(
      const std::vector<uint32_t>& ids,
      runtime::EvaluationForm form = runtime::EvaluationForm::kPrefill);
  // Greedy continuation of `count` tokens.
  [[nodiscard]] std::vector<uint32_t> greedy(const std::vector<uint32_t>& prompt, uint32_t count);

 private:
  RecorderOptions recorder_;
  std::shared_ptr<const model::Checkpoint> checkpoint_;
  std::unique_ptr<model::Model> model_;
  std::unique_ptr<runtime::KvCache> cache_;
  std::unique_ptr<runtime::PagePool> pages_;
  std::unique_ptr<runtime::Evaluator> evaluator_;
};

// Options for texts of at most `context` tokens, prefilled in chunks of `chunk`.
[[nodiscard]] TestModelOptions for_context(uint32_t context, uint32_t chunk);

}  // namespace hadal::test
