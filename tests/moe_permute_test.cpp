// moe_permute and moe_combine against their references: the plan exactly, the sum within its bound.
#include "hadal/moe_permute.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "hadal/reference/moe_permute.h"
#include "layout/moe_tiles.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

using Tile = reference::MoePermutePlan::Tile;

struct Plan {
  std::vector<uint32_t> row_token, row_of, segment_ends, commands;
  std::vector<layout::MoeTile> tiles;
};

Plan run_plan(const MoePermuteShape& shape, const std::vector<uint32_t>& indices,
              uint32_t workgroup_size = 0) {
  GpuCase gpu(*device());
  GuardedBuffer& in = gpu.input(indices);
  GuardedBuffer& row_token = gpu.output(indices.size() * 4);
  GuardedBuffer& row_of = gpu.output(indices.size() * 4);
  GuardedBuffer& ends = gpu.output(uint64_t{shape.experts} * 4);
  GuardedBuffer& tiles = gpu.output(uint64_t{moe_permute_max_tiles(shape)} * 16);
  GuardedBuffer& commands = gpu.output(uint64_t{shape.command_count} * 12);
  MoePermuteConfig config = moe_permute_choose(shape, device()->caps());
  if (workgroup_size) config.workgroup_size = workgroup_size, config.vectors = false;
  Result<MoePermute> kernel = MoePermute::create(*device(), config);
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) {
    return kernel->record(recorder, shape,
                          {in.address(), row_token.address(), row_of.address(), ends.address(),
                           tiles.address(), commands.address()});
  });
  return {gpu.values<uint32_t>(row_token), gpu.values<uint32_t>(row_of), gpu.values<uint32_t>(ends),
          gpu.values<uint32_t>(commands), gpu.values<layout::MoeTile>(tiles)};
}

void expect_plan(const MoePermuteShape& shape, const std::vector<uint32_t>& indices,
                 uint32_t workgroup_size = 0) {
  const auto expected = reference::moe_permute(shape, indices.data());
  Plan got = run_plan(shape, indices, workgroup_size);
  const std::string what = fmt::format("{} tokens, {} experts, top {}, tile {}", shape.tokens,
                                       shape.experts, shape.top_k, shape.tile_m);
  EXPECT_EQ(got.row_of, expected.row_of) << what;
  EXPECT_EQ(got.segment_ends, expected.segment_ends) << what;
  // Behind the last row and tile nothing is written.
  for (size_t i = expected.row_token.size(); i < got.row_token.size(); ++i) {
    EXPECT_EQ(got.row_token[i], 0xffffffffu) << what;
  }
  got.row_token.resize(expected.row_token.size());
  EXPECT_EQ(got.row_token, expected.row_token) << what;
  ASSERT_LE(expected.tiles.size(), got.tiles.size()) << what << ": max_tiles is too small";
  for (size_t i = 0; i < got.tiles.size(); ++i) {
    const Tile tile{got.tiles[i].expert, got.tiles[i].row_begin, got.tiles[i].row_end};
    const Tile unused{0xffffffffu, 0xffffffffu, 0xffffffffu};
    EXPECT_TRUE(tile == (i < expected.tiles.size() ? expected.tiles[i] : unused))
        << what << ": tile " << i;
  }
  for (uint32_t i = 0; i < shape.command_count; ++i) {
    EXPECT_EQ(got.commands[3 * i], shape.groups_x[i]);
    EXPECT_EQ(got.commands[3 * i + 1], expected.tiles.size()) << what;
    EXPECT_EQ(got.commands[3 * i + 2], 1u);
  }
}

std::vector<uint32_t> random_indices(uint32_t seed, const MoePermuteShape& s) {
  Random random(seed);
  std::vector<uint32_t> indices(size_t(s.tokens) * s.top_k);
  for (uint32_t& v : indices) v = random.below(s.experts);
  return indices;
}

MoePermuteShape with_commands(MoePermuteShape s) {
  s.command_count = 3;
  s.groups_x = {7, 0, 65535, 1};
  return s;
}

class MoePermuteGpu : public GpuTest {};

TEST_F(MoePermuteGpu, PlansExactlyOnRaggedSizes) {
  uint32_t seed = 1;
  for (auto s : {MoePermuteShape::packed(1, 256, 8, 16), MoePermuteShape::packed(3, 7, 2, 1),
                 MoePermuteShape::packed(13, 17, 5, 3), MoePermuteShape::packed(129, 64, 8, 16),
                 MoePermuteShape::packed(257, 5, 4, 8), MoePermuteShape::packed(2, 1024, 32, 4),
                 MoePermuteShape::packed(11, 1, 3, 16), MoePermuteShape::packed(4096, 384, 8, 16),
                 MoePermuteShape::packed(1001, 60, 7, 24), MoePermuteShape::packed(131, 33, 3, 1),
                 MoePermuteShape::packed(8192, 7, 8, 5)}) {
    expect_plan(with_commands(s), random_indices(seed++, s));
  }
}

TEST_F(MoePermuteGpu, OneGiantGroupAndEmptyOnes) {
  const auto s = with_commands(MoePermuteShape::packed(700, 19, 2, 16));
  expect_plan(s, std::vector<uint32_t>(1400, 18));
  expect_plan(s, std::vector<uint32_t>(1400, 0));
}

TEST_F(MoePermuteGpu, IndicesThatNameNoExpertHaveNoRow) {
  auto s = with_commands(MoePermuteShape::packed(9, 20, 3, 4));
  std::vector<uint32_t> indices = random_indices(3, s);
  for (size_t i = 0; i < indices.size(); i += 4)
    indices[i] = i % 8 ? 0xffffffffu : 20 + uint32_t(i);
  expect_plan(s, indices);
  expect_plan(s, std::vector<uint32_t>(27, 21));
}

TEST_F(MoePermuteGpu, SeveralSubgroupsPlanTheSame) {
  const auto s = with_commands(MoePermuteShape::packed(67, 100, 8, 8));
  expect_plan(s, random_indices(4, s), 64);
}

TEST_F(MoePermuteGpu, EmptyProblemsStillGiveCommands) {
  expect_plan(with_commands(MoePermuteShape::packed(0, 5, 2, 4)), {});
  expect_plan(with_commands(MoePermuteShape::packed(3, 5, 0, 4)), {});
  expect_plan(with_commands(MoePermuteShape::packed(2, 0, 2, 4)), {1, 2, 3, 0});
}

class MoeCombineGpu : public GpuTest {};

struct CombineProblem {
  MoeCombineShape shape;
  std::vector<float> x, shared, y, weights;
  std::vector<uint32_t> row_of;

  CombineProblem(uint32_t tokens, uint32_t hidden, uint32_t top_k, uint32_t seed)
      : shape(MoeCombineShape::packed(tokens, hidden, top_k)) {
    Random random(seed);
    const size_t rows = size_t(tokens) * top_k;
    x = random.normals(size_t(tokens) * hidden, 3.0f);
    shared = random.normals(size_t(tokens) * hidden);
    y = random.normals(rows * hidden);
    weights = random.uniforms(rows, 0.0f, 1.0f);
    for (size_t i = 0; i < rows; ++i) row_of.push_back(uint32_t(rows - 1 - i));
  }
};

std::vector<float> run_combine(const CombineProblem& p) {
  const MoeCombineShape& s = p.shape;
  GpuCase gpu(*device());
  const uint64_t bytes = s.tokens ? (uint64_t{s.tokens - 1} * s.x_stride + s.hidden) * 4 : 0;
  GuardedBuffer& x = s.accumulate ? gpu.input_rows(p.x, s.hidden, s.x_stride) : gpu.output(bytes);
  GuardedBuffer& shared = gpu.input_rows(p.shared, s.hidden, s.shared_stride);
  GuardedBuffer& y = gpu.input_rows(p.y, s.hidden, s.y_stride);
  GuardedBuffer& row_of = gpu.input(p.row_of);
  GuardedBuffer& weights = gpu.input(p.weights);
  Result<MoeCombine> kernel =
      MoeCombine::create(*device(), moe_combine_choose(s, device()->caps()));
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) {
    return kernel->record(recorder, s,
                          {x.address(), s.has_shared ? shared.address() : 0, y.address(),
                           row_of.address(), weights.address()});
  });
  return gpu.rows<float>(x, s.tokens, s.hidden, s.x_stride);
}

void expect_combine(const CombineProblem& p) {
  const auto expected = reference::moe_combine(
      p.shape, {p.x.data(), p.shared.data(), p.y.data(), p.row_of.data(), p.weights.data()});
  EXPECT_TRUE(matches(
      fmt::format("moe_combine {}x{} top {}", p.shape.tokens, p.shape.hidden, p.shape.top_k),
      run_combine(p), expected.value, p.shape.hidden, [&](size_t i) {
        return moe_combine_bound(p.shape.top_k, expected.value[i], expected.magnitude[i]);
      }));
}

TEST_F(MoeCombineGpu, MatchesTheReferenceWithEveryOptionAndStride) {
  uint32_t seed = 1;
  for (bool accumulate : {false, true}) {
    for (bool has_shared : {false, true}) {
      CombineProblem p(5, 131, 8, seed++);
      p.shape.accumulate = accumulate, p.shape.has_shared = has_shared;
      p.shape.x_stride += 3, p.shape.shared_stride += 1, p.shape.y_stride += 5;
      expect_combine(p);
    }
  }
  expect_combine(CombineProblem(1, 256, 8, seed++));
  expect_combine(CombineProblem(3, 1, 1, seed++));
}

TEST_F(MoeCombineGpu, SkipsPairsWithoutARowAndDefinesEmptyProblems) {
  CombineProblem p(4, 37, 3, 9);
  p.row_of[2] = p.row_of[3] = p.row_of[4] = p.row_of[5] = 0xffffffffu;
  p.weights[2] = NAN;
  expect_combine(p);
  EXPECT_EQ(run_combine(CombineProblem(2, 5, 0, 1)), std::vector<float>(10, 0.0f));
  EXPECT_TRUE(run_combine(CombineProblem(0, 5, 2, 1)).empty());
  EXPECT_TRUE(run_combine(CombineProblem(2, 0, 2, 1)).empty());
}

TEST_F(MoeCombineGpu, ARowHasTheSameBitsInEveryBatch) {
  CombineProblem p(6, 70, 4, 11);
  const std::vector<float> all = run_combine(p);
  for (uint32_t t = 0; t < 6; ++t) {
    CombineProblem one = p;
    one.shape.tokens = 1;
    one.row_of.assign(p.row_of.begin() + t * 4, p.row_of.begin() + t * 4 + 4);
    one.weights.assign(p.weights.begin() + t * 4, p.weights.begin() + t * 4 + 4);
    one.shared.clear(), one.x.clear();
    EXPECT_EQ(run_combine(one),
              std::vector<float>(all.begin() + t * 70, all.begin() + t * 70 + 70));
  }
}

// One slot of weight 1 brings rows together, of an operand with more of them.
TEST_F(MoeCombineGpu, GathersRowsExactly) {
  CombineProblem p(3, 70, 1, 12);
  Random random(13);
  p.shape.y_rows = 11, p.shape.y_stride += 2;
  p.y = random.normals(11 * 70), p.weights = {1.0f, 1.0f, 1.0f}, p.row_of = {10, 2, 7};
  std::vector<float> expected;
  for (const uint32_t row : p.row_of) {
    expected.insert(expected.end(), p.y.begin() + row * 70, p.y.begin() + (row + 1) * 70);
  }
  EXPECT_EQ(run_combine(p), expected);
  // A write to any of them has to be finished before.
  RecorderOptions checked;
  checked.check_hazards = true;
  Result<Recorder> recorder = Recorder::create(*device(), checked);
  Result<Buffer> buffer = device()->allocate(4096);
  const auto kernel = MoeCombine::create(*device(), moe_combine_choose(p.shape, device()->caps()));
  ASSERT_TRUE(recorder.ok() && buffer.ok() && kernel.ok());
  p.shape = MoeCombineShape::packed(1, 8, 1);
  p.shape.y_rows = 11;
  MoeCombineArgs args;
  args.y = buffer->address(), args.x = args.y + 1024;
  args.row_of = args.x + 1024, args.weights = args.row_of + 1024;
  ASSERT_TRUE(recorder->fill(*buffer, 10 * 8 * 4, 8 * 4, 0).ok());
  EXPECT_EQ(kernel->record(*recorder, p.shape, args).code(), Errc::kHazard);
}

TEST(MoePermuteHost, MaxTilesCoversTheWorstRouting) {
  EXPECT_EQ(moe_permute_max_tiles(MoePermuteShape::packed(1, 256, 8, 16)), 8u);
  EXPECT_EQ(moe_permute_max_tiles(MoePermuteShape::packed(4096, 256, 8, 16)), 2288u);
  EXPECT_EQ(moe_permute_max_tiles(MoePermuteShape::packed(10, 1, 3, 16)), 2u);
  EXPECT_EQ(moe_permute_max_tiles(MoePermuteShape::packed(0, 8, 3, 16)), 0u);
}

TEST(MoePermuteHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const auto refused = [&](const std::function<void(MoePermuteShape&)>& change) {
    MoePermuteShape shape = with_commands(MoePermuteShape::packed(4, 20, 8, 16));
    change(shape);
    return moe_permute_check(shape, caps).message();
  };
  EXPECT_EQ(refused([](auto&) {}), "");
  EXPECT_EQ(refused([](auto& s) { s.tokens = 1u << 22; }),
            "moe_permute: tokens * top_k must be at most 65536, got 33554432");
  EXPECT_EQ(refused([](auto& s) { s.experts = 1025; }),
            "moe_permute: experts must be at most 1024, got 1025");
  EXPECT_EQ(refused([](auto& s) { s.tile_m = 0; }),
            "moe_permute: tile_m must be in 1..65536, got 0");
  EXPECT_EQ(refused([](auto& s) { s.command_count = 5; }),
            "moe_permute: command_count must be at most 4, got 5");
  EXPECT_EQ(refused([](auto& s) { s.groups_x[1] = 65536; }),
            "moe_permute: groups_x must be at most 65535, got 65536");
  EXPECT_EQ(refused([](auto& s) { s.tokens = 8192, s.experts = 1000, s.tile_m = 1; }),
            "moe_permute: the tiles of any routing must be at most 65535, got 65536");
}

TEST(MoeCombineHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const auto refused = [&](const std::function<void(MoeCombineShape&)>& change) {
    MoeCombineShape shape = MoeCombineShape::packed(4, 20, 8);
    shape.has_shared = true;
    change(shape);
    return moe_combine_check(shape, caps).message();
  };
  EXPECT_EQ(refused([](auto&) {}), "");
  EXPECT_EQ(refused([](auto& s) { s.tokens = 65536; }),
            "moe_combine: tokens must be at most 65535, got 65536");
  EXPECT_EQ(refused([](auto& s) { s.top_k = 1025; }),
            "moe_combine: top_k must be at most 1024, got 1025");
  EXPECT_EQ(refused([](auto& s) { s.hidden = 1u << 25; }),
            "moe_combine: hidden must be at most 16777216, got 33554432");
  EXPECT_EQ(refused([](auto& s) { s.x_stride = 19; }),
            "moe_combine: x_stride must be at least hidden, got 19 < 20");
  EXPECT_EQ(refused([](auto& s) { s.shared_stride = 19; }),
            "moe_combine: shared_stride must be at least hidden, got 19 < 20");
  EXPECT_EQ(refused([](auto& s) { s.y_stride = 19; }),
            "moe_combine: y_stride must be at least hidden, got 19 < 20");
}

}  // namespace
}  // namespace hadal::test
