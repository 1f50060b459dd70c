// The sampler and what a request asks of it, against penalties and biases counted and computed on
// the host: independent of hadal's own reference of logit_adjust and of its history.
#include "hadal/runtime/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>
#include <stdexcept>

#include "hadal/reference/sample.h"
#include "hadal/reference/top_logprobs.h"
#include "hadal/runtime/request_sampling.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/sample_margin.h"

namespace hadal::test {
namespace {

constexpr uint32_t kVocab = 211;

// A request in the middle of its generation, and what is drawn next: behind its last draft.
struct Case {
  runtime::SamplingOptions options;
  std::vector<uint32_t> prompt, generated, drafts;
  std::optional<uint32_t> logprobs;
  std::set<uint32_t> forbidden;
  [[nodiscard]] std::vector<uint32_t> ids() const {
    std::vector<uint32_t> all = prompt;
    all.insert(all.end(), generated.begin(), generated.end());
    return all;
  }
  [[nodiscard]] uint32_t position() const {
    return uint32_t(prompt.size() + generated.size() + drafts.size()) - 1;
  }
  [[nodiscard]] runtime::TokenMask mask() const {
    if (forbidden.empty()) return {};
    return [this](std::span<const uint32_t> tokens, std::span<uint32_t> bits) {
      EXPECT_EQ(tokens.size(), generated.size() + drafts.size());
      for (uint32_t id = 0; id < kVocab; ++id) {
        if (!forbidden.count(id)) bits[id / 32] |= 1u << id % 32;
      }
      return true;
    };
  }
};

// Multiples of 1/8, so that each step of the adjustment is exact.
float dyadic(Random& random, int range) {
  return float(int(random.below(uint32_t(16 * range + 1))) - 8 * range) / 8.0f;
}

Case random_case(Random& random) {
  Case c;
  auto& o = c.options;
  if (random.below(3)) o.temperature = random.uniform(0.3f, 1.5f), o.seed = random.bits();
  if (random.below(2)) o.top_p = random.uniform(0.5f, 1.0f);
  if (random.below(3) == 0) o.top_k = 1 + random.below(30);
  if (random.below(3) == 0) o.min_p = 0.02f;
  if (random.below(2)) o.repetition_penalty = random.below(2) ? 2.0f : 0.5f;
  if (random.below(2)) o.presence_penalty = dyadic(random, 2);
  if (random.below(2)) o.frequency_penalty = dyadic(random, 2);
  if (random.below(2)) {
    for (uint32_t id = random.below(20); id < kVocab; id += 1 + random.below(60)) {
      o.logit_bias.push_back({id, dyadic(random, 12)});
    }
  }
  const auto tokens = [&](uint32_t most) {
    std::vector<uint32_t> ids;
    for (uint32_t n = random.below(most + 1); n > 0; --n) ids.push_back(random.below(40));
    return ids;
  };
  c.prompt = tokens(30), c.generated = tokens(30), c.drafts = tokens(3);
  c.prompt.push_back(5);
  if (random.below(2)) c.logprobs = random.below(21);
  if (random.below(3) == 0) {
    for (uint32_t id = 0; id < kVocab; ++id) {
      const bool draft = std::count(c.drafts.begin(), c.drafts.end(), id) > 0;
      if (random.below(2) && id != 100 && !draft) c.forbidden.insert(id);
    }
  }
  return c;
}

// The definition: what the logits of a case are before it is drawn.
std::vector<float> adjusted(const Case& c, std::vector<float> logits) {
  const auto count = [](const std::vector<uint32_t>& ids, uint32_t id) {
    return float(std::count(ids.begin(), ids.end(), id));
  };
  for (uint32_t id = 0; id < kVocab; ++id) {
    float& l = logits[id];
    const float since = count(c.generated, id) + count(c.drafts, id);
    const float penalty = c.options.repetition_penalty;
    if (count(c.prompt, id) + since > 0) l = l > 0 ? l / penalty : l * penalty;
    l -= c.options.frequency_penalty * since + (since > 0 ? c.options.presence_penalty : 0.0f);
    for (const auto& bias : c.options.logit_bias) l += bias.id == id ? bias.value : 0.0f;
    if (c.forbidden.count(id)) l = -INFINITY;
  }
  return logits;
}

struct Drawn {
  std::vector<uint32_t> ids;
  std::vector<std::optional<runtime::TokenLogprobs>> logprobs;
};

Drawn draw(runtime::Sampler& sampler, const std::vector<Case>& cases,
           const std::vector<float>& logits) {
  const uint32_t rows = uint32_t(cases.size());
  std::vector<runtime::RequestSampling> requests;
  for (uint32_t r = 0; r < rows; ++r) {
    const Case& c = cases[r];
    runtime::RequestSampling& request =
        requests.emplace_back(c.options, c.logprobs, c.mask(), c.prompt, kVocab);
    EXPECT_TRUE(request.set_row(sampler, r, c.ids(), c.drafts, c.position()).ok());
  }
  auto buffer = device()->allocate(logits.size() * 4, MemoryKind::kUpload);
  EXPECT_TRUE(buffer.ok());
  std::memcpy(buffer->mapped().data(), logits.data(), logits.size() * 4);
  RecorderOptions checks;
  checks.check_hazards = true;
  auto recorder = Recorder::create(*device(), checks);
  EXPECT_TRUE(recorder.ok());
  EXPECT_TRUE(sampler.prepare(rows).ok());
  EXPECT_TRUE(sampler.record(*recorder, buffer->address(), rows).ok());
  EXPECT_TRUE(recorder->end().ok());
  EXPECT_TRUE(device()->run(*recorder).ok());
  Drawn drawn;
  for (uint32_t r = 0; r < rows; ++r) {
    drawn.ids.push_back(sampler.id(r));
    drawn.logprobs.push_back(requests[r].logprobs(sampler, r));
  }
  return drawn;
}

void expect_logprobs(const runtime::TokenLogprobs& got, uint32_t id, uint32_t top,
                     std::span<const float> logits) {
  const auto want = reference::logprobs(logits, top);
  double mass_error = 0.0;
  for (double z : want.distances) mass_error += logprob_weight_error(z);
  const auto near = [&](float value, uint32_t token) {
    EXPECT_NEAR(value, want.logprobs[token],
                logprob_bound(want.distances[token], want.mass, mass_error));
  };
  near(got.chosen, id);
  ASSERT_EQ(got.top.size(), top);
  for (uint32_t n = 0; n < top; ++n) {
    EXPECT_EQ(got.top[n].id, want.top_ids[n]);
    near(got.top[n].logprob, got.top[n].id);
    if (got.top[n].id == id) {
      EXPECT_EQ(got.top[n].logprob, got.chosen);
    }
  }
}

class SamplerGpu : public GpuTest {};

TEST_F(SamplerGpu, DrawsAndReportsWhatTheDefinitionSays) {
  Random random(1);
  auto sampler = runtime::Sampler::create(*device(), 24, kVocab);
  ASSERT_TRUE(sampler.ok());
  uint32_t differ = 0, all = 0;
  for (int round = 0; round < 12; ++round) {
    std::vector<Case> cases;
    std::vector<float> logits;
    for (uint32_t r = 0; r < 1 + random.below(24); ++r) {
      cases.push_back(random_case(random));
      for (uint32_t id = 0; id < kVocab; ++id) logits.push_back(dyadic(random, 6));
    }
    const Drawn drawn = draw(*sampler, cases, logits);
    for (uint32_t r = 0; r < cases.size(); ++r, ++all) {
      const Case& c = cases[r];
      const std::vector<float> raw(logits.begin() + r * kVocab, logits.begin() + (r + 1) * kVocab);
      SampleParams params;
      params.temperature = c.options.temperature, params.top_k = c.options.top_k;
      params.top_p = c.options.top_p, params.min_p = c.options.min_p;
      params.seed_lo = uint32_t(c.options.seed), params.position = c.position() + 1;
      const auto want = reference::sample(adjusted(c, raw).data(), kVocab, params);
      EXPECT_FALSE(c.forbidden.count(drawn.ids[r]));
      if (drawn.ids[r] != want.id) {
        ++differ;
        EXPECT_TRUE(too_close_to_call(want, params.min_p)) << "row " << r << " of round " << round;
      }
      ASSERT_EQ(drawn.logprobs[r].has_value(), c.logprobs.has_value());
      if (c.logprobs) expect_logprobs(*drawn.logprobs[r], drawn.ids[r], *c.logprobs, raw);
    }
  }
  EXPECT_LE(differ * 50, all);
}

TEST_F(SamplerGpu, ARowIsTheSameAloneAndAmongOthers) {
  Random random(2);
  auto sampler = runtime::Sampler::create(*device(), 24, kVocab);
  ASSERT_TRUE(sampler.ok());
  std::vector<Case> cases;
  for (int r = 0; r < 24; ++r) cases.push_back(random_case(random));
  const std::vector<float> logits = random.normals(size_t{24} * kVocab, 3.0f);
  const Drawn all = draw(*sampler, cases, logits);
  for (uint32_t r = 0; r < 24; ++r) {
    const std::vector<float> row(logits.begin() + r * kVocab, logits.begin() + (r + 1) * kVocab);
    const Drawn one = draw(*sampler, {cases[r]}, row);
    EXPECT_EQ(one.ids[0], all.ids[r]) << r;
    EXPECT_EQ(one.logprobs[0], all.logprobs[r]) << r;
  }
}

// A step's rows in order: each row's history ends with its own token, and what later rows or
// earlier steps counted is forgotten.
TEST_F(SamplerGpu, DraftsAndReplaysSeeTheirOwnPast) {
  auto sampler = runtime::Sampler::create(*device(), 4, kVocab);
  ASSERT_TRUE(sampler.ok());
  std::vector<std::vector<uint32_t>> asked;
  const runtime::TokenMask mask = [&](std::span<const uint32_t> tokens, std::span<uint32_t> bits) {
    asked.emplace_back(tokens.begin(), tokens.end());
    bits[0] = 0xf0;  // 4 to 7
    return true;
  };
  const std::vector<uint32_t> prompt = {1, 2}, ids = {1, 2, 4, 5}, none;
  runtime::RequestSampling request({}, {}, mask, prompt, kVocab);
  const auto set = [&](uint32_t row, const std::vector<uint32_t>& known,
                       const std::vector<uint32_t>& drafts, uint32_t position) {
    EXPECT_TRUE(request.set_row(*sampler, row, known, drafts, position).ok());
  };
  set(0, ids, {6, 6, 9}, 3);
  set(1, ids, {6, 6, 9}, 4);
  set(2, ids, {6, 6, 9}, 5);
  set(3, ids, {6, 6, 9}, 6);         // the mask forbids 9: never asked
  set(0, {1, 2, 4, 5, 7}, none, 4);  // the first draft was wrong
  set(0, ids, none, 1);              // replayed
  set(1, ids, none, 2);
  const std::vector<std::vector<uint32_t>> expected = {{4, 5},    {4, 5, 6}, {4, 5, 6, 6},
                                                       {4, 5, 7}, {},        {4}};
  EXPECT_EQ(asked, expected);
}

TEST_F(SamplerGpu, MasksThatFailAreReported) {
  auto sampler = runtime::Sampler::create(*device(), 2, kVocab);
  ASSERT_TRUE(sampler.ok());
  const std::vector<uint32_t> prompt = {1};
  const auto message = [&](runtime::TokenMask mask) {
    runtime::RequestSampling request({}, {}, std::move(mask), prompt, kVocab);
    const Status status = request.set_row(*sampler, 0, prompt, {}, 0);
    // What stands behind a failed row is not asked.
    EXPECT_TRUE(request.set_row(*sampler, 1, prompt, prompt, 1).ok());
    return status.message();
  };
  const auto throws = [](auto&&, auto&&) -> bool { throw std::runtime_error("no rule"); };
  EXPECT_EQ(message(throws), "sampling: the mask must not throw, got \"no rule\"");
  EXPECT_EQ(message([](auto&&, auto&&) -> bool { throw 5; }),
            "sampling: the mask must not throw, got an unknown exception");
  EXPECT_EQ(message([](auto&&, auto&&) { return true; }),
            "sampling: the mask must allow a token, got none");
  EXPECT_EQ(message([](auto&&, std::span<uint32_t> bits) {
              bits.back() = ~0u << kVocab % 32;  // beyond the vocabulary
              return true;
            }),
            "sampling: the mask must allow a token, got none");
  EXPECT_EQ(message([](auto&&, auto&&) { return false; }), "");
}

TEST_F(SamplerGpu, RecordsOnlyWhatWasPreparedAndTellsRecordingsApart) {
  auto sampler = runtime::Sampler::create(*device(), 3, kVocab);
  ASSERT_TRUE(sampler.ok());
  auto logits = device()->allocate(3 * kVocab * 4, MemoryKind::kDevice);
  auto recorder = Recorder::create(*device());
  ASSERT_TRUE(logits.ok() && recorder.ok());
  const auto dispatches = [&](uint32_t rows) {
    EXPECT_TRUE(recorder->reset().ok());
    const Status status = sampler->record(*recorder, logits->address(), rows);
    EXPECT_TRUE(recorder->end().ok());
    if (!status.ok()) {
      EXPECT_EQ(status.message(), "sampler: rows must be prepared before they are recorded");
    }
    return status.ok() ? int(recorder->dispatch_count()) : -1;
  };
  const auto plain = [&] {
    for (uint32_t r = 0; r < 3; ++r) sampler->set_row(r, {}, 1);
  };
  plain();
  EXPECT_EQ(dispatches(3), 1);
  EXPECT_EQ(*sampler->prepare(3), 0u);
  const LogitEdit edit{3, 0, 0, 1.0f};
  sampler->adjust_row(1, {}, {&edit, 1}, {});
  EXPECT_EQ(dispatches(3), -1);
  const uint64_t adjusted = *sampler->prepare(3);
  EXPECT_NE(adjusted, 0u);
  EXPECT_EQ(dispatches(3), 2);
  EXPECT_EQ(dispatches(2), -1);
  sampler->want_logprobs(2, 4);
  const uint64_t both = *sampler->prepare(3);
  EXPECT_NE(both, adjusted);
  EXPECT_EQ(dispatches(3), 3);
  plain();
  EXPECT_EQ(dispatches(3), -1);
  sampler->adjust_row(0, {}, {&edit, 1}, {});
  EXPECT_EQ(*sampler->prepare(3), adjusted);
  const std::vector<LogitEdit> many(5000, edit);  // the buffer moves
  sampler->adjust_row(0, {}, many, {});
  EXPECT_NE(*sampler->prepare(3), adjusted);
  plain();
  EXPECT_EQ(*sampler->prepare(3), 0u);
  EXPECT_EQ(dispatches(3), 1);
}

}  // namespace
}  // namespace hadal::test
