// Loading a checkpoint: read ahead or not, cancelled at any moment.
#include <gtest/gtest.h>

#include "support/golden.h"
#include "support/gpu.h"
#include "support/test_model.h"

namespace hadal::test {
namespace {

class LoadGpu : public GpuTest {};

TEST_F(LoadGpu, ReadingAheadChangesNoBit) {
  const Golden golden = load_golden("fables_king");
  TestModelOptions options = for_context(64, 64);
  options.load.absorb_bf16 = true, options.load.zero_copy = false;
  TestModel plain(golden.model_dir, options);
  options.load.read_ahead_bytes = 2 << 20;
  TestModel ahead(golden.model_dir, options);
  ASSERT_TRUE(plain.ok() && ahead.ok());
  for (const auto form : {runtime::EvaluationForm::kPrefill, runtime::EvaluationForm::kDecode}) {
    EXPECT_EQ(plain.logits(golden.ids, form), ahead.logits(golden.ids, form));
  }
}

// Wherever it is cancelled nothing stays allocated, and the next load is a whole one.
TEST_F(LoadGpu, CancelledAnywhereLeavesNothingBehind) {
  const auto dir = fables_dir();
  const auto config = model::load_config(dir);
  const auto checkpoint = model::Checkpoint::open(dir);
  ASSERT_TRUE(config.ok() && checkpoint.ok());
  const uint64_t before = device()->allocated_bytes();
  model::LoadOptions options;
  options.read_ahead_bytes = 4 << 20;
  uint32_t calls = 0, cancel_at = UINT32_MAX;
  uint64_t last = 0, total = 0;
  options.progress = [&](uint64_t done, uint64_t all) {
    EXPECT_GE(done, last);
    EXPECT_LE(done, all);
    last = done, total = all;
    return ++calls < cancel_at;
  };
  {
    const auto weights = model::Weights::load(*device(), *checkpoint, *config, options);
    ASSERT_TRUE(weights.ok()) << weights.status().message();
    EXPECT_EQ(last, total);
    EXPECT_GT(device()->allocated_bytes(), before);
  }
  const uint32_t all_calls = calls;
  // Every call of the first and last layers, and some between.
  for (cancel_at = 1; cancel_at <= all_calls;
       cancel_at += cancel_at < 20 || cancel_at + 20 > all_calls ? 1 : 17) {
    calls = 0, last = 0;
    const auto weights = model::Weights::load(*device(), *checkpoint, *config, options);
    ASSERT_FALSE(weights.ok());
    ASSERT_EQ(weights.status().code(), Errc::kCancelled);
    ASSERT_EQ(weights.status().message(), "load: cancelled");
    ASSERT_EQ(calls, cancel_at);  // not asked again
    ASSERT_EQ(device()->allocated_bytes(), before);
  }
  calls = 0, last = 0, cancel_at = UINT32_MAX;
  EXPECT_TRUE(model::Weights::load(*device(), *checkpoint, *config, options).ok());
}

}  // namespace
}  // namespace hadal::test
