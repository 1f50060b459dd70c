// logit_adjust against its reference: bit equality where every step is exact, a derived bound
// elsewhere, and nothing but the edited and the masked tokens touched.
#include "hadal/logit_adjust.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <functional>

#include "hadal/reference/logit_adjust.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

struct Problem {
  LogitAdjustShape shape;
  std::vector<float> x;  // [rows, vocab]
  std::vector<LogitAdjustRow> listed;
  std::vector<LogitEdit> edits;
  std::vector<uint32_t> masks;  // [masks, words]
  [[nodiscard]] uint32_t words() const { return (shape.vocab + 31) / 32; }
  void finish() {
    shape.listed = uint32_t(listed.size()), shape.edits = uint32_t(edits.size());
    shape.masks = uint32_t(masks.size()) / words();
  }
};

std::vector<float> run(const Problem& p, uint32_t workgroup_size = 0) {
  GpuCase gpu(*device());
  const LogitAdjustShape& s = p.shape;
  GuardedBuffer& x = gpu.input_rows(p.x, s.vocab, s.x_stride);
  GuardedBuffer& listed = gpu.input(p.listed);
  GuardedBuffer& edits = gpu.input(p.edits);
  GuardedBuffer& masks = gpu.input(p.masks);
  GuardedBuffer& y =
      s.in_place ? x : gpu.output(s.rows ? 4ull * ((s.rows - 1) * s.y_stride + s.vocab) : 0);
  LogitAdjustConfig config = logit_adjust_choose(s, device()->caps());
  if (workgroup_size) config.workgroup_size = workgroup_size;
  Result<LogitAdjust> kernel = LogitAdjust::create(*device(), config);
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) {
    return kernel->record(
        recorder, s,
        {x.address(), y.address(), listed.address(), edits.address(), masks.address()});
  });
  return gpu.rows<float>(y, s.rows, s.vocab, s.y_stride);
}

reference::AdjustedLogits expected_row(const Problem& p, const LogitAdjustRow& row) {
  const size_t end = std::min<size_t>(row.edits_end, p.edits.size());
  const size_t begin = std::min<size_t>(row.edits_begin, end);
  std::span<const uint32_t> mask;
  if (row.mask < p.shape.masks) {
    mask = std::span(p.masks).subspan(size_t{row.mask} * p.words(), p.words());
  }
  return reference::logit_adjust(
      std::span(p.x).subspan(size_t{row.row} * p.shape.vocab, p.shape.vocab), row,
      std::span(p.edits).subspan(begin, end - begin), mask);
}

// Every row of `y`: the listed ones within the bound, or as exact, the others as they were (in
// place) or untouched (elsewhere).
void expect_matches(const Problem& p, const std::vector<float>& y, bool exact) {
  const uint32_t vocab = p.shape.vocab;
  std::vector<const LogitAdjustRow*> of_row(p.shape.rows, nullptr);
  for (const LogitAdjustRow& row : p.listed) {
    if (row.row < p.shape.rows) of_row[row.row] = &row;
  }
  for (uint32_t r = 0; r < p.shape.rows; ++r) {
    const auto got = std::span(y).subspan(size_t{r} * vocab, vocab);
    const auto x = std::span(p.x).subspan(size_t{r} * vocab, vocab);
    if (!of_row[r]) {
      for (uint32_t id = 0; id < vocab; ++id) {
        const uint32_t before = p.shape.in_place ? std::bit_cast<uint32_t>(x[id]) : 0xffffffffu;
        ASSERT_EQ(std::bit_cast<uint32_t>(got[id]), before) << r << ", " << id;
      }
      continue;
    }
    const reference::AdjustedLogits want = expected_row(p, *of_row[r]);
    ASSERT_TRUE(matches("row " + std::to_string(r), got, want.values, vocab, [&](size_t i) {
      return exact ? 0.0 : logit_adjust_bound(want.values[i], want.magnitudes[i]);
    }));
    for (uint32_t id = 0; id < vocab; ++id) {
      if (want.magnitudes[id] != 0.0 || got[id] == -INFINITY) continue;
      ASSERT_EQ(std::bit_cast<uint32_t>(got[id]), std::bit_cast<uint32_t>(x[id]))
          << r << ", " << id;
    }
  }
}

// Different ids in random order.
std::vector<uint32_t> some_ids(Random& random, uint32_t vocab, uint32_t count) {
  std::vector<uint32_t> ids(vocab);
  for (uint32_t i = 0; i < vocab; ++i) ids[i] = i;
  for (uint32_t i = 0; i < count; ++i) std::swap(ids[i], ids[i + random.below(vocab - i)]);
  ids.resize(count);
  return ids;
}

// About two of three rows listed, in descending order. `dyadic`: multiples of small powers of two,
// of which every step of ours is exact.
Problem random_problem(uint32_t seed, uint32_t rows, uint32_t vocab, uint32_t padding,
                       bool in_place, bool dyadic) {
  Random random(seed);
  const auto value = [&](float range) {
    return dyadic ? float(int(random.below(unsigned(16 * range))) - int(8 * range)) / 8.0f
                  : random.uniform(-range, range);
  };
  Problem p;
  p.shape = LogitAdjustShape::packed(rows, vocab);
  p.shape.x_stride += padding, p.shape.y_stride += in_place ? padding : padding + 3;
  p.shape.in_place = in_place;
  for (size_t i = 0; i < size_t{rows} * vocab; ++i) p.x.push_back(value(20.0f));
  const float dyadic_factors[] = {0.5f, 2.0f, 4.0f, 1.0f};
  for (uint32_t r = rows; r-- > 0;) {
    if (random.below(3) == 0) continue;
    LogitAdjustRow row;
    row.row = r;
    row.repetition = dyadic ? dyadic_factors[random.below(4)] : random.uniform(0.3f, 3.0f);
    if (random.below(4) == 0) row.repetition = 1.0f;
    row.inverse_repetition = 1.0f / row.repetition;
    if (random.below(3)) row.frequency = value(2.0f);
    if (random.below(3)) row.presence = value(2.0f);
    row.edits_begin = uint32_t(p.edits.size());
    for (uint32_t id : some_ids(random, vocab, random.below(3) ? random.below(vocab + 1) : 0)) {
      LogitEdit edit{id, random.below(2) * random.below(5), random.below(2) * random.below(9),
                     0.0f};
      if (random.below(2)) edit.bias = value(100.0f);
      p.edits.push_back(edit);
    }
    row.edits_end = uint32_t(p.edits.size());
    if (random.below(2)) {
      row.mask = uint32_t(p.masks.size()) / p.words();
      for (uint32_t w = 0; w < p.words(); ++w) p.masks.push_back(random.bits() & random.bits());
    }
    p.listed.push_back(row);
  }
  p.finish();
  return p;
}

class LogitAdjustGpu : public GpuTest {};

TEST_F(LogitAdjustGpu, ExactStepsGiveTheReferencesBits) {
  uint32_t seed = 1;
  for (bool in_place : {true, false}) {
    for (auto [rows, vocab, padding] : {std::array{9u, 97u, 0u},
                                        {5u, 1u, 2u},
                                        {4u, 33u, 1u},
                                        {12u, 1021u, 3u},
                                        {3u, 5000u, 0u}}) {
      const Problem p = random_problem(seed++, rows, vocab, padding, in_place, true);
      expect_matches(p, run(p), true);
    }
  }
}

TEST_F(LogitAdjustGpu, RoundedStepsStayInsideTheBound) {
  uint32_t seed = 100;
  for (bool in_place : {true, false}) {
    for (auto [rows, vocab] : {std::array{7u, 331u}, {16u, 512u}, {2u, 129280u}}) {
      const Problem p = random_problem(seed++, rows, vocab, 0, in_place, false);
      expect_matches(p, run(p), false);
    }
  }
}

TEST_F(LogitAdjustGpu, HostileInputIsDefined) {
  const float inf = INFINITY, nan = NAN;
  for (bool in_place : {true, false}) {
    Problem p;
    p.shape = LogitAdjustShape::packed(8, 40);
    p.shape.in_place = in_place;
    p.x.assign(320, 1.5f);
    const float odd[] = {nan, inf, -inf, 3e38f, -3e38f, 0.0f, -0.0f};
    for (size_t i = 0; i < 7; ++i) p.x[i] = odd[i];
    const auto list = [&](uint32_t row, std::vector<LogitEdit> edits) -> LogitAdjustRow& {
      LogitAdjustRow r;
      r.row = row, r.edits_begin = uint32_t(p.edits.size());
      p.edits.insert(p.edits.end(), edits.begin(), edits.end());
      r.edits_end = uint32_t(p.edits.size());
      return p.listed.emplace_back(r);
    };
    std::vector<LogitEdit> edits;
    for (uint32_t id = 0; id < 7; ++id) edits.push_back({id, 1, 2, -100.0f});
    LogitAdjustRow& first = list(0, edits);
    first.repetition = 2.0f, first.inverse_repetition = 0.5f, first.presence = 1.0f;
    list(1, {}).mask = 0;                                                      // all masked
    list(2, {{40, 1, 1, 5.0f}, {0xffffffffu, 1, 1, 5.0f}, {39, 0, 0, 5.0f}});  // ids beyond
    list(3, {}).mask = 7;                                                      // no such mask
    list(8, {{0, 0, 0, 1.0f}});                                                // no such row
    list(0xffffffffu, {{0, 0, 0, 1.0f}});
    list(4, {{3, 0, 0, 1.0f}}).edits_end = 1000;  // beyond the array
    p.masks.assign(2, 0u);
    p.finish();
    const std::vector<float> y = run(p);
    expect_matches(p, y, false);
    EXPECT_EQ(y[1], inf);
    EXPECT_EQ(y[40], -inf);
    EXPECT_EQ(y[2 * 40 + 39], 6.5f);
    EXPECT_EQ(y[4 * 40 + 3], 2.5f);
  }
}

// A subnormal may be flushed only where a step computes with it.
TEST_F(LogitAdjustGpu, StepsThatDoNothingKeepEveryBit) {
  Problem p;
  p.shape = LogitAdjustShape::packed(1, 3);
  p.x = {1e-40f, -0.0f, -1e-42f};
  LogitAdjustRow row;
  row.edits_end = 3;
  p.listed = {row};
  p.edits = {{0, 3, 4, 0.0f}, {1, 1, 0, 0.0f}, {2, 0, 1, 0.0f}};
  p.finish();
  const std::vector<float> y = run(p);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(y[i]), std::bit_cast<uint32_t>(p.x[i])) << i;
  }
}

TEST_F(LogitAdjustGpu, ARowHasTheSameBitsInEveryBatchPlaceAndWorkgroup) {
  const Problem p = random_problem(7, 20, 1021, 0, true, false);
  const std::vector<float> all = run(p);
  EXPECT_EQ(run(p, 64), all);
  for (const LogitAdjustRow& row : p.listed) {
    Problem one = p;
    one.listed = {row};
    one.shape.in_place = false;
    one.finish();
    const std::vector<float> y = run(one);
    for (uint32_t id = 0; id < 1021; ++id) {
      const size_t at = size_t{row.row} * 1021 + id;
      ASSERT_EQ(std::bit_cast<uint32_t>(y[at]), std::bit_cast<uint32_t>(all[at]));
    }
  }
}

TEST_F(LogitAdjustGpu, NoRowsAreDefined) {
  Problem p;
  p.shape = LogitAdjustShape::packed(2, 5);
  p.x.assign(10, 1.0f);
  EXPECT_EQ(run(p), p.x);
  p.shape.rows = 0, p.x.clear();
  EXPECT_TRUE(run(p).empty());
}

TEST_F(LogitAdjustGpu, PlacesMustBeWhatTheShapeSays) {
  auto recorder = Recorder::create(*device());
  ASSERT_TRUE(recorder.ok());
  LogitAdjustShape shape = LogitAdjustShape::packed(1, 4);
  auto kernel = LogitAdjust::create(*device(), logit_adjust_choose(shape, device()->caps()));
  ASSERT_TRUE(kernel.ok());
  EXPECT_EQ(kernel->record(*recorder, shape, {256, 512, 0, 0, 0}).message(),
            "logit_adjust: in_place must be the config's and that of the addresses, got true, true "
            "and false");
  shape.in_place = false;
  EXPECT_EQ(kernel->record(*recorder, shape, {256, 512, 0, 0, 0}).message(),
            "logit_adjust: in_place must be the config's and that of the addresses, got false, "
            "true and false");
}

TEST(LogitAdjustHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const auto refused = [&](const std::function<void(LogitAdjustShape&)>& change) {
    LogitAdjustShape shape = LogitAdjustShape::packed(4, 20);
    change(shape);
    return logit_adjust_check(shape, caps).message();
  };
  EXPECT_EQ(refused([](auto&) {}), "");
  EXPECT_EQ(refused([](auto& s) { s.vocab = 0; }),
            "logit_adjust: vocab must be in 1..524288, got 0");
  EXPECT_EQ(refused([](auto& s) { s.vocab = 524289; }),
            "logit_adjust: vocab must be in 1..524288, got 524289");
  EXPECT_EQ(refused([](auto& s) { s.x_stride = 19; }),
            "logit_adjust: x_stride must be at least vocab, got 19 < 20");
  EXPECT_EQ(refused([](auto& s) { s.y_stride = 19; }),
            "logit_adjust: y_stride must be at least vocab, got 19 < 20");
  EXPECT_EQ(refused([](auto& s) { s.y_stride = 21; }),
            "logit_adjust: strides must be equal in place, got 20 and 21");
  EXPECT_EQ(refused([](auto& s) { s.y_stride = 21, s.in_place = false; }), "");
  EXPECT_EQ(refused([](auto& s) { s.listed = 5; }),
            "logit_adjust: listed must be at most rows, got 5 > 4");
  EXPECT_EQ(refused([](auto& s) { s.rows = s.listed = 65536; }),
            "logit_adjust: listed must be at most 65535, got 65536");
}

}  // namespace
}  // namespace hadal::test
