// hadal::model::reference against the golden outputs of other implementations. Bars and their
// reasons: tests/golden/README.md.
#include "hadal/model/reference/model.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "support/golden.h"
#include "support/logits.h"

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

TEST_P(ModelReferenceHostFp8, LogitsAreClose) {
  const Golden golden = load_golden(GetParam());
  const ReferenceModel reference = open_model(golden.model_dir);
  const double top1 = golden.name.starts_with("fables") ? 0.9 : 0.85;
  for (const auto& [form, name] : {std::pair(kUnabsorbed, "unabsorbed"), {kAbsorbed, "absorbed"}}) {
    const ForwardResult ours = require(reference.forward(golden.ids, form));
    const auto main = report(fmt::format("{} {}", golden.name, name), golden.fp8, ours.logits);
    EXPECT_LE(main.mean_kl, 5e-3);
    EXPECT_GE(main.top1, top1);
    const Matrix mtp_logits = require(reference.mtp_logits(golden.ids, ours.hidden, form));
    const auto mtp =
        report(fmt::format("{} {} MTP", golden.name, name), golden.mtp_fp8, mtp_logits);
    EXPECT_LE(mtp.mean_kl, 5e-3);
    EXPECT_GE(mtp.top1, top1);
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, ModelReferenceHostFp8,
                         ::testing::Values("v3_fp8_ragged", "v31_ue8m0", "fables_king",
                                           "fables_forest", "fables_fox"),
                         [](const auto& golden) { return std::string(golden.param); });

}  // namespace
}  // namespace hadal::test
