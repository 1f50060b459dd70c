// Cases that both grouped GEMMs must pass. A kernel's test gives
//   struct K {
//     static constexpr const char* kName;                    // in messages
//     using Shape, Config, Args, Kernel, Problem;            // Problem{lengths, n, k, seed,
//     tokens, extra} static Config choose(const Shape&, const Caps&); static Status check(const
//     Shape&, const Caps&); static ExpertWeight weight(GpuCase&, const Problem&, const Shape&,
//     uint32_t expert); static void add_a(GpuCase&, const Problem&, const Shape&, Args&);  // a and
//     its scales static auto expected(const Problem&);                  // the reference's values
//     and magnitudes static double bound(uint32_t k, double value, double magnitude, double u_out);
//     // Rows begin to end of the problem by the dense kernel, with one expert's weight.
//     static std::vector<float> dense_rows(const Problem&, uint32_t expert, uint32_t begin,
//     uint32_t end);
//   };
// and says INSTANTIATE_TYPED_TEST_SUITE_P(K, GroupedGemmGpu, K) and (K, GroupedGemmHost, K).
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "compare.h"
#include "gpu.h"
#include "hadal/grouped_gemm.h"
#include "hadal/moe_tiles.h"
#include "hadal/recorder.h"
#include "hadal/reference/formats.h"
#include "moe_tiles.h"
#include "tolerance.h"

namespace hadal::test {

template <class K>
typename K::Config grouped_config(const typename K::Shape& shape) {
  return K::choose(shape, device()->caps());
}

// The problem in device memory, each expert's weight in a buffer of its own.
template <class K>
struct GroupedGemmOnDevice {
  GpuCase gpu{*device()};
  GuardedBuffer *indirect, *tiles, *d;
  typename K::Args args;

  GroupedGemmOnDevice(const typename K::Problem& p, const typename K::Shape& s,
                      const typename K::Config& config) {
    std::vector<ExpertWeight> table;
    for (uint32_t e = 0; e < s.experts; ++e) table.push_back(K::weight(gpu, p, s, e));
    const MoeTileList list = make_moe_tiles(p.ends, config.tile_m, config.column_groups(s.n));
    tiles = &gpu.input(list.tiles);
    indirect = &gpu.input(std::vector<uint32_t>(list.indirect.begin(), list.indirect.end()));
    d = &gpu.output(s.rows ? ((s.rows - 1) * s.d_stride + s.n) * element_bytes(s.d_type) : 0);
    K::add_a(gpu, p, s, args);
    if (!p.a_rows.empty()) args.a_rows = gpu.input(p.a_rows).address();
    args.expert_table = gpu.input(table).address(), args.tiles = tiles->address();
    args.indirect_buffer = &indirect->buffer();
    args.indirect_offset = indirect->address() - indirect->buffer().address();
    args.d = d->address();
  }
};

template <class K>
std::vector<float> run_grouped(const typename K::Problem& problem, const typename K::Shape& shape,
                               const typename K::Config& config) {
  GroupedGemmOnDevice<K> on(problem, shape, config);
  Result<typename K::Kernel> kernel = K::Kernel::create(*device(), config);
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  on.gpu.run([&](Recorder& recorder) { return kernel->record(recorder, shape, on.args); });
  if (shape.d_type == ElementType::kF32) {
    return on.gpu.template rows<float>(*on.d, shape.rows, shape.n, shape.d_stride);
  }
  std::vector<float> result;
  for (uint16_t v : on.gpu.template rows<uint16_t>(*on.d, shape.rows, shape.n, shape.d_stride)) {
    result.push_back(reference::bf16_decode(v));
  }
  return result;
}

template <class K>
void expect_matches_reference(const typename K::Problem& p, const typename K::Shape& shape) {
  const auto expected = K::expected(p);
  const double u_out = shape.d_type == ElementType::kBf16 ? kUBf16 : 0.0;
  EXPECT_TRUE(matches(fmt::format("{} {} rows, {} experts, {}x{}", K::kName, shape.rows,
                                  shape.experts, shape.n, shape.k),
                      run_grouped<K>(p, shape, grouped_config<K>(shape)), expected.value, shape.n,
                      [&](size_t i) {
                        return K::bound(shape.k, expected.value[i], expected.magnitude[i], u_out);
                      }));
}

// Records and runs the kernel once, with no check of `on`'s buffers.
template <class K>
void run_once(const GroupedGemmOnDevice<K>& on, const typename K::Shape& shape,
              const typename K::Config& config) {
  Result<typename K::Kernel> kernel = K::Kernel::create(*device(), config);
  Result<Recorder> recorder = Recorder::create(*device());
  ASSERT_TRUE(kernel.ok() && recorder.ok());
  ASSERT_TRUE(kernel->record(*recorder, shape, on.args).ok());
  ASSERT_TRUE(recorder->end().ok());
  ASSERT_TRUE(device()->run(*recorder).ok());
}

// One command buffer (moe_tiles, barrier, GEMM), replayed with other segments in device memory:
// each row that is in a segment has the bits of the dense kernel, every other row keeps its
// content.
template <class K>
void expect_replays(bool masked, const std::vector<std::vector<uint32_t>>& routings) {
  constexpr uint32_t kExperts = 5, kMMax = 11, kRows = kExperts * kMMax, kN = 35;
  const typename K::Problem p(std::vector<uint32_t>(kExperts, kMMax), kN, 150, 70);
  std::vector<std::vector<float>> dense;  // by expert, all rows
  for (uint32_t e = 0; e < kExperts; ++e) dense.push_back(K::dense_rows(p, e, 0, kRows));
  typename K::Shape shape = p.shape;
  shape.expected_rows = 20;
  const typename K::Config config = grouped_config<K>(shape);
  GroupedGemmOnDevice<K> on(p, shape, config);
  GuardedBuffer& segments = on.gpu.input(std::vector<uint32_t>(kExperts, 0u));
  MoeTilesShape list = masked ? MoeTilesShape::masked_groups(kExperts, kMMax, config.tile_m)
                              : MoeTilesShape::contiguous(kRows, kExperts, config.tile_m);
  list.command_count = 1;
  list.groups_x[0] = config.column_groups(kN);
  Result<MoeTiles> plan = MoeTiles::create(*device(), moe_tiles_choose(list, device()->caps()));
  Result<typename K::Kernel> kernel = K::Kernel::create(*device(), config);
  RecorderOptions options;
  options.check_hazards = true;
  Result<Recorder> recorder = Recorder::create(*device(), options);
  ASSERT_TRUE(plan.ok() && kernel.ok() && recorder.ok());
  const MoeTilesArgs plan_args{segments.address(), on.tiles->address(), on.indirect->address()};
  ASSERT_TRUE(plan->record(*recorder, list, plan_args).ok());
  EXPECT_EQ(kernel->record(*recorder, shape, on.args).code(), Errc::kHazard);
  recorder->barrier();
  ASSERT_TRUE(kernel->record(*recorder, shape, on.args).ok());
  ASSERT_TRUE(recorder->end().ok());
  for (const std::vector<uint32_t>& routing : routings) {
    SCOPED_TRACE(fmt::format("masked {} routing {}", masked, fmt::join(routing, " ")));
    segments.write(std::as_bytes(std::span(routing)));
    on.d->write(std::vector<std::byte>(on.d->bytes(), std::byte{0xff}));
    ASSERT_TRUE(device()->run(*recorder).ok());
    std::vector<float> expected(size_t(kRows) * kN, NAN);
    for (uint32_t e = 0, begin = 0; e < kExperts; ++e) {
      if (masked) begin = e * kMMax;
      const uint32_t end = masked ? begin + routing[e] : routing[e];
      std::copy(dense[e].begin() + begin * kN, dense[e].begin() + end * kN,
                expected.begin() + begin * kN);
      begin = end;
    }
    const std::vector<float> d = on.gpu.template values<float>(*on.d);
    for (size_t i = 0; i < d.size(); ++i) {
      EXPECT_TRUE(d[i] == expected[i] || (std::isnan(d[i]) && std::isnan(expected[i]))) << i;
    }
    EXPECT_TRUE(on.d->guards_intact() && on.tiles->guards_intact());
  }
}

template <class K>
class GroupedGemmGpu : public GpuTest {};
TYPED_TEST_SUITE_P(GroupedGemmGpu);

TYPED_TEST_P(GroupedGemmGpu, MatchesTheReferenceOnRaggedSegments) {
  uint32_t seed = 1;
  for (const auto& [lengths, n, k] :
       std::vector<std::tuple<std::vector<uint32_t>, uint32_t, uint32_t>>{
           {{1}, 1, 1},                            // one of everything
           {{0, 1, 0, 2, 0}, 37, 131},             // empty first, between and last
           {{3, 17, 0, 5, 1}, 129, 140},           // one past a tile
           {{0, 67, 0}, 31, 259},                  // one giant segment
           {{16, 32, 15, 33}, 70, 128},            // at and around whole tiles
           {{0, 0, 1, 0, 0, 0, 0, 1}, 45, 16}}) {  // fewer rows than experts
    const typename TypeParam::Problem problem(lengths, n, k, seed++);
    expect_matches_reference<TypeParam>(problem, problem.shape);
  }
}

TYPED_TEST_P(GroupedGemmGpu, GathersRowsOfA) {
  const typename TypeParam::Problem problem({4, 0, 9, 6}, 41, 150, 20, /*tokens=*/5);
  expect_matches_reference<TypeParam>(problem, problem.shape);
}

TYPED_TEST_P(GroupedGemmGpu, HonoursStridesAndNeverUsesPadding) {
  const typename TypeParam::Problem problem({5, 2, 7}, 70, 147, 30, /*tokens=*/6, /*extra=*/3);
  expect_matches_reference<TypeParam>(problem, problem.shape);
}

TYPED_TEST_P(GroupedGemmGpu, WritesBfloat16) {
  const typename TypeParam::Problem problem({3, 8}, 45, 200, 40);
  typename TypeParam::Shape shape = problem.shape;
  shape.d_type = ElementType::kBf16;
  expect_matches_reference<TypeParam>(problem, shape);
}

// House rule 8: a row has the bits of the dense kernel with its expert's weight, in every tile.
TYPED_TEST_P(GroupedGemmGpu, ARowHasTheBitsOfTheDenseKernelInEveryTile) {
  const typename TypeParam::Problem p({3, 0, 21, 1, 8, 45}, 67, 391, 50);
  std::vector<float> expected;
  for (uint32_t e = 0, begin = 0; e < p.shape.experts; begin = p.ends[e++]) {
    if (begin == p.ends[e]) continue;
    for (float v : TypeParam::dense_rows(p, e, begin, p.ends[e])) expected.push_back(v);
  }
  for (uint32_t rows : {1u, 3u, 8u, 24u, 32u}) {
    const auto config =
        grouped_config<TypeParam>(TypeParam::Shape::packed(rows, 1, p.shape.n, p.shape.k));
    EXPECT_EQ(run_grouped<TypeParam>(p, p.shape, config), expected) << "tile_m " << config.tile_m;
  }
}

TYPED_TEST_P(GroupedGemmGpu, OneRecordingServesEveryContiguousRouting) {
  expect_replays<TypeParam>(false, {{0, 0, 0, 0, 0},
                                    {3, 3, 14, 20, 55},
                                    {55, 55, 55, 55, 55},
                                    {0, 0, 0, 0, 55},
                                    {1, 2, 3, 4, 5},
                                    {0, 17, 17, 18, 40}});
}

TYPED_TEST_P(GroupedGemmGpu, OneRecordingServesEveryMaskedRouting) {
  expect_replays<TypeParam>(
      true, {{0, 0, 0, 0, 0}, {3, 0, 11, 1, 5}, {11, 11, 11, 11, 11}, {0, 0, 0, 0, 11}});
}

TYPED_TEST_P(GroupedGemmGpu, EmptyProblemsAreDefined) {
  using Problem = typename TypeParam::Problem;
  const Problem none({0, 0}, 5, 16, 1), no_columns({3}, 0, 16, 1), no_k({2, 1}, 5, 0, 1);
  const auto run = [](const Problem& p) {
    return run_grouped<TypeParam>(p, p.shape, grouped_config<TypeParam>(p.shape));
  };
  EXPECT_TRUE(run(none).empty());
  EXPECT_TRUE(run(no_columns).empty());
  EXPECT_EQ(run(no_k), std::vector<float>(15, 0.0f));
}

// Rows that no tile names stay untouched, and a tile without rows does nothing.
TYPED_TEST_P(GroupedGemmGpu, WritesTheRowsOfItsTilesOnly) {
  const typename TypeParam::Problem p({2, 3}, 33, 64, 60);
  const auto config = grouped_config<TypeParam>(p.shape);
  ASSERT_EQ(config.tile_m, 4u);
  for (const MoeTile& empty : {MoeTile{0, 0, 0, 0}, MoeTile{0, 1, 1, 0}}) {
    GroupedGemmOnDevice<TypeParam> on(p, p.shape, config);
    const std::vector<MoeTile> tiles = {empty, {1, 3, 5, 0}};
    on.tiles->write(std::as_bytes(std::span(tiles)));
    run_once(on, p.shape, config);
    const std::vector<float> d = on.gpu.template values<float>(*on.d);
    for (size_t i = 0; i < d.size(); ++i) EXPECT_EQ(std::isnan(d[i]), i / 33 < 3) << i;
    EXPECT_TRUE(on.d->guards_intact());
  }
}

TYPED_TEST_P(GroupedGemmGpu, ListsWrittenWithoutABarrierAreFoundByTheRecorder) {
  const typename TypeParam::Problem p({2, 3}, 16, 16, 1);
  const auto config = grouped_config<TypeParam>(p.shape);
  GroupedGemmOnDevice<TypeParam> on(p, p.shape, config);
  auto kernel = TypeParam::Kernel::create(*device(), config);
  ASSERT_TRUE(kernel.ok());
  for (const GuardedBuffer* list : {on.tiles, on.indirect}) {
    RecorderOptions options;
    options.check_hazards = true;
    Result<Recorder> recorder = Recorder::create(*device(), options);
    ASSERT_TRUE(recorder.ok());
    const uint64_t offset = list->address() - list->buffer().address();
    ASSERT_TRUE(recorder->fill(list->buffer(), offset, list->bytes(), 0).ok());
    EXPECT_EQ(kernel->record(*recorder, p.shape, on.args).code(), Errc::kHazard);
    recorder->barrier();
    EXPECT_TRUE(kernel->record(*recorder, p.shape, on.args).ok());
    EXPECT_TRUE(recorder->end().ok());
  }
}

TYPED_TEST_P(GroupedGemmGpu, RefusesWrongArguments) {
  using Shape = typename TypeParam::Shape;
  using Args = typename TypeParam::Args;
  const typename TypeParam::Problem p({2, 3}, 16, 16, 1);
  const auto config = grouped_config<TypeParam>(p.shape);
  GroupedGemmOnDevice<TypeParam> on(p, p.shape, config);
  auto kernel = TypeParam::Kernel::create(*device(), config);
  Result<Recorder> recorder = Recorder::create(*device());
  ASSERT_TRUE(kernel.ok() && recorder.ok());
  const auto expect_refused = [&](const std::function<void(Shape&, Args&)>& change,
                                  const std::string& rule) {
    Shape shape = p.shape;
    Args args = on.args;
    change(shape, args);
    EXPECT_EQ(kernel->record(*recorder, shape, args).message(),
              fmt::format("{}: {}", TypeParam::kName, rule));
  };
  expect_refused([](Shape& s, Args&) { s.d_type = ElementType::kBf16; },
                 "d_type must be the configuration's");
  expect_refused([](Shape& s, Args&) { s.tokens = 2; },
                 "tokens must equal rows without a_rows, got 2 and 5");
  expect_refused([](Shape&, Args& a) { a.a = 0x108; }, "a must be 16-byte aligned, got 0x108");
  expect_refused([](Shape&, Args& a) { a.a_rows = 0x102; },
                 "a_rows must be 4-byte aligned, got 0x102");
  expect_refused([](Shape&, Args& a) { a.expert_table = 0x104; },
                 "expert_table must be 8-byte aligned, got 0x104");
  expect_refused([](Shape&, Args& a) { a.tiles = 0x101; },
                 "tiles must be 4-byte aligned, got 0x101");
  expect_refused([](Shape&, Args& a) { a.indirect_buffer = nullptr; },
                 "indirect_buffer must not be null");
  expect_refused([](Shape&, Args& a) { a.indirect_offset = 2; },
                 "indirect_offset must be a multiple of 4, got 2");
  expect_refused([](Shape&, Args& a) { a.indirect_offset = 4096; },
                 fmt::format("indirect_offset must leave 12 bytes of the buffer's {}, got 4096",
                             on.indirect->buffer().bytes()));
  EXPECT_TRUE(recorder->end().ok());
}

REGISTER_TYPED_TEST_SUITE_P(GroupedGemmGpu, MatchesTheReferenceOnRaggedSegments, GathersRowsOfA,
                            HonoursStridesAndNeverUsesPadding, WritesBfloat16,
                            ARowHasTheBitsOfTheDenseKernelInEveryTile,
                            OneRecordingServesEveryContiguousRouting,
                            OneRecordingServesEveryMaskedRouting, EmptyProblemsAreDefined,
                            WritesTheRowsOfItsTilesOnly,
                            ListsWrittenWithoutABarrierAreFoundByTheRecorder,
                            RefusesWrongArguments);

// What check() says of 9 rows, 4 experts, n 20 and k 200 after a change.
template <class K>
void expect_broken_rule(const std::function<void(typename K::Shape&)>& change,
                        const std::string& rule) {
  typename K::Shape shape = K::Shape::packed(9, 4, 20, 200);
  change(shape);
  const Status status = K::check(shape, minimum_caps());
  EXPECT_EQ(status.code(), Errc::kInvalidArgument);
  EXPECT_EQ(status.message(), fmt::format("{}: {}", K::kName, rule));
}

template <class K>
class GroupedGemmHost : public ::testing::Test {};
TYPED_TEST_SUITE_P(GroupedGemmHost);

TYPED_TEST_P(GroupedGemmHost, RefusesEveryBrokenRuleByName) {
  using Shape = typename TypeParam::Shape;
  EXPECT_TRUE(TypeParam::check(Shape::packed(9, 4, 20, 200), minimum_caps()).ok());
  EXPECT_TRUE(TypeParam::check(Shape::packed(0, 0, 20, 200), minimum_caps()).ok());
  const auto refused = expect_broken_rule<TypeParam>;
  refused([](Shape& s) { s.experts = 0; }, "experts must be at least 1 for 9 rows, got 0");
  refused([](Shape& s) { s.tokens = 0; }, "tokens must be at least 1 for 9 rows, got 0");
  refused([](Shape& s) { s.k = 1u << 25; }, "k must be at most 16777216, got 33554432");
  refused([](Shape& s) { s.a_stride = 192; }, "a_stride must be at least k, got 192 < 200");
  refused([](Shape& s) { s.b_stride = 192; }, "b_stride must be at least k, got 192 < 200");
  refused([](Shape& s) { s.d_stride = 19; }, "d_stride must be at least n, got 19 < 20");
  refused([](Shape& s) { s.rows = 16 * 65535; },
          "rows and experts must make at most 65535 tiles of 16 rows, got 65538");
}

TYPED_TEST_P(GroupedGemmHost, ChoicePrintsItselfAndWhatItRejected) {
  const auto config = TypeParam::choose(TypeParam::Shape::packed(8, 8, 256, 256), minimum_caps());
  EXPECT_NE(config.to_string().find("not coopmat: the device has no VK_KHR_cooperative_matrix"),
            std::string::npos);
}

REGISTER_TYPED_TEST_SUITE_P(GroupedGemmHost, RefusesEveryBrokenRuleByName,
                            ChoicePrintsItselfAndWhatItRejected);

}  // namespace hadal::test
