// bf16_grouped_gemm against its reference and against bf16_gemm bit by bit: empty and giant
// segments, gathers, every tile, every refusal.
#include "hadal/bf16_grouped_gemm.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "hadal/bf16_gemm.h"
#include "hadal/moe_tiles.h"
#include "hadal/recorder.h"
#include "hadal/reference/bf16_grouped_gemm.h"
#include "hadal/reference/formats.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/moe_tiles.h"
#include "support/random.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

struct Problem {
  Bf16GroupedGemmShape shape;
  std::vector<uint32_t> ends, a_rows;    // a_rows empty: identity
  std::vector<float> a;                  // padding NaN
  std::vector<std::vector<uint16_t>> b;  // per expert, padding NaN

  // tokens 0: no gather. `extra` units of padding behind every row.
  Problem(const std::vector<uint32_t>& lengths, uint32_t n, uint32_t k, uint32_t seed,
          uint32_t tokens = 0, uint32_t extra = 0)
      : ends(segment_ends(lengths)) {
    Random random(seed);
    shape = Bf16GroupedGemmShape::packed(ends.back(), uint32_t(ends.size()), n, k);
    shape.a_stride += extra * 4, shape.b_stride += extra * 8, shape.d_stride += extra;
    if (tokens) {
      shape.tokens = tokens;
      for (uint32_t r = 0; r < shape.rows; ++r) a_rows.push_back(random.below(tokens));
    }
    a.assign(size_t(shape.tokens) * shape.a_stride, NAN);
    for (size_t i = 0; i < a.size(); ++i) {
      if (i % shape.a_stride < k) a[i] = value(random);
    }
    for (uint32_t e = 0; e < shape.experts; ++e) {
      b.emplace_back(size_t(n) * shape.b_stride, uint16_t(0xffff));
      for (size_t i = 0; i < b[e].size(); ++i) {
        if (i % shape.b_stride < k) b[e][i] = reference::bf16_encode(value(random));
      }
    }
  }
  // Over several binades, so that a misplaced value shows.
  static float value(Random& random) { return std::ldexp(random.normal(), int(random.below(6))); }
};

Bf16GroupedGemmConfig config_of(const Bf16GroupedGemmShape& shape) {
  return bf16_grouped_gemm_choose(shape, device()->caps());
}

// The problem in device memory, each expert's weight in a buffer of its own.
struct OnDevice {
  GpuCase gpu{*device()};
  GuardedBuffer *indirect, *tiles, *d;
  Bf16GroupedGemmArgs args;

  OnDevice(const Problem& p, const Bf16GroupedGemmShape& s, const Bf16GroupedGemmConfig& config) {
    std::vector<ExpertWeight> table;
    for (uint32_t e = 0; e < s.experts; ++e) {
      table.push_back({gpu.input(p.b[e]).address(), 0});
    }
    const MoeTileList list = make_moe_tiles(p.ends, config.tile_m, config.column_groups(s.n));
    tiles = &gpu.input(list.tiles);
    indirect = &gpu.input(std::vector<uint32_t>(list.indirect.begin(), list.indirect.end()));
    d = &gpu.output(s.rows ? ((s.rows - 1) * s.d_stride + s.n) * element_bytes(s.d_type) : 0);
    args.a = gpu.input(p.a).address();
    if (!p.a_rows.empty()) args.a_rows = gpu.input(p.a_rows).address();
    args.expert_table = gpu.input(table).address(), args.tiles = tiles->address();
    args.indirect_buffer = &indirect->buffer();
    args.indirect_offset = indirect->address() - indirect->buffer().address();
    args.d = d->address();
  }
};

std::vector<float> run(const Problem& problem, const Bf16GroupedGemmShape& shape,
                       const Bf16GroupedGemmConfig& config) {
  OnDevice on(problem, shape, config);
  Result<Bf16GroupedGemm> kernel = Bf16GroupedGemm::create(*device(), config);
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  on.gpu.run([&](Recorder& recorder) { return kernel->record(recorder, shape, on.args); });
  if (shape.d_type == ElementType::kF32)
    return on.gpu.rows<float>(*on.d, shape.rows, shape.n, shape.d_stride);
  std::vector<float> result;
  for (uint16_t v : on.gpu.rows<uint16_t>(*on.d, shape.rows, shape.n, shape.d_stride)) {
    result.push_back(reference::bf16_decode(v));
  }
  return result;
}

void expect_matches_reference(const Problem& p, const Bf16GroupedGemmShape& shape) {
  reference::Bf16GroupedGemmInputs inputs{
      p.a.data(), p.a_rows.empty() ? nullptr : p.a_rows.data(), &p.ends, {}};
  for (const auto& b : p.b) inputs.b.push_back(b.data());
  const auto expected = reference::bf16_grouped_gemm(p.shape, inputs);
  const double u_out = shape.d_type == ElementType::kBf16 ? kUBf16 : 0.0;
  EXPECT_TRUE(matches(fmt::format("bf16_grouped_gemm {} rows, {} experts, {}x{}", shape.rows,
                                  shape.experts, shape.n, shape.k),
                      run(p, shape, config_of(shape)), expected.value, shape.n, [&](size_t i) {
                        return bf16_gemm_bound(shape.k, expected.value[i], expected.magnitude[i],
                                               u_out);
                      }));
}

class Bf16GroupedGemmGpu : public GpuTest {};

TEST_F(Bf16GroupedGemmGpu, MatchesTheReferenceOnRaggedSegments) {
  uint32_t seed = 1;
  for (const auto& [lengths, n, k] :
       std::vector<std::tuple<std::vector<uint32_t>, uint32_t, uint32_t>>{
           {{1}, 1, 1},                            // one of everything
           {{0, 1, 0, 2, 0}, 37, 131},             // empty first, between and last
           {{3, 17, 0, 5, 1}, 129, 140},           // one past a tile
           {{0, 67, 0}, 31, 259},                  // one giant segment
           {{16, 32, 15, 33}, 70, 128},            // at and around whole tiles
           {{0, 0, 1, 0, 0, 0, 0, 1}, 45, 16}}) {  // fewer rows than experts
    const Problem problem(lengths, n, k, seed++);
    expect_matches_reference(problem, problem.shape);
  }
}

// One command buffer for every count of the masked form: rows that are there have the bits of the
// full groups', the others keep their content.
TEST_F(Bf16GroupedGemmGpu, OneRecordingServesEveryMaskedRouting) {
  constexpr uint32_t kExperts = 4, kMMax = 10, kN = 35;
  const Problem p(std::vector<uint32_t>(kExperts, kMMax), kN, 140, 90);
  const std::vector<float> full = run(p, p.shape, config_of(p.shape));
  Bf16GroupedGemmShape shape = p.shape;
  shape.expected_rows = 12;
  const Bf16GroupedGemmConfig config = config_of(shape);
  OnDevice on(p, shape, config);
  GuardedBuffer& counts = on.gpu.input(std::vector<uint32_t>(kExperts, 0u));
  MoeTilesShape list = MoeTilesShape::masked_groups(kExperts, kMMax, config.tile_m);
  list.command_count = 1, list.groups_x[0] = config.column_groups(kN);
  const auto plan = MoeTiles::create(*device(), moe_tiles_choose(list, device()->caps()));
  const auto kernel = Bf16GroupedGemm::create(*device(), config);
  Result<Recorder> recorder = Recorder::create(*device());
  ASSERT_TRUE(plan.ok() && kernel.ok() && recorder.ok());
  const MoeTilesArgs plan_args{counts.address(), on.tiles->address(), on.indirect->address()};
  ASSERT_TRUE(plan->record(*recorder, list, plan_args).ok());
  recorder->barrier();
  ASSERT_TRUE(kernel->record(*recorder, shape, on.args).ok());
  ASSERT_TRUE(recorder->end().ok());
  for (const auto& routing : {std::vector<uint32_t>{0, 0, 0, 0}, {10, 10, 10, 10}, {3, 0, 10, 1}}) {
    counts.write(std::as_bytes(std::span(routing)));
    on.d->write(std::vector<std::byte>(on.d->bytes(), std::byte{0xff}));
    ASSERT_TRUE(device()->run(*recorder).ok());
    const std::vector<float> d = on.gpu.values<float>(*on.d);
    for (size_t i = 0; i < d.size(); ++i) {
      const size_t row = i / kN;
      const bool there = row % kMMax < routing[row / kMMax];
      EXPECT_TRUE(there ? d[i] == full[i] : std::isnan(d[i])) << "row " << row;
    }
    EXPECT_TRUE(on.d->guards_intact());
  }
}

TEST_F(Bf16GroupedGemmGpu, GathersRowsOfA) {
  const Problem problem({4, 0, 9, 6}, 41, 150, 20, /*tokens=*/5);
  expect_matches_reference(problem, problem.shape);
}

TEST_F(Bf16GroupedGemmGpu, HonoursStridesAndNeverUsesPadding) {
  const Problem problem({5, 2, 7}, 70, 147, 30, /*tokens=*/6, /*extra=*/3);
  expect_matches_reference(problem, problem.shape);
}

TEST_F(Bf16GroupedGemmGpu, WritesBfloat16) {
  const Problem problem({3, 8}, 45, 200, 40);
  Bf16GroupedGemmShape shape = problem.shape;
  shape.d_type = ElementType::kBf16;
  expect_matches_reference(problem, shape);
}

// House rule 8: a row has the bits of bf16_gemm with its expert's weight, in every tile.
TEST_F(Bf16GroupedGemmGpu, ARowHasTheBitsOfBf16GemmInEveryTile) {
  const Problem p({3, 0, 21, 1, 8}, 67, 391, 50);
  std::vector<float> expected;
  for (uint32_t e = 0, begin = 0; e < p.shape.experts; begin = p.ends[e++]) {
    if (begin == p.ends[e]) continue;
    GpuCase gpu(*device());
    const Bf16GemmShape one = Bf16GemmShape::packed(p.ends[e] - begin, 67, 391);
    Result<Bf16Gemm> kernel = Bf16Gemm::create(*device(), bf16_gemm_choose(one, device()->caps()));
    ASSERT_TRUE(kernel.ok());
    const GuardedBuffer &a = gpu.input(p.a), &b = gpu.input(p.b[e]);
    const GuardedBuffer& d = gpu.output(uint64_t(one.m) * one.n * 4);
    gpu.run([&](Recorder& recorder) {
      return kernel->record(recorder, one,
                            {a.address() + begin * one.a_stride * 4, b.address(), d.address()});
    });
    for (float v : gpu.values<float>(d)) expected.push_back(v);
  }
  for (uint32_t rows : {1u, 3u, 8u, 32u}) {
    const auto config = config_of(Bf16GroupedGemmShape::packed(rows, 1, 67, 391));
    EXPECT_EQ(run(p, p.shape, config), expected) << "tile_m " << config.tile_m;
  }
}

TEST_F(Bf16GroupedGemmGpu, EmptyProblemsAreDefined) {
  const Problem none({0, 0}, 5, 16, 1), no_columns({3}, 0, 16, 1), no_k({2, 1}, 5, 0, 1);
  EXPECT_TRUE(run(none, none.shape, config_of(none.shape)).empty());
  EXPECT_TRUE(run(no_columns, no_columns.shape, config_of(no_columns.shape)).empty());
  EXPECT_EQ(run(no_k, no_k.shape, config_of(no_k.shape)), std::vector<float>(15, 0.0f));
}

// Rows that no tile names stay untouched, and a tile without rows does nothing.
TEST_F(Bf16GroupedGemmGpu, WritesTheRowsOfItsTilesOnly) {
  const Problem p({2, 3}, 33, 64, 60);
  const Bf16GroupedGemmConfig config = config_of(p.shape);
  ASSERT_EQ(config.tile_m, 4u);
  OnDevice on(p, p.shape, config);
  const std::vector<MoeTile> tiles = {{0, 1, 1, 0}, {1, 3, 5, 0}};
  on.tiles->write(std::as_bytes(std::span(tiles)));
  Result<Bf16GroupedGemm> kernel = Bf16GroupedGemm::create(*device(), config);
  ASSERT_TRUE(kernel.ok());
  Result<Recorder> recorder = Recorder::create(*device());
  ASSERT_TRUE(recorder.ok());
  ASSERT_TRUE(kernel->record(*recorder, p.shape, on.args).ok());
  ASSERT_TRUE(recorder->end().ok());
  ASSERT_TRUE(device()->run(*recorder).ok());
  const std::vector<float> d = on.gpu.values<float>(*on.d);
  for (size_t i = 0; i < d.size(); ++i) EXPECT_EQ(std::isnan(d[i]), i / 33 < 3) << i;
  EXPECT_TRUE(on.d->guards_intact());
}

TEST_F(Bf16GroupedGemmGpu, ListsWrittenWithoutABarrierAreFoundByTheRecorder) {
  const Problem p({2, 3}, 16, 16, 1);
  const Bf16GroupedGemmConfig config = config_of(p.shape);
  OnDevice on(p, p.shape, config);
  Result<Bf16GroupedGemm> kernel = Bf16GroupedGemm::create(*device(), config);
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

TEST_F(Bf16GroupedGemmGpu, RefusesWrongArguments) {
  const Problem p({2, 3}, 16, 16, 1);
  OnDevice on(p, p.shape, config_of(p.shape));
  Result<Bf16GroupedGemm> kernel = Bf16GroupedGemm::create(*device(), config_of(p.shape));
  Result<Recorder> recorder = Recorder::create(*device());
  ASSERT_TRUE(kernel.ok() && recorder.ok());
  using Args = Bf16GroupedGemmArgs;
  const auto refused = [&](const std::function<void(Bf16GroupedGemmShape&, Args&)>& change) {
    Bf16GroupedGemmShape shape = p.shape;
    Args args = on.args;
    change(shape, args);
    return kernel->record(*recorder, shape, args).message();
  };
  EXPECT_EQ(refused([](auto& s, Args&) { s.d_type = ElementType::kBf16; }),
            "bf16_grouped_gemm: d_type must be the configuration's");
  EXPECT_EQ(refused([](auto& s, Args&) { s.tokens = 2; }),
            "bf16_grouped_gemm: tokens must equal rows without a_rows, got 2 and 5");
  EXPECT_EQ(refused([](auto&, Args& a) { a.a = 0x108; }),
            "bf16_grouped_gemm: a must be 16-byte aligned, got 0x108");
  EXPECT_EQ(refused([](auto&, Args& a) { a.a_rows = 0x102; }),
            "bf16_grouped_gemm: a_rows must be 4-byte aligned, got 0x102");
  EXPECT_EQ(refused([](auto&, Args& a) { a.expert_table = 0x104; }),
            "bf16_grouped_gemm: expert_table must be 8-byte aligned, got 0x104");
  EXPECT_EQ(refused([](auto&, Args& a) { a.tiles = 0x101; }),
            "bf16_grouped_gemm: tiles must be 4-byte aligned, got 0x101");
  EXPECT_EQ(refused([](auto&, Args& a) { a.indirect_buffer = nullptr; }),
            "bf16_grouped_gemm: indirect_buffer must not be null");
  EXPECT_EQ(refused([](auto&, Args& a) { a.indirect_offset = 2; }),
            "bf16_grouped_gemm: indirect_offset must be a multiple of 4, got 2");
  EXPECT_EQ(
      refused([](auto&, Args& a) { a.indirect_offset = 4096; }),
      fmt::format("bf16_grouped_gemm: indirect_offset must leave 12 bytes of the buffer's {}, "
                  "got 4096",
                  on.indirect->buffer().bytes()));
  EXPECT_TRUE(recorder->end().ok());
}

TEST(Bf16GroupedGemmHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const auto refused = [&](const std::function<void(Bf16GroupedGemmShape&)>& change) {
    Bf16GroupedGemmShape shape = Bf16GroupedGemmShape::packed(9, 4, 20, 200);
    change(shape);
    const Status status = bf16_grouped_gemm_check(shape, caps);
    EXPECT_EQ(status.code(), Errc::kInvalidArgument);
    return status.message();
  };
  EXPECT_TRUE(bf16_grouped_gemm_check(Bf16GroupedGemmShape::packed(9, 4, 20, 200), caps).ok());
  EXPECT_TRUE(bf16_grouped_gemm_check(Bf16GroupedGemmShape::packed(0, 0, 20, 200), caps).ok());
  EXPECT_EQ(refused([](auto& s) { s.experts = 0; }),
            "bf16_grouped_gemm: experts must be at least 1 for 9 rows, got 0");
  EXPECT_EQ(refused([](auto& s) { s.tokens = 0; }),
            "bf16_grouped_gemm: tokens must be at least 1 for 9 rows, got 0");
  EXPECT_EQ(refused([](auto& s) { s.k = 1u << 25; }),
            "bf16_grouped_gemm: k must be at most 16777216, got 33554432");
  EXPECT_EQ(refused([](auto& s) { s.a_stride = 192; }),
            "bf16_grouped_gemm: a_stride must be at least k, got 192 < 200");
  EXPECT_EQ(refused([](auto& s) { s.a_stride = 202; }),
            "bf16_grouped_gemm: a_stride must be a multiple of 4 elements (16 bytes), got 202");
  EXPECT_EQ(refused([](auto& s) { s.b_stride = 192; }),
            "bf16_grouped_gemm: b_stride must be at least k, got 192 < 200");
  EXPECT_EQ(refused([](auto& s) { s.b_stride = 204; }),
            "bf16_grouped_gemm: b_stride must be a multiple of 8 elements (16 bytes), got 204");
  EXPECT_EQ(refused([](auto& s) { s.d_stride = 19; }),
            "bf16_grouped_gemm: d_stride must be at least n, got 19 < 20");
  EXPECT_EQ(
      refused([](auto& s) { s.rows = 16 * 65535; }),
      "bf16_grouped_gemm: rows and experts must make at most 65535 tiles of 16 rows, got 65538");
}

TEST(Bf16GroupedGemmHost, ChoicePrintsItselfAndWhatItRejected) {
  const auto config =
      bf16_grouped_gemm_choose(Bf16GroupedGemmShape::packed(8, 8, 256, 256), minimum_caps());
  EXPECT_NE(config.to_string().find("not coopmat: the device has no VK_KHR_cooperative_matrix"),
            std::string::npos);
}

}  // namespace
}  // namespace hadal::test
