// moe_tiles against its reference, exactly: every form of segments, one command buffer for many
// routings, every refusal.
#include "hadal/moe_tiles.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>

#include "hadal/recorder.h"
#include "hadal/reference/moe_tiles.h"
#include "support/gpu.h"
#include "support/moe_tiles.h"
#include "support/random.h"

namespace hadal::test {
namespace {

std::vector<uint32_t> words(const std::vector<MoeTile>& tiles) {
  std::vector<uint32_t> result;
  for (const MoeTile& t : tiles) {
    result.insert(result.end(), {t.expert, t.row_begin, t.row_end, t.reserved});
  }
  return result;
}

MoeTilesShape with_commands(MoeTilesShape s) {
  s.command_count = 3;
  s.groups_x = {7, 0, 65535, 1};
  return s;
}

// The list as words, everything behind its tiles untouched (all ones), then the commands.
std::vector<uint32_t> expected_words(const MoeTilesShape& s,
                                     const std::vector<uint32_t>& segments) {
  const std::vector<MoeTile> tiles = reference::moe_tiles(s, segments.data());
  std::vector<uint32_t> result = words(tiles);
  EXPECT_LE(tiles.size(), moe_tiles_max_tiles(s));
  result.resize(size_t(moe_tiles_max_tiles(s)) * 4, 0xffffffffu);
  for (uint32_t i = 0; i < s.command_count; ++i) {
    result.insert(result.end(), {s.groups_x[i], uint32_t(tiles.size()), 1u});
  }
  return result;
}

void expect_list(const MoeTilesShape& plain, const std::vector<uint32_t>& segments,
                 uint32_t workgroup_size = 0) {
  const MoeTilesShape s = with_commands(plain);
  GpuCase gpu(*device());
  GuardedBuffer& in = gpu.input(segments);
  GuardedBuffer& tiles = gpu.output(uint64_t{moe_tiles_max_tiles(s)} * 16);
  GuardedBuffer& commands = gpu.output(uint64_t{s.command_count} * 12);
  MoeTilesConfig config = moe_tiles_choose(s, device()->caps());
  if (workgroup_size) config.workgroup_size = workgroup_size;
  Result<MoeTiles> kernel = MoeTiles::create(*device(), config);
  ASSERT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) {
    return kernel->record(recorder, s, {in.address(), tiles.address(), commands.address()});
  });
  std::vector<uint32_t> got = gpu.values<uint32_t>(tiles);
  for (uint32_t v : gpu.values<uint32_t>(commands)) got.push_back(v);
  EXPECT_EQ(got, expected_words(s, segments)) << fmt::format(
      "{} rows, {} experts, m_max {}, tile {}", s.rows, s.experts, s.m_max, s.tile_m);
}

std::vector<uint32_t> random_lengths(Random& random, uint32_t experts, uint32_t most) {
  std::vector<uint32_t> lengths(experts);
  for (uint32_t& v : lengths) v = random.below(3) ? random.below(most + 1) : 0;
  return lengths;
}

class MoeTilesGpu : public GpuTest {};

TEST_F(MoeTilesGpu, CutsSegmentsExactly) {
  Random random(1);
  for (auto [experts, most, tile_m] : {std::array{1u, 70u, 16u},
                                       {7u, 3u, 1u},
                                       {19u, 40u, 3u},
                                       {256u, 64u, 16u},
                                       {1024u, 9u, 4u},
                                       {33u, 1u, 8u}}) {
    const std::vector<uint32_t> ends = segment_ends(random_lengths(random, experts, most));
    expect_list(MoeTilesShape::contiguous(ends.back(), experts, tile_m), ends);
    // The same list, although more rows are there.
    expect_list(MoeTilesShape::contiguous(ends.back() + 21, experts, tile_m), ends);
  }
}

TEST_F(MoeTilesGpu, CutsMaskedGroupsExactly) {
  Random random(2);
  for (auto [experts, m_max, tile_m] : {std::array{1u, 70u, 16u},
                                        {7u, 3u, 1u},
                                        {19u, 40u, 3u},
                                        {256u, 33u, 16u},
                                        {1024u, 9u, 4u},
                                        {32u, 128u, 16u}}) {
    const MoeTilesShape s = MoeTilesShape::masked_groups(experts, m_max, tile_m);
    expect_list(s, random_lengths(random, experts, m_max));
    expect_list(s, std::vector<uint32_t>(experts, m_max));
    expect_list(s, std::vector<uint32_t>(experts, 0));
  }
}

TEST_F(MoeTilesGpu, OneGiantSegmentAndEmptyOnes) {
  for (uint32_t giant : {0u, 100u, 255u}) {
    std::vector<uint32_t> lengths(256, 0);
    lengths[giant] = 4099;
    expect_list(MoeTilesShape::contiguous(4099, 256, 1), segment_ends(lengths));  // 5 workgroups
    expect_list(MoeTilesShape::masked_groups(256, 4099, 32), lengths);
  }
  expect_list(MoeTilesShape::contiguous(65000, 3, 1), {0, 65000, 65000});
}

TEST_F(MoeTilesGpu, ValuesPastTheDeclaredRowsAreCut) {
  expect_list(MoeTilesShape::contiguous(20, 4, 8), {3, 21, 0xffffffffu, 0xfffffffeu});
  expect_list(MoeTilesShape::masked_groups(3, 5, 2), {6, 0xffffffffu, 5});
}

TEST_F(MoeTilesGpu, SeveralSubgroupsMakeTheSameList) {
  Random random(4);
  const std::vector<uint32_t> ends = segment_ends(random_lengths(random, 100, 50));
  expect_list(MoeTilesShape::contiguous(ends.back(), 100, 4), ends, 64);
}

TEST_F(MoeTilesGpu, EmptyProblemsStillGiveCommands) {
  expect_list(MoeTilesShape::contiguous(0, 0, 4), {});
  expect_list(MoeTilesShape::contiguous(0, 3, 4), {0, 0, 0});
  expect_list(MoeTilesShape::masked_groups(3, 0, 4), {9, 9, 9});
  expect_list(MoeTilesShape::masked_groups(0, 9, 4), {});
}

TEST_F(MoeTilesGpu, AnUnwaitedRoutingIsFoundByTheRecorder) {
  const MoeTilesShape s = with_commands(MoeTilesShape::contiguous(9, 2, 4));
  GpuCase gpu(*device());
  GuardedBuffer& in = gpu.input(std::vector<uint32_t>{4, 9});
  GuardedBuffer& tiles = gpu.output(uint64_t{moe_tiles_max_tiles(s)} * 16);
  GuardedBuffer& commands = gpu.output(36);
  Result<MoeTiles> kernel = MoeTiles::create(*device(), moe_tiles_choose(s, device()->caps()));
  ASSERT_TRUE(kernel.ok());
  RecorderOptions options;
  options.check_hazards = true;
  Result<Recorder> recorder = Recorder::create(*device(), options);
  ASSERT_TRUE(recorder.ok());
  const MoeTilesArgs args{in.address(), tiles.address(), commands.address()};
  ASSERT_TRUE(
      recorder->fill(in.buffer(), in.address() - in.buffer().address(), in.bytes(), 0).ok());
  EXPECT_EQ(kernel->record(*recorder, s, args).code(), Errc::kHazard);
  recorder->barrier();
  EXPECT_TRUE(kernel->record(*recorder, s, args).ok());
  EXPECT_TRUE(recorder->end().ok());
}

TEST(MoeTilesHost, NoSpreadOfRowsMakesMoreTilesThanTheCapacity) {
  Random random(7);
  for (int round = 0; round < 200; ++round) {
    const std::vector<uint32_t> lengths = random_lengths(random, 1 + random.below(9), 40);
    const uint32_t experts = uint32_t(lengths.size());
    for (uint32_t tile_m : {1u, 3u, 8u, 16u}) {
      const std::vector<uint32_t> ends = segment_ends(lengths);
      const auto contiguous = MoeTilesShape::contiguous(ends.back(), experts, tile_m);
      EXPECT_LE(reference::moe_tiles(contiguous, ends.data()).size(),
                moe_tiles_max_tiles(contiguous));
      const auto masked = MoeTilesShape::masked_groups(experts, 40, tile_m);
      EXPECT_LE(reference::moe_tiles(masked, std::vector<uint32_t>(experts, 40).data()).size(),
                moe_tiles_max_tiles(masked));
    }
  }
}

TEST(MoeTilesHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const auto refused = [&](const std::function<void(MoeTilesShape&)>& change) {
    MoeTilesShape shape = with_commands(MoeTilesShape::masked_groups(20, 64, 16));
    change(shape);
    return moe_tiles_check(shape, caps).message();
  };
  EXPECT_EQ(refused([](auto&) {}), "");
  EXPECT_EQ(refused([](auto& s) { s.experts = 1025; }),
            "moe_tiles: experts must be at most 1024, got 1025");
  EXPECT_EQ(refused([](auto& s) { s.rows = 0x80000001u; }),
            "moe_tiles: rows must be at most 2147483648, got 2147483649");
  EXPECT_EQ(refused([](auto& s) { s.rows = 1281; }),
            "moe_tiles: rows must be experts * m_max, got 1281 for 20 * 64");
  EXPECT_EQ(refused([](auto& s) { s.tile_m = 0; }), "moe_tiles: tile_m must be in 1..65536, got 0");
  EXPECT_EQ(refused([](auto& s) { s.command_count = 5; }),
            "moe_tiles: command_count must be at most 4, got 5");
  EXPECT_EQ(refused([](auto& s) { s.groups_x[1] = 65536; }),
            "moe_tiles: groups_x must be at most 65535, got 65536");
  EXPECT_EQ(refused([](auto& s) { s.rows = 65536, s.tile_m = 1, s.masked = false; }),
            "moe_tiles: the tiles of any routing must be at most 65535, got 65536");
}

TEST(MoeTilesHost, ChoicePrintsItself) {
  EXPECT_EQ(moe_tiles_choose(MoeTilesShape::contiguous(8, 8, 4), minimum_caps()).to_string(),
            fmt::format("moe_tiles: 1024 tiles per workgroup of {}",
                        moe_tiles_choose({}, minimum_caps()).workgroup_size));
}

}  // namespace
}  // namespace hadal::test
