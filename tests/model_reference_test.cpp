// hadal::model::reference against the golden outputs of other implementations. Bars and their
// reasons: tests/golden/README.md.
#include "hadal/model/reference/model.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/golden.h"
#include "support/logits.h"
#if __has_include("hadal/model/tokenizer.h")
#include "hadal/model/tokenizer.h"
#endif

namespace hadal::test {
namespace {

using model::Checkpoint;
using model::ModelConfig;
using model::reference::AttentionForm;
using model::reference::ForwardResult;
using model::reference::Matrix;
using model::reference::ReferenceModel;
using model::reference::ReferenceOptions;

constexpr ReferenceOptions kUnabsorbed{.form = AttentionForm::kUnabsorbed};
constexpr ReferenceOptions kAbsorbed{.form = AttentionForm::kAbsorbed};

// The value, or an exception that GoogleTest reports with the message.
template <class T>
T require(Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().message());
  return std::move(result).value();
}

ReferenceModel open_model(const std::filesystem::path& dir) {
  const ModelConfig config = require(model::load_config(dir));
  auto checkpoint = std::make_shared<const Checkpoint>(require(Checkpoint::open(dir)));
  return require(ReferenceModel::create(std::move(checkpoint), config));
}

LogitsDistance report(const std::string& what, const std::vector<float>& want, const Matrix& got) {
  if (want.size() != got.data.size()) throw std::runtime_error(what + ": sizes differ");
  const LogitsDistance d = logits_distance(want, got.data, got.columns);
  fmt::print("{:<44} rel L2 {:.3e}  mean KL {:.3e}  max KL {:.3e}  top-1 {:.3f}\n", what,
             d.relative_l2, d.mean_kl, d.max_kl, d.top1);
  return d;
}

class GoldenHost : public ::testing::TestWithParam<const char*> {};

// No activation is quantised, so nothing but float rounding may differ, in either form.
class ModelReferenceHostBf16 : public GoldenHost {};

TEST_P(ModelReferenceHostBf16, LogitsAgree) {
  const Golden golden = load_golden(GetParam());
  const ReferenceModel reference = open_model(golden.model_dir);
  for (const auto& [form, name] : {std::pair(kUnabsorbed, "unabsorbed"), {kAbsorbed, "absorbed"}}) {
    const ForwardResult ours = require(reference.forward(golden.ids, form));
    EXPECT_LE(report(fmt::format("{} {}", golden.name, name), golden.hf, ours.logits).relative_l2,
              1e-4);
    if (golden.mtp_fp8.empty()) continue;
    const Matrix mtp = require(reference.mtp_logits(golden.ids, ours.hidden, form));
    EXPECT_LE(report(fmt::format("{} {} MTP", golden.name, name), golden.mtp_fp8, mtp).relative_l2,
              1e-4);
  }
}

TEST_P(ModelReferenceHostBf16, GreedyContinuationIsEqual) {
  const Golden golden = load_golden(GetParam());
  const ReferenceModel reference = open_model(golden.model_dir);
  std::vector<uint32_t> ids = golden.ids, continuation;
  while (continuation.size() < golden.greedy_hf.size()) {
    const ForwardResult ours = require(reference.forward(ids));
    continuation.push_back(argmax(ours.logits.row(ours.logits.rows - 1)));
    ids.push_back(continuation.back());
  }
  EXPECT_EQ(continuation, golden.greedy_hf);
}

INSTANTIATE_TEST_SUITE_P(Goldens, ModelReferenceHostBf16,
                         ::testing::Values("v3_bf16", "moonlight_bf16", "v2lite_bf16"),
                         [](const auto& golden) { return std::string(golden.param); });

class ModelReferenceHostFp8 : public GoldenHost {};

// With the activations left alone, both forms are the same function as the golden's: this is what
// proves scales, blocks and absorption; no rounding can hide an error here.
TEST_P(ModelReferenceHostFp8, LogitsAgreeWithoutQuantisedActivations) {
  const Golden golden = load_golden(GetParam());
  const ReferenceModel reference = open_model(golden.model_dir);
  for (auto [options, name] : {std::pair(kUnabsorbed, "unabsorbed"), {kAbsorbed, "absorbed"}}) {
    options.quantise_activations = false;
    const ForwardResult ours = require(reference.forward(golden.ids, options));
    const std::string what = fmt::format("{} {} unquantised", golden.name, name);
    EXPECT_LE(report(what, golden.hf, ours.logits).relative_l2, 1e-4);
  }
}

TEST_P(ModelReferenceHostFp8, LogitsAreClose) {
  const Golden golden = load_golden(GetParam());
  const ReferenceModel reference = open_model(golden.model_dir);
  const bool fables = golden.name.starts_with("fables");
  for (const auto& [options, name] :
       {std::pair(kUnabsorbed, "unabsorbed"), {kAbsorbed, "absorbed"}}) {
    const ForwardResult ours = require(reference.forward(golden.ids, options));
    const auto main = report(fmt::format("{} {}", golden.name, name), golden.fp8, ours.logits);
    const Matrix mtp_logits = require(reference.mtp_logits(golden.ids, ours.hidden, options));
    const auto mtp =
        report(fmt::format("{} {} MTP", golden.name, name), golden.mtp_fp8, mtp_logits);
    for (const LogitsDistance& d : {main, mtp}) {
      EXPECT_LE(d.mean_kl, 5e-3);
      EXPECT_GE(d.top1, fables ? 0.9 : 0.85);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, ModelReferenceHostFp8,
                         ::testing::Values("v3_fp8_ragged", "v31_ue8m0", "fables_king",
                                           "fables_forest", "fables_fox"),
                         [](const auto& golden) { return std::string(golden.param); });

// The golden figure: the share of tokens i + 2 of fables_king and its greedy continuation that the
// MTP module names from the tokens to i + 1.
TEST(ModelReferenceHost, MtpDraftsAreAccepted) {
  const Golden golden = load_golden("fables_king");
  const ReferenceModel reference = open_model(golden.model_dir);
  std::vector<uint32_t> ids = golden.ids;
  ids.insert(ids.end(), golden.greedy_fp8.begin(), golden.greedy_fp8.end());
  const double want = load_held_out().mtp_greedy_acceptance;
  for (const auto& [options, name] :
       {std::pair(kUnabsorbed, "unabsorbed"), {kAbsorbed, "absorbed"}}) {
    const ForwardResult ours = require(reference.forward(ids, options));
    const Matrix drafts = require(reference.mtp_logits(ids, ours.hidden, options));
    double accepted = 0;
    for (uint32_t i = 0; i + 2 < ids.size(); ++i) accepted += argmax(drafts.row(i)) == ids[i + 2];
    accepted /= double(ids.size() - 2);
    fmt::print("MTP acceptance {}: {:.4f}, golden {:.4f}\n", name, accepted, want);
    EXPECT_NEAR(accepted, want, 0.03);
  }
}

// A sequence in two chunks, the second over the cache of the first, is the sequence.
TEST(ModelReferenceHost, AttentionContinuesOverTheCache) {
  const Golden golden = load_golden("v3_fp8_ragged");
  const ReferenceModel reference = open_model(golden.model_dir);
  const Matrix x = require(reference.embed(golden.ids));
  const uint32_t split = 17;
  Matrix head(split, x.columns), tail(x.rows - split, x.columns);
  const auto middle = x.data.begin() + std::ptrdiff_t(head.data.size());
  std::copy(x.data.begin(), middle, head.data.begin());
  std::copy(middle, x.data.end(), tail.data.begin());
  for (ReferenceOptions options : {kUnabsorbed, kAbsorbed}) {
    options.quantise_activations = false;  // or a last bit could move an e4m3 code
    const auto whole = require(reference.attention_block(1, x, options));
    const auto first = require(reference.attention_block(1, head, options));
    const auto second =
        require(reference.attention_block(1, tail, options, split, first.cache_rows));
    std::vector<float> joined = first.result.data;
    joined.insert(joined.end(), second.result.data.begin(), second.result.data.end());
    // Not ==: Eigen sums in an order that depends on the number of rows.
    EXPECT_LE(relative_l2(whole.result.data, joined), 1e-6);
  }
}

TEST(ModelReferenceHost, CacheRowsCanBeBfloat16) {
  const Golden golden = load_golden("v3_bf16");
  const ReferenceModel reference = open_model(golden.model_dir);
  const Matrix x = require(reference.embed(golden.ids));
  const auto exact = require(reference.attention_block(0, x));
  const auto rounded =
      require(reference.attention_block(0, x, {.cache_format = CacheFormat::kBf16}));
  for (size_t i = 0; i < exact.cache_rows.data.size(); ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(rounded.cache_rows.data[i]);
    ASSERT_EQ(bits & 0xffffu, 0u) << i;
    ASSERT_NEAR(rounded.cache_rows.data[i], exact.cache_rows.data[i],
                std::fabs(exact.cache_rows.data[i]) * 0x1p-8)
        << i;
  }
}

// In an FP8 model latents are rounded anyway: the keys alone are coarser. In a BF16 model each
// latent is a code times its group's scale, hence within 1/16 of itself and 1/1024 of that scale.
TEST(ModelReferenceHost, CacheRowsCanBeFp8) {
  for (const char* name : {"v3_bf16", "fables_king"}) {
    const Golden golden = load_golden(name);
    const ReferenceModel reference = open_model(golden.model_dir);
    const uint32_t rank = reference.config().kv_lora_rank;
    const Matrix x = require(reference.embed(golden.ids));
    const auto exact = require(reference.attention_block(0, x)).cache_rows;
    const auto rounded =
        require(reference.attention_block(0, x, {.cache_format = CacheFormat::kFp8})).cache_rows;
    for (uint32_t r = 0; r < exact.rows; ++r) {
      for (uint32_t c = 0; c < exact.columns; ++c) {
        const float value = exact.row(r)[c], stored = rounded.row(r)[c];
        if (c >= rank) {
          ASSERT_EQ(std::bit_cast<uint32_t>(stored) & 0xffffu, 0u) << r << ' ' << c;
          ASSERT_NEAR(stored, value, std::fabs(value) * 0x1p-8) << r << ' ' << c;
        } else if (reference.config().is_fp8()) {
          ASSERT_EQ(stored, value) << r << ' ' << c;
        } else {
          float amax = 1e-4f;
          for (uint32_t i = c / 128 * 128; i < std::min(c / 128 * 128 + 128, rank); ++i) {
            amax = std::max(amax, std::fabs(exact.row(r)[i]));
          }
          ASSERT_LE(std::fabs(stored - value),
                    (std::fabs(value) * 0x1p-4f + amax / 448 * 0x1p-10f) * 1.001f)
              << r << ' ' << c;
        }
      }
    }
  }
}

TEST(ModelReferenceHost, RefusesWhatItCannotRun) {
  const Golden golden = load_golden("moonlight_bf16");
  const ReferenceModel reference = open_model(golden.model_dir);
  const auto message = [](const auto& result) { return result.status().message(); };
  EXPECT_EQ(message(reference.embed(std::vector<uint32_t>{1, 320})),
            "model reference: a token id must be less than 320, got 320");
  EXPECT_EQ(message(reference.mlp_block(2, Matrix(1, 144))),
            "model reference: layer must be less than 2, got 2");
  EXPECT_EQ(message(reference.mlp_block(0, Matrix(1, 143))),
            "model reference: columns of x must be 144, got 143");
  EXPECT_EQ(message(reference.attention_block(0, Matrix(1, 144), {}, 1, Matrix(1, 79))),
            "model reference: columns of past must be 80, got 79");
  EXPECT_EQ(message(reference.mtp_logits(golden.ids, Matrix(48, 144))),
            "model reference: the model must have an MTP layer, got none");
  EXPECT_EQ(message(ReferenceModel::create(nullptr, reference.config())),
            "model reference: checkpoint must be given, got nullptr");
}

#if __has_include("hadal/model/tokenizer.h")
// About half a minute a form.
TEST(ModelReferenceHost, SlowPerplexityOfHeldOutText) {
  const HeldOut held_out = load_held_out();
  const ReferenceModel reference = open_model(fables_dir());
  const auto tokenizer = require(model::Tokenizer::load(fables_dir()));
  const std::vector<uint32_t> ids = require(tokenizer.encode(held_out.text));
  ASSERT_GE(ids.size(), held_out.tokens);
  ReferenceOptions unquantised;
  unquantised.quantise_activations = false;
  const auto perplexity = [&](const ReferenceOptions& options) {
    double loss = 0.0;
    uint32_t scored = 0;
    for (uint32_t begin = 0; begin < held_out.tokens; begin += held_out.window) {
      const std::span window(ids.data() + begin, held_out.window);
      const Matrix logits = require(reference.forward(window, options)).logits;
      for (uint32_t i = 0; i + 1 < window.size(); ++i, ++scored) {
        loss += log_sum_exp(logits.row(i)) - double(logits.row(i)[window[i + 1]]);
      }
    }
    return std::exp(loss / scored);
  };
  const double exact = perplexity(unquantised), fp8 = perplexity(kUnabsorbed),
               absorbed = perplexity(kAbsorbed);
  fmt::print(
      "perplexity: unquantised {:.5f} (golden {:.5f}), FP8 {:.5f}, absorbed {:.5f} "
      "(golden {:.5f})\n",
      exact, held_out.perplexity_unquantised, fp8, absorbed, held_out.perplexity_fp8);
  EXPECT_NEAR(exact / held_out.perplexity_unquantised, 1.0, 1e-5);
  EXPECT_NEAR(fp8 / held_out.perplexity_fp8, 1.0, 3e-3);
  EXPECT_NEAR(absorbed / held_out.perplexity_fp8, 1.0, 3e-3);
}
#endif

}  // namespace
}  // namespace hadal::test
