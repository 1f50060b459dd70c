// top_logprobs against its reference: the ids exactly, the log-probabilities within a derived
// bound, the same bits whoever shares the batch.
#include "hadal/top_logprobs.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>

#include "hadal/reference/top_logprobs.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

struct Output {
  std::vector<float> logprobs;      // [listed]
  std::vector<uint32_t> top_ids;    // [listed, top]
  std::vector<float> top_logprobs;  // [listed, top]
};

Output run(TopLogprobsShape shape, const std::vector<float>& logits,
           const std::vector<uint32_t>& ids, const std::vector<uint32_t>& listed = {},
           uint32_t workgroup_size = 0) {
  GpuCase gpu(*device());
  if (!listed.empty()) shape.listed = uint32_t(listed.size());
  GuardedBuffer& x = gpu.input_rows(logits, shape.vocab, shape.logits_stride);
  GuardedBuffer& chosen = gpu.input(ids);
  GuardedBuffer& list = gpu.input(listed);
  GuardedBuffer& logprobs = gpu.output(uint64_t{shape.listed} * 4);
  GuardedBuffer& top_ids = gpu.output(uint64_t{shape.listed} * shape.top * 4);
  GuardedBuffer& top_logprobs = gpu.output(uint64_t{shape.listed} * shape.top * 4);
  TopLogprobsConfig config = top_logprobs_choose(shape, device()->caps());
  if (workgroup_size) config.workgroup_size = workgroup_size;
  Result<TopLogprobs> kernel = TopLogprobs::create(*device(), config);
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) {
    return kernel->record(recorder, shape,
                          {x.address(), listed.empty() ? 0 : list.address(), chosen.address(),
                           logprobs.address(), top_ids.address(), top_logprobs.address()});
  });
  return {gpu.values<float>(logprobs), gpu.values<uint32_t>(top_ids),
          gpu.values<float>(top_logprobs)};
}

void expect_matches(const TopLogprobsShape& s, const std::vector<float>& logits,
                    const std::vector<uint32_t>& ids, const std::vector<uint32_t>& listed = {}) {
  const Output got = run(s, logits, ids, listed);
  const size_t count = listed.empty() ? s.rows : listed.size();
  ASSERT_EQ(got.logprobs.size(), count);
  std::vector<double> want, want_top, bounds, top_bounds;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t r = listed.empty() ? uint32_t(i) : listed[i];
    const auto row =
        reference::logprobs(std::span(logits).subspan(size_t{r} * s.vocab, s.vocab), s.top);
    double mass_error = 0.0;
    for (double z : row.distances) mass_error += logprob_weight_error(z);
    const auto bound = [&](uint32_t id) {
      const double z = row.distances[id];
      return std::isinf(z) ? 0.0 : logprob_bound(z, row.mass, mass_error);
    };
    want.push_back(ids[r] < s.vocab ? row.logprobs[ids[r]] : NAN);
    bounds.push_back(ids[r] < s.vocab ? bound(ids[r]) : 0.0);
    for (uint32_t n = 0; n < s.top; ++n) {
      ASSERT_EQ(got.top_ids[i * s.top + n], row.top_ids[n]) << "row " << r << ", rank " << n;
      want_top.push_back(row.logprobs[row.top_ids[n]]);
      top_bounds.push_back(bound(row.top_ids[n]));
    }
  }
  EXPECT_TRUE(matches("chosen", got.logprobs, want, 1, [&](size_t i) { return bounds[i]; }));
  EXPECT_TRUE(matches("top", got.top_logprobs, want_top, std::max(s.top, 1u),
                      [&](size_t i) { return top_bounds[i]; }));
}

std::vector<uint32_t> some_ids(Random& random, uint32_t rows, uint32_t vocab) {
  std::vector<uint32_t> ids;
  for (uint32_t r = 0; r < rows; ++r) ids.push_back(random.below(vocab));
  return ids;
}

class TopLogprobsGpu : public GpuTest {};

TEST_F(TopLogprobsGpu, MatchesTheReferenceOnRaggedSizes) {
  Random random(1);
  for (auto [rows, vocab, padding, top] : {std::array{40u, 97u, 0u, 20u},
                                           {3u, 1u, 4u, 1u},
                                           {9u, 2u, 1u, 2u},
                                           {20u, 20u, 1u, 20u},
                                           {30u, 1021u, 3u, 5u},
                                           {8u, 1025u, 0u, 7u},
                                           {6u, 4099u, 0u, 20u},
                                           {17u, 512u, 0u, 0u}}) {
    TopLogprobsShape s = TopLogprobsShape::packed(rows, vocab, top);
    s.logits_stride += padding;
    expect_matches(s, random.normals(size_t{rows} * vocab, 3.0f), some_ids(random, rows, vocab));
  }
}

TEST_F(TopLogprobsGpu, MatchesTheReferenceOnTheModelsVocabulary) {
  Random random(2);
  for (float scale : {0.01f, 2.5f, 30.0f}) {
    expect_matches(TopLogprobsShape::packed(2, 129280, 20),
                   random.normals(size_t{2} * 129280, scale), some_ids(random, 2, 129280));
  }
}

TEST_F(TopLogprobsGpu, ListedRowsInAnyOrder) {
  Random random(3);
  const std::vector<float> logits = random.normals(size_t{8} * 301, 2.0f);
  expect_matches(TopLogprobsShape::packed(8, 301, 4), logits, some_ids(random, 8, 301),
                 {6, 0, 7, 3, 3});
  // A row that does not exist writes nothing.
  const Output got = run(TopLogprobsShape::packed(8, 301, 4), logits, some_ids(random, 8, 301),
                         {1, 8, 0xffffffffu});
  for (size_t i = 1; i < 3; ++i) EXPECT_EQ(std::bit_cast<uint32_t>(got.logprobs[i]), 0xffffffffu);
  for (size_t i = 4; i < 12; ++i) EXPECT_EQ(got.top_ids[i], 0xffffffffu);
}

// Few different values: nearly every order is by id.
TEST_F(TopLogprobsGpu, TiesGoToTheLowestIds) {
  Random random(4);
  for (uint32_t vocab : {50u, 1500u, 5003u}) {
    std::vector<float> logits;
    for (size_t i = 0; i < size_t{20} * vocab; ++i) logits.push_back(float(random.below(3)));
    expect_matches(TopLogprobsShape::packed(20, vocab, 20), logits, some_ids(random, 20, vocab));
  }
}

TEST_F(TopLogprobsGpu, HostileLogitsAndIdsAreDefined) {
  const float inf = INFINITY, nan = NAN;
  const std::vector<float> logits = {
      nan,   nan,    nan,  nan,  nan,   // nothing
      -inf,  nan,    -inf, -inf, nan,   // nothing
      nan,   1,      nan,  0.5f, -inf,  //
      0,     inf,    1,    inf,  -inf,  // two share it all
      -0.f,  0.f,    -1,   nan,  nan,   // -0 equals 0
      3e38f, -3e38f, 0,    1,    2,     // beyond what a difference holds
  };
  TopLogprobsShape s = TopLogprobsShape::packed(6, 5, 5);
  for (uint32_t id : {0u, 1u, 4u}) {
    const Output got = run(s, logits, std::vector<uint32_t>(6, id));
    EXPECT_EQ(got.logprobs[0], -inf);
    EXPECT_EQ(got.logprobs[1], -inf);
  }
  const Output got = run(s, logits, {5, 0xffffffffu, 1, 3, 0, 1});
  EXPECT_TRUE(std::isnan(got.logprobs[0]));
  EXPECT_TRUE(std::isnan(got.logprobs[1]));
  EXPECT_NEAR(got.logprobs[2], -std::log1p(std::exp(-0.5)), 1e-6);
  EXPECT_NEAR(got.logprobs[3], -std::log(2.0), 1e-6);
  EXPECT_NEAR(got.logprobs[4], -std::log(2.0 + std::exp(-1.0)), 1e-6);
  EXPECT_LT(got.logprobs[5], -3.3e38);
  const std::vector<uint32_t> order = {0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 1, 3, 0, 2, 4,
                                       1, 3, 2, 0, 4, 0, 1, 2, 3, 4, 0, 4, 3, 2, 1};
  EXPECT_EQ(got.top_ids, order);
  EXPECT_EQ(got.top_logprobs[3 * 5 + 2], -inf);
  EXPECT_EQ(got.top_logprobs[5 * 5], 0.0f);
}

TEST_F(TopLogprobsGpu, ARowHasTheSameBitsInEveryBatchTopAndWorkgroup) {
  Random random(6);
  const uint32_t rows = 12, vocab = 2111;
  const std::vector<float> logits = random.normals(size_t{rows} * vocab, 2.0f);
  const std::vector<uint32_t> ids = some_ids(random, rows, vocab);
  const Output all = run(TopLogprobsShape::packed(rows, vocab, 6), logits, ids);
  for (uint32_t workgroup : {32u, 128u, 256u}) {
    const Output other = run(TopLogprobsShape::packed(rows, vocab, 6), logits, ids, {}, workgroup);
    EXPECT_EQ(other.logprobs, all.logprobs) << workgroup;
    EXPECT_EQ(other.top_ids, all.top_ids) << workgroup;
    EXPECT_EQ(other.top_logprobs, all.top_logprobs) << workgroup;
  }
  EXPECT_EQ(run(TopLogprobsShape::packed(rows, vocab, 0), logits, ids).logprobs, all.logprobs);
  for (uint32_t r = 0; r < rows; r += 5) {
    const std::vector<float> row(logits.begin() + r * vocab, logits.begin() + (r + 1) * vocab);
    const Output one = run(TopLogprobsShape::packed(1, vocab, 3), row, {ids[r]});
    EXPECT_EQ(one.logprobs[0], all.logprobs[r]);
    for (uint32_t n = 0; n < 3; ++n) {
      EXPECT_EQ(one.top_logprobs[n], all.top_logprobs[r * 6 + n]);
    }
  }
}

TEST_F(TopLogprobsGpu, NoRowsAreDefined) {
  EXPECT_TRUE(run(TopLogprobsShape::packed(0, 5, 3), {}, {}).logprobs.empty());
}

TEST(TopLogprobsHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const auto refused = [&](const std::function<void(TopLogprobsShape&)>& change) {
    TopLogprobsShape shape = TopLogprobsShape::packed(4, 30, 5);
    change(shape);
    return top_logprobs_check(shape, caps).message();
  };
  EXPECT_EQ(refused([](auto&) {}), "");
  EXPECT_EQ(refused([](auto& s) { s.vocab = 0; }),
            "top_logprobs: vocab must be in 1..524288, got 0");
  EXPECT_EQ(refused([](auto& s) { s.vocab = 524289; }),
            "top_logprobs: vocab must be in 1..524288, got 524289");
  EXPECT_EQ(refused([](auto& s) { s.logits_stride = 29; }),
            "top_logprobs: logits_stride must be at least vocab, got 29 < 30");
  EXPECT_EQ(refused([](auto& s) { s.top = 21; }), "top_logprobs: top must be at most 20, got 21");
  EXPECT_EQ(refused([](auto& s) { s.vocab = 4; }),
            "top_logprobs: top must be at most vocab, got 5 > 4");
  EXPECT_EQ(refused([](auto& s) { s.listed = 5; }),
            "top_logprobs: listed must be at most rows, got 5 > 4");
  EXPECT_EQ(refused([](auto& s) { s.rows = s.listed = 65536; }),
            "top_logprobs: listed must be at most 65535, got 65536");
}

}  // namespace
}  // namespace hadal::test
