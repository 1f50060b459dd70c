// rope against its reference: both pairings, offsets inside wider heads, positions past the table.
#include "hadal/rope.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "hadal/reference/rope.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

std::vector<double> frequencies(uint32_t pairs) {
  std::vector<double> f;
  for (uint32_t i = 0; i < pairs; ++i) f.push_back(std::pow(10000.0, -double(i) / pairs));
  return f;
}

struct Problem {
  RopeShape shape;
  std::vector<float> x, table;  // x with the shape's strides, all channels set
  std::vector<uint32_t> positions;

  Problem(RopeShape s, uint32_t seed) : shape(s) {
    Random random(seed);
    x = random.normals(size_t(s.rows) * s.row_stride, 3.0f);
    table = rope_table(frequencies(s.dim / 2), 1.25, 0, s.max_position);
    for (uint32_t r = 0; r < s.rows; ++r) positions.push_back(random.below(s.max_position));
  }
};

RopeShape strided(uint32_t rows, uint32_t heads, uint32_t dim, uint32_t offset, uint32_t head_pad,
                  uint32_t row_pad, bool interleaved) {
  RopeShape s = RopeShape::packed(rows, heads, dim, 321);
  s.offset = offset, s.interleaved = interleaved;
  s.head_stride = offset + dim + head_pad;
  s.row_stride = heads * s.head_stride + row_pad;
  return s;
}

// The whole of x after the kernel ran.
std::vector<float> run(const Problem& p) {
  GpuCase gpu(*device());
  GuardedBuffer& x = gpu.input(p.x);
  GuardedBuffer& positions = gpu.input(p.positions);
  GuardedBuffer& table = gpu.input(p.table);
  Result<Rope> kernel = Rope::create(*device(), rope_choose(p.shape, device()->caps()));
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) {
    return kernel->record(recorder, p.shape, {x.address(), positions.address(), table.address()});
  });
  return gpu.values<float>(x);
}

void expect_matches_reference(const Problem& p) {
  const RopeShape& s = p.shape;
  const auto expected = reference::rope(s, {p.x.data(), p.positions.data(), p.table.data()});
  const std::vector<float> after = run(p);
  std::vector<float> rotated;
  std::vector<float> untouched_before, untouched_after;
  for (size_t i = 0; i < after.size(); ++i) {
    const size_t c = i % s.row_stride, in_head = s.head_stride ? c % s.head_stride : 0;
    const bool is_rotated =
        c < size_t(s.heads) * s.head_stride && in_head >= s.offset && in_head < s.offset + s.dim;
    (is_rotated ? rotated : untouched_after).push_back(after[i]);
    if (!is_rotated) untouched_before.push_back(p.x[i]);
  }
  EXPECT_EQ(untouched_after, untouched_before);
  EXPECT_TRUE(matches(fmt::format("rope {}x{}x{}", s.rows, s.heads, s.dim), rotated, expected.value,
                      s.dim, [&](size_t i) { return rope_bound(expected.magnitude[i]); }));
}

class RopeGpu : public GpuTest {};

TEST_F(RopeGpu, MatchesTheReferenceInBothPairings) {
  for (bool interleaved : {true, false}) {
    expect_matches_reference({strided(1, 1, 2, 0, 0, 0, interleaved), 1});
    expect_matches_reference({strided(5, 3, 64, 0, 0, 0, interleaved), 2});
    expect_matches_reference({strided(7, 2, 6, 5, 3, 4, interleaved), 3});
    expect_matches_reference({strided(3, 37, 24, 32, 0, 1, interleaved), 4});
    expect_matches_reference({strided(2, 17, 130, 1, 1, 0, interleaved), 5});
    expect_matches_reference({strided(2, 128, 64, 128, 0, 0, interleaved), 6});
  }
}

TEST_F(RopeGpu, APositionPastTheTableMakesItsRowNan) {
  Problem p(strided(5, 2, 8, 4, 0, 2, true), 9);
  p.positions = {320, 321, 0, 0xffffffffu, 1};
  expect_matches_reference(p);
}

TEST_F(RopeGpu, ARowHasTheSameBitsInEveryBatch) {
  const Problem all(strided(13, 5, 20, 12, 0, 0, true), 10);
  const std::vector<float> expected = run(all);
  for (uint32_t row : {0u, 6u, 12u}) {
    Problem one = all;
    one.shape.rows = 1;
    const auto begin = long(row) * all.shape.row_stride;
    one.x.assign(all.x.begin() + begin, all.x.begin() + begin + all.shape.row_stride);
    one.positions = {all.positions[row]};
    EXPECT_EQ(run(one), std::vector<float>(expected.begin() + begin,
                                           expected.begin() + begin + all.shape.row_stride));
  }
}

TEST_F(RopeGpu, EmptyProblemsAreDefined) {
  for (RopeShape s : {strided(0, 3, 8, 0, 0, 0, true), strided(3, 0, 8, 0, 0, 4, true),
                      strided(3, 2, 0, 1, 1, 0, true)}) {
    const Problem p(s, 1);
    EXPECT_EQ(run(p), p.x);
  }
}

TEST(RopeHost, TableIsExactAtTheLastPosition) {
  const std::vector<double> f = frequencies(32);
  const std::vector<float> table = rope_table(f, 1.0, 163838, 2);
  ASSERT_EQ(table.size(), 2u * 32 * 2);
  for (size_t i = 0; i < table.size(); ++i) {
    const long double angle = (163838.0L + (long double)(i / 64)) * (long double)f[i % 64 / 2];
    const long double expected = i % 2 ? std::sin(angle) : std::cos(angle);
    EXPECT_NEAR(table[i], double(expected), 6.1e-8) << i;  // half an ulp below 1, + 1e-10
  }
  EXPECT_EQ(rope_table(f, 1.0, 163839, 1), std::vector<float>(table.begin() + 64, table.end()));
  EXPECT_EQ(rope_table(f, 0.5, 0, 1)[0], 0.5f);
  EXPECT_TRUE(rope_table({}, 1.0, 0, 5).empty());
}

TEST(RopeHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const auto refused = [&](const std::function<void(RopeShape&)>& change) {
    RopeShape shape = strided(3, 4, 8, 2, 0, 0, true);
    change(shape);
    const Status status = rope_check(shape, caps);
    EXPECT_EQ(status.code(), Errc::kInvalidArgument);
    return status.message();
  };
  EXPECT_TRUE(rope_check(strided(3, 4, 8, 2, 0, 0, true), caps).ok());
  EXPECT_EQ(refused([](auto& s) { s.dim = 7; }), "rope: dim must be even, got 7");
  EXPECT_EQ(refused([](auto& s) { s.head_stride = 9; }),
            "rope: head_stride must be at least offset + dim, got 9 < 10");
  EXPECT_EQ(refused([](auto& s) { s.row_stride = 39; }),
            "rope: row_stride must be at least a row's last channel + 1, got 39 < 40");
  EXPECT_EQ(refused([](auto& s) { s.heads = 1, s.offset = 1u << 28, s.row_stride = ~0u; }),
            "rope: a row must be at most 268435456 channels, got 268435464");
  EXPECT_EQ(refused([](auto& s) { s.rows = 65536; }),
            "rope: rows must be at most 65535, got 65536");
}

TEST(RopeHost, ConfigPrintsItself) {
  EXPECT_EQ(rope_choose(RopeShape::packed(1, 1, 64, 1), minimum_caps()).to_string().substr(0, 5),
            "rope:");
}

}  // namespace
}  // namespace hadal::test
