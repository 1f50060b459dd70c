// sample against its reference: ids equal except where a decision was closer than the error of the
// weights; the distribution by chi-square; every degenerate parameter.
#include "hadal/sample.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "hadal/reference/sample.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/sample_margin.h"

namespace hadal::test {
namespace {

std::vector<uint32_t> run(const SampleShape& shape, const std::vector<float>& logits,
                          const std::vector<SampleParams>& params, uint32_t workgroup_size = 0) {
  GpuCase gpu(*device());
  GuardedBuffer& x = gpu.input_rows(logits, shape.vocab, shape.logits_stride);
  GuardedBuffer& p = gpu.input(params);
  GuardedBuffer& ids = gpu.output(uint64_t{shape.rows} * 4);
  SampleConfig config = sample_choose(shape, device()->caps());
  if (workgroup_size) config.workgroup_size = workgroup_size;
  Result<Sample> kernel = Sample::create(*device(), config);
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) {
    return kernel->record(recorder, shape, {x.address(), p.address(), ids.address()});
  });
  return gpu.values<uint32_t>(ids);
}

// Returns how many rows differ from the reference (each must have been too close to call).
uint32_t expect_ids(const SampleShape& shape, const std::vector<float>& logits,
                    const std::vector<SampleParams>& params) {
  const std::vector<uint32_t> ids = run(shape, logits, params);
  EXPECT_EQ(ids.size(), shape.rows);
  uint32_t differ = 0;
  for (uint32_t r = 0; r < shape.rows; ++r) {
    const auto row = reference::sample(&logits[size_t(r) * shape.vocab], shape.vocab, params[r]);
    EXPECT_LT(ids[r], shape.vocab);
    if (ids[r] == row.id) continue;
    ++differ;
    EXPECT_TRUE(too_close_to_call(row, params[r].min_p)) << fmt::format(
        "row {} of {}x{}: {} instead of {} (T {}, top_k {}, top_p {}, min_p {}; margins {:.3g} "
        "{:.3g} {:.3g}, error {:.3g})",
        r, shape.rows, shape.vocab, ids[r], row.id, params[r].temperature, params[r].top_k,
        params[r].top_p, params[r].min_p, row.draw_margin, row.top_p_margin, row.min_p_margin,
        sample_mass_error(row));
  }
  return differ;
}

SampleParams params_of(float temperature, uint32_t top_k, float top_p, float min_p, uint32_t seed) {
  SampleParams p;
  p.temperature = temperature, p.top_k = top_k, p.top_p = top_p, p.min_p = min_p;
  p.seed_lo = seed * 2654435761u, p.seed_hi = ~seed, p.position = seed % 7;
  return p;
}

// Rows with every combination of the rules.
std::vector<SampleParams> mixed_params(uint32_t rows, uint32_t seed) {
  const float temperatures[] = {0.0f, 0.7f, 1.0f, 1e-3f, 1e3f, 2.5f};
  const uint32_t top_ks[] = {0, 5, 1, 40, 2};
  const float top_ps[] = {1.0f, 0.9f, 0.3f, 1e-6f, 0.0f, 0.999f, 0.5f};
  const float min_ps[] = {0.0f, 0.05f, 0.0f, 1.0f};
  std::vector<SampleParams> params;
  Random random(seed);
  for (uint32_t r = 0; r < rows; ++r) {
    params.push_back(params_of(temperatures[random.below(6)], top_ks[random.below(5)],
                               top_ps[random.below(7)], min_ps[random.below(4)], seed * 1000 + r));
  }
  return params;
}

class SampleGpu : public GpuTest {};

TEST_F(SampleGpu, DrawsTheReferencesIdsOnRaggedSizes) {
  uint32_t seed = 1, differ = 0, rows = 0;
  for (auto [count, vocab, extra] : {std::array{200u, 97u, 0u},
                                     {3u, 1u, 4u},
                                     {64u, 2u, 1u},
                                     {200u, 1021u, 3u},
                                     {40u, 4096u, 0u}}) {
    SampleShape s = SampleShape::packed(count, vocab);
    s.logits_stride += extra;
    Random random(seed);
    differ += expect_ids(s, random.normals(size_t(count) * vocab, 3.0f), mixed_params(count, seed));
    rows += count;
    ++seed;
  }
  EXPECT_LE(differ * 50, rows);
}

TEST_F(SampleGpu, DrawsFromTheModelsVocabulary) {
  const SampleShape s = SampleShape::packed(3, 129280);
  Random random(3);
  expect_ids(s, random.normals(size_t{3} * 129280, 2.5f),
             {params_of(0.6f, 0, 0.95f, 0.0f, 1), params_of(1.0f, 50, 0.9f, 0.02f, 2),
              params_of(1e3f, 0, 1.0f, 0.0f, 3)});
}

TEST_F(SampleGpu, TiesGoToTheLowestIds) {
  const SampleShape s = SampleShape::packed(300, 200);
  std::vector<float> logits(size_t{300} * 200, 1.0f);
  std::vector<SampleParams> params;
  for (uint32_t r = 0; r < 300; ++r) {
    logits[size_t(r) * 200] = -1.0f;  // the two best are ids 3 and 5,
    logits[size_t(r) * 200 + 3] = logits[size_t(r) * 200 + 5] = 2.0f;  // then 1, 2, 4, 6, ...
    params.push_back(params_of(r % 3 == 0 ? 0.0f : 1.0f, r % 3 == 1 ? 4 : 0,
                               r % 3 == 2 ? 0.02f : 1.0f, 0.0f, r));
  }
  EXPECT_EQ(expect_ids(s, logits, params), 0u);
  const std::vector<uint32_t> ids = run(s, logits, params);
  for (uint32_t r = 0; r < 300; ++r) {
    if (r % 3 == 0) {
      EXPECT_EQ(ids[r], 3u);
    } else if (r % 3 == 1) {
      EXPECT_TRUE(ids[r] == 3 || ids[r] == 5 || ids[r] == 1 || ids[r] == 2) << ids[r];
    }
  }
}

TEST_F(SampleGpu, HostileLogitsAndParametersAreDefined) {
  const float inf = INFINITY;
  const std::vector<float> logits = {
      NAN,   NAN,    NAN,  NAN,  NAN,   // nothing
      -inf,  NAN,    -inf, -inf, NAN,   // nothing
      NAN,   1,      NAN,  0.5f, -inf,  // greedy among the rest
      0,     inf,    1,    NAN,  -inf,  // +infinity takes all
      -0.f,  0.f,    -1,   NAN,  NAN,   // -0 equals 0
      3e38f, -3e38f, 0,    1,    2,
  };
  for (float temperature : {0.0f, 1.0f, -1.0f, float(NAN), inf, 1e-42f, 3e38f}) {
    SampleParams p = params_of(temperature, 2, 0.9f, 0.1f, 5);
    const std::vector<uint32_t> ids =
        run(SampleShape::packed(6, 5), logits, std::vector<SampleParams>(6, p));
    EXPECT_EQ(ids[0], 0u);
    EXPECT_EQ(ids[1], 0u);
    EXPECT_TRUE(ids[2] == 1 || (temperature > 0 && ids[2] == 3));
    EXPECT_EQ(ids[3], 1u) << temperature;
    EXPECT_TRUE(ids[4] == 0 || (temperature > 0 && ids[4] == 1));
    EXPECT_TRUE(ids[5] == 0 || (temperature >= 3e38f && ids[5] == 4));
  }
  // Rules with NaN, negative or beyond-range values are off, or as strict as they can be.
  const SampleParams off = params_of(1.0f, 0, 1.0f, 0.0f, 9);
  const std::vector<float> flat(64, 0.5f);
  const uint32_t plain = run(SampleShape::packed(1, 64), flat, {off})[0];
  for (float odd : {float(NAN), -0.5f, 7.0f}) {
    SampleParams p = off;
    p.top_p = odd;
    EXPECT_EQ(run(SampleShape::packed(1, 64), flat, {p})[0], plain) << odd;
    p = off, p.min_p = odd, p.top_k = 1000;
    EXPECT_EQ(run(SampleShape::packed(1, 64), flat, {p})[0], plain) << odd;
  }
}

TEST_F(SampleGpu, DegenerateRulesAreGreedy) {
  Random random(21);
  const SampleShape s = SampleShape::packed(50, 331);
  const std::vector<float> logits = random.normals(size_t{50} * 331);
  const std::vector<uint32_t> greedy = run(s, logits, std::vector<SampleParams>(50));
  const auto with = [&](float temperature, uint32_t top_k, float top_p, float min_p) {
    return run(s, logits,
               std::vector<SampleParams>(50, params_of(temperature, top_k, top_p, min_p, 77)));
  };
  EXPECT_EQ(with(1.0f, 1, 1.0f, 0.0f), greedy);
  EXPECT_EQ(with(1.0f, 0, 1e-7f, 0.0f), greedy);
  EXPECT_EQ(with(1.0f, 0, 0.0f, 0.0f), greedy);
  EXPECT_EQ(with(1.0f, 0, 1.0f, 1.0f), greedy);
}

// House rule 8, and sums that are exact: the same ids alone, and for any workgroup.
TEST_F(SampleGpu, ARowHasTheSameIdInEveryBatchAndWorkgroup) {
  Random random(31);
  const SampleShape s = SampleShape::packed(30, 517);
  const std::vector<float> logits = random.normals(size_t{30} * 517, 2.0f);
  const std::vector<SampleParams> params = mixed_params(30, 8);
  const std::vector<uint32_t> all = run(s, logits, params);
  EXPECT_EQ(run(s, logits, params, 256), all);
  for (uint32_t r = 0; r < 30; r += 7) {
    const std::vector<float> row(logits.begin() + r * 517, logits.begin() + (r + 1) * 517);
    EXPECT_EQ(run(SampleShape::packed(1, 517), row, {params[r]})[0], all[r]);
  }
}

// 20,000 draws, and 4,000 with every rule; 0.999 quantile of chi-square (Wilson-Hilferty). Philox
// is fixed, so this cannot flicker.
TEST_F(SampleGpu, DrawsFollowTheDistribution) {
  constexpr uint32_t kMostRows = 20000, kVocab = 23;
  Random random(41);
  const std::vector<float> row = random.normals(kVocab, 1.5f);
  std::vector<float> logits;
  for (uint32_t r = 0; r < kMostRows; ++r) logits.insert(logits.end(), row.begin(), row.end());
  for (SampleParams p : {params_of(1.0f, 0, 1.0f, 0.0f, 3), params_of(1.7f, 12, 0.9f, 0.05f, 4)}) {
    const uint32_t rows = p.top_k ? 4000 : kMostRows;
    logits.resize(size_t{rows} * kVocab);
    std::vector<SampleParams> params(rows, p);
    for (uint32_t r = 0; r < rows; ++r) params[r].position = r;
    const std::vector<uint32_t> ids = run(SampleShape::packed(rows, kVocab), logits, params);
    const auto reference = reference::sample(row.data(), kVocab, p);
    std::vector<double> counts(kVocab);
    for (uint32_t id : ids) counts.at(id) += 1.0;
    double chi2 = 0.0;
    int degrees = -1;
    for (uint32_t id = 0; id < kVocab; ++id) {
      const double expected = reference.probabilities[id] * rows;
      if (expected == 0.0) {
        EXPECT_EQ(counts[id], 0.0) << "a token that was cut was drawn: " << id;
        continue;
      }
      chi2 += (counts[id] - expected) * (counts[id] - expected) / expected;
      ++degrees;
    }
    const double h = 2.0 / (9.0 * degrees);
    const double limit = degrees * std::pow(1.0 - h + 3.09 * std::sqrt(h), 3.0);
    EXPECT_LT(chi2, limit) << degrees << " degrees of freedom";
    fmt::print("  sample: chi-square {:.1f}, limit {:.1f} ({} degrees)\n", chi2, limit, degrees);
  }
}

TEST_F(SampleGpu, NoRowsAreDefined) {
  EXPECT_TRUE(run(SampleShape::packed(0, 5), {}, {}).empty());
}

// Known answers of the authors' Random123 library.
TEST(SampleHost, PhiloxGivesTheKnownAnswers) {
  using Words = std::array<uint32_t, 4>;
  constexpr uint32_t kOnes = 0xffffffffu;
  EXPECT_EQ(reference::philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  EXPECT_EQ(reference::philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (Words{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  EXPECT_EQ(reference::philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u},
                                  {0xa4093822u, 0x299f31d0u}),
            (Words{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

TEST(SampleHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const auto refused = [&](const std::function<void(SampleShape&)>& change) {
    SampleShape shape = SampleShape::packed(4, 20);
    change(shape);
    return sample_check(shape, caps).message();
  };
  EXPECT_EQ(refused([](auto&) {}), "");
  EXPECT_EQ(refused([](auto& s) { s.rows = 65536; }),
            "sample: rows must be at most 65535, got 65536");
  EXPECT_EQ(refused([](auto& s) { s.vocab = 0; }), "sample: vocab must be in 1..524288, got 0");
  EXPECT_EQ(refused([](auto& s) { s.vocab = 524289; }),
            "sample: vocab must be in 1..524288, got 524289");
  EXPECT_EQ(refused([](auto& s) { s.logits_stride = 19; }),
            "sample: logits_stride must be at least vocab, got 19 < 20");
}

}  // namespace
}  // namespace hadal::test
