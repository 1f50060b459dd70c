// fp8_grouped_gemm against its reference and against fp8_gemm bit by bit: empty and giant segments,
// gathers, every tile, every refusal.
#include "hadal/fp8_grouped_gemm.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <functional>

#include "hadal/fp8_gemm.h"
#include "hadal/moe_tiles.h"
#include "hadal/recorder.h"
#include "hadal/reference/formats.h"
#include "hadal/reference/fp8_grouped_gemm.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/moe_tiles.h"
#include "support/random.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

struct Problem {
  Fp8GroupedGemmShape shape;
  std::vector<uint32_t> ends, a_rows;  // a_rows empty: identity
  std::vector<uint8_t> a;              // padding 0xff
  std::vector<float> a_scale;
  std::vector<std::vector<uint8_t>> b;  // per expert
  std::vector<std::vector<float>> b_scale;
  std::vector<uint8_t> a_e8m0;  // what the device gets where shape.scales says so
  std::vector<std::vector<uint8_t>> b_e8m0;

  // tokens 0: no gather. `extra` units of padding behind every row.
  Problem(const std::vector<uint32_t>& lengths, uint32_t n, uint32_t k, uint32_t seed,
          uint32_t tokens = 0, uint32_t extra = 0)
      : ends(segment_ends(lengths)) {
    Random random(seed);
    shape = Fp8GroupedGemmShape::packed(ends.back(), uint32_t(ends.size()), n, k);
    shape.a_stride += extra * 16, shape.b_stride += extra * 16;
    shape.a_scale_stride += extra, shape.b_scale_stride += extra, shape.d_stride += extra;
    if (tokens) {
      shape.tokens = tokens;
      for (uint32_t r = 0; r < shape.rows; ++r) a_rows.push_back(random.below(tokens));
    }
    a = codes(random, shape.tokens, k, shape.a_stride);
    a_scale = scales(random, shape.tokens, shape.a_scale_stride);
    for (uint32_t e = 0; e < shape.experts; ++e) {
      b.push_back(codes(random, n, k, shape.b_stride));
      b_scale.push_back(scales(random, ceil_div(n, 128), shape.b_scale_stride));
    }
  }
  // Other scales, of that form.
  void set_scales(Fp8ScaleForm form, uint32_t seed) {
    Random random(seed);
    shape.scales = form;
    a_scale = scales(random, shape.tokens, shape.a_scale_stride);
    if (form.a_type == ScaleType::kE8m0) a_e8m0 = to_e8m0(random, a_scale);
    for (auto& scale : b_scale) {
      scale = scales(random, ceil_div(shape.n, form.b_rows), shape.b_scale_stride);
      if (form.b_type == ScaleType::kE8m0) b_e8m0.push_back(to_e8m0(random, scale));
    }
  }
  // Random codes, and what they stand for in `values`.
  static std::vector<uint8_t> to_e8m0(Random& random, std::vector<float>& values) {
    std::vector<uint8_t> codes;
    for (float& v : values) {
      codes.push_back(uint8_t(117 + random.below(12)));
      v = reference::e8m0_decode(codes.back());
    }
    return codes;
  }
  static std::vector<uint8_t> codes(Random& random, size_t rows, size_t width, size_t stride) {
    std::vector<uint8_t> result = random.e4m3_codes(rows * stride);
    for (size_t i = 0; i < result.size(); ++i) {
      if (i % stride >= width) result[i] = 0xff;
    }
    return result;
  }
  static std::vector<float> scales(Random& random, size_t rows, size_t stride) {
    std::vector<float> values(rows * stride);
    for (float& v : values) v = std::ldexp(random.uniform(0.5f, 1.0f), int(random.below(8)) - 10);
    return values;
  }
};

Fp8GroupedGemmConfig config_of(const Fp8GroupedGemmShape& shape) {
  return fp8_grouped_gemm_choose(shape, device()->caps());
}

// The problem in device memory, each expert's weight in a buffer of its own.
struct OnDevice {
  GpuCase gpu{*device()};
  GuardedBuffer *indirect, *tiles, *d;
  Fp8GroupedGemmArgs args;

  OnDevice(const Problem& p, const Fp8GroupedGemmShape& s, const Fp8GroupedGemmConfig& config) {
    std::vector<ExpertWeight> table;
    for (uint32_t e = 0; e < s.experts; ++e) {
      const GuardedBuffer& scale =
          s.scales.b_type == ScaleType::kE8m0 ? gpu.input(p.b_e8m0[e]) : gpu.input(p.b_scale[e]);
      table.push_back({gpu.input(p.b[e]).address(), scale.address()});
    }
    const MoeTileList list = make_moe_tiles(p.ends, config.tile_m, config.column_groups(s.n));
    tiles = &gpu.input(list.tiles);
    indirect = &gpu.input(std::vector<uint32_t>(list.indirect.begin(), list.indirect.end()));
    d = &gpu.output(s.rows ? ((s.rows - 1) * s.d_stride + s.n) * element_bytes(s.d_type) : 0);
    args.a = gpu.input(p.a).address();
    args.a_scale = s.scales.a_type == ScaleType::kE8m0 ? gpu.input(p.a_e8m0).address()
                                                       : gpu.input(p.a_scale).address();
    if (!p.a_rows.empty()) args.a_rows = gpu.input(p.a_rows).address();
    args.expert_table = gpu.input(table).address(), args.tiles = tiles->address();
    args.indirect_buffer = &indirect->buffer();
    args.indirect_offset = indirect->address() - indirect->buffer().address();
    args.d = d->address();
  }
};

std::vector<float> run(const Problem& problem, const Fp8GroupedGemmShape& shape,
                       const Fp8GroupedGemmConfig& config) {
  OnDevice on(problem, shape, config);
  Result<Fp8GroupedGemm> kernel = Fp8GroupedGemm::create(*device(), config);
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

void expect_matches_reference(const Problem& p, const Fp8GroupedGemmShape& shape) {
  reference::Fp8GroupedGemmInputs inputs{
      p.a.data(), p.a_scale.data(), p.a_rows.empty() ? nullptr : p.a_rows.data(), &p.ends, {}, {}};
  for (const auto& b : p.b) inputs.b.push_back(b.data());
  for (const auto& scale : p.b_scale) inputs.b_scale.push_back(scale.data());
  const auto expected = reference::fp8_grouped_gemm(p.shape, inputs);
  const double u_out = shape.d_type == ElementType::kBf16 ? kUBf16 : 0.0;
  EXPECT_TRUE(matches(fmt::format("fp8_grouped_gemm {} rows, {} experts, {}x{}", shape.rows,
                                  shape.experts, shape.n, shape.k),
                      run(p, shape, config_of(shape)), expected.value, shape.n, [&](size_t i) {
                        return fp8_gemm_bound(shape.k, expected.value[i], expected.magnitude[i],
                                              u_out);
                      }));
}

class Fp8GroupedGemmGpu : public GpuTest {};

TEST_F(Fp8GroupedGemmGpu, MatchesTheReferenceOnRaggedSegments) {
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

TEST_F(Fp8GroupedGemmGpu, GathersRowsOfA) {
  const Problem problem({4, 0, 9, 6}, 41, 150, 20, /*tokens=*/5);
  expect_matches_reference(problem, problem.shape);
}

TEST_F(Fp8GroupedGemmGpu, HonoursStridesAndNeverUsesPadding) {
  const Problem problem({5, 2, 7}, 70, 147, 30, /*tokens=*/6, /*extra=*/3);
  expect_matches_reference(problem, problem.shape);
}

TEST_F(Fp8GroupedGemmGpu, TakesScalesOfEveryForm) {
  using enum ScaleType;
  uint32_t seed = 90;
  for (const Fp8ScaleForm& form :
       {Fp8ScaleForm{kF32, kF32, 1}, {kE8m0, kE8m0, 128}, {kE8m0, kE8m0, 1}, {kF32, kE8m0, 1}}) {
    Problem problem({5, 0, 2, 9}, 131, 300, seed++, /*tokens=*/7, /*extra=*/1);
    problem.set_scales(form, seed);
    expect_matches_reference(problem, problem.shape);
  }
}

TEST_F(Fp8GroupedGemmGpu, WritesBfloat16) {
  const Problem problem({3, 8}, 45, 200, 40);
  Fp8GroupedGemmShape shape = problem.shape;
  shape.d_type = ElementType::kBf16;
  expect_matches_reference(problem, shape);
}

// Rows begin .. end of the problem by fp8_gemm, with one expert's weight.
std::vector<float> dense_rows(const Problem& p, uint32_t expert, uint32_t begin, uint32_t end) {
  GpuCase gpu(*device());
  Fp8GemmShape one = Fp8GemmShape::packed(end - begin, p.shape.n, p.shape.k);
  one.a_stride = p.shape.a_stride, one.a_scale_stride = p.shape.a_scale_stride;
  one.b_stride = p.shape.b_stride, one.b_scale_stride = p.shape.b_scale_stride;
  Result<Fp8Gemm> kernel = Fp8Gemm::create(*device(), fp8_gemm_choose(one, device()->caps()));
  EXPECT_TRUE(kernel.ok());
  const GuardedBuffer &a = gpu.input(p.a), &a_scale = gpu.input(p.a_scale);
  const GuardedBuffer &b = gpu.input(p.b[expert]), &b_scale = gpu.input(p.b_scale[expert]);
  const GuardedBuffer& d = gpu.output(uint64_t(one.m) * one.n * 4);
  gpu.run([&](Recorder& recorder) {
    return kernel->record(
        recorder, one,
        {a.address() + begin * one.a_stride, a_scale.address() + begin * one.a_scale_stride * 4,
         b.address(), b_scale.address(), d.address()});
  });
  return gpu.values<float>(d);
}

// House rule 8: a row has the bits of fp8_gemm with its expert's weight, in every tile.
TEST_F(Fp8GroupedGemmGpu, ARowHasTheBitsOfFp8GemmInEveryTile) {
  const Problem p({3, 0, 21, 1, 8, 45}, 67, 391, 50);
  std::vector<float> expected;
  for (uint32_t e = 0, begin = 0; e < p.shape.experts; begin = p.ends[e++]) {
    if (begin == p.ends[e]) continue;
    for (float v : dense_rows(p, e, begin, p.ends[e])) expected.push_back(v);
  }
  for (uint32_t rows : {1u, 3u, 8u, 24u, 32u}) {
    const auto config = config_of(Fp8GroupedGemmShape::packed(rows, 1, 67, 391));
    EXPECT_EQ(run(p, p.shape, config), expected) << "tile_m " << config.tile_m;
  }
}

// One command buffer (moe_tiles, barrier, GEMM), replayed with other segments in device memory:
// each row that is in a segment has the bits of fp8_gemm, every other row keeps its content.
void expect_replays(bool masked, const std::vector<std::vector<uint32_t>>& routings) {
  constexpr uint32_t kExperts = 5, kMMax = 11, kRows = kExperts * kMMax, kN = 35;
  const Problem p(std::vector<uint32_t>(kExperts, kMMax), kN, 150, 70);
  std::vector<std::vector<float>> dense;  // by expert, all rows
  for (uint32_t e = 0; e < kExperts; ++e) dense.push_back(dense_rows(p, e, 0, kRows));
  Fp8GroupedGemmShape shape = p.shape;
  shape.expected_rows = 20;
  const Fp8GroupedGemmConfig config = config_of(shape);
  OnDevice on(p, shape, config);
  GuardedBuffer& segments = on.gpu.input(std::vector<uint32_t>(kExperts, 0u));
  MoeTilesShape list = masked ? MoeTilesShape::masked_groups(kExperts, kMMax, config.tile_m)
                              : MoeTilesShape::contiguous(kRows, kExperts, config.tile_m);
  list.command_count = 1;
  list.groups_x[0] = config.column_groups(kN);
  Result<MoeTiles> plan = MoeTiles::create(*device(), moe_tiles_choose(list, device()->caps()));
  Result<Fp8GroupedGemm> kernel = Fp8GroupedGemm::create(*device(), config);
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
    const std::vector<float> d = on.gpu.values<float>(*on.d);
    for (size_t i = 0; i < d.size(); ++i) {
      EXPECT_TRUE(d[i] == expected[i] || (std::isnan(d[i]) && std::isnan(expected[i]))) << i;
    }
    EXPECT_TRUE(on.d->guards_intact() && on.tiles->guards_intact());
  }
}

TEST_F(Fp8GroupedGemmGpu, OneRecordingServesEveryContiguousRouting) {
  expect_replays(false, {{0, 0, 0, 0, 0},
                         {3, 3, 14, 20, 55},
                         {55, 55, 55, 55, 55},
                         {0, 0, 0, 0, 55},
                         {1, 2, 3, 4, 5},
                         {0, 17, 17, 18, 40}});
}

TEST_F(Fp8GroupedGemmGpu, OneRecordingServesEveryMaskedRouting) {
  expect_replays(true, {{0, 0, 0, 0, 0}, {3, 0, 11, 1, 5}, {11, 11, 11, 11, 11}, {0, 0, 0, 0, 11}});
}

// Rows a million strides behind the addresses: 16 GiB into a, 4.3 GiB into a_scale and d.
TEST_F(Fp8GroupedGemmGpu, OffsetsOfRowsPassFourGibibytes) {
  const Problem p({2, 3}, 67, 391, 80, /*tokens=*/0, /*extra=*/1100);
  const std::vector<float> expected = run(p, p.shape, config_of(p.shape));
  constexpr uint32_t kFirst = 1000000;
  Fp8GroupedGemmShape shape = p.shape;
  shape.rows = shape.tokens = kFirst + p.shape.rows;
  shape.expected_rows = p.shape.rows;
  const Fp8GroupedGemmConfig config = config_of(shape);
  ASSERT_GT(std::min({uint64_t{shape.a_stride}, uint64_t{shape.a_scale_stride} * 4,
                      uint64_t{shape.d_stride} * 4}) *
                kFirst,
            uint64_t{1} << 32);
  OnDevice on(p, p.shape, config);
  std::vector<MoeTile> tiles;
  for (uint32_t row = 0; row < p.shape.rows; ++row) {
    tiles.push_back({row < 2 ? 0u : 1u, kFirst + row, kFirst + row + 1, 0});
  }
  const GuardedBuffer& list = on.gpu.input(tiles);
  const std::array<uint32_t, 3> command{config.column_groups(shape.n), uint32_t(tiles.size()), 1};
  on.indirect->write(std::as_bytes(std::span(command)));
  on.args.tiles = list.address();
  on.args.a -= uint64_t{kFirst} * shape.a_stride;
  on.args.a_scale -= uint64_t{kFirst} * shape.a_scale_stride * 4;
  on.args.d -= uint64_t{kFirst} * shape.d_stride * 4;
  Result<Fp8GroupedGemm> kernel = Fp8GroupedGemm::create(*device(), config);
  Result<Recorder> recorder = Recorder::create(*device());
  ASSERT_TRUE(kernel.ok() && recorder.ok());
  ASSERT_TRUE(kernel->record(*recorder, shape, on.args).ok());
  ASSERT_TRUE(recorder->end().ok());
  ASSERT_TRUE(device()->run(*recorder).ok());
  EXPECT_EQ(on.gpu.rows<float>(*on.d, p.shape.rows, shape.n, shape.d_stride), expected);
  EXPECT_TRUE(on.d->guards_intact());
}

TEST_F(Fp8GroupedGemmGpu, EmptyProblemsAreDefined) {
  const Problem none({0, 0}, 5, 16, 1), no_columns({3}, 0, 16, 1), no_k({2, 1}, 5, 0, 1);
  EXPECT_TRUE(run(none, none.shape, config_of(none.shape)).empty());
  EXPECT_TRUE(run(no_columns, no_columns.shape, config_of(no_columns.shape)).empty());
  EXPECT_EQ(run(no_k, no_k.shape, config_of(no_k.shape)), std::vector<float>(15, 0.0f));
}

// Rows that no tile names stay untouched, and a tile without rows does nothing.
TEST_F(Fp8GroupedGemmGpu, WritesTheRowsOfItsTilesOnly) {
  const Problem p({2, 3}, 33, 64, 60);
  const Fp8GroupedGemmConfig config = config_of(p.shape);
  ASSERT_EQ(config.tile_m, 4u);
  OnDevice on(p, p.shape, config);
  const std::vector<MoeTile> tiles = {{0, 0, 0, 0}, {1, 3, 5, 0}};
  on.tiles->write(std::as_bytes(std::span(tiles)));
  Result<Fp8GroupedGemm> kernel = Fp8GroupedGemm::create(*device(), config);
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

TEST_F(Fp8GroupedGemmGpu, ListsWrittenWithoutABarrierAreFoundByTheRecorder) {
  const Problem p({2, 3}, 16, 16, 1);
  const Fp8GroupedGemmConfig config = config_of(p.shape);
  OnDevice on(p, p.shape, config);
  Result<Fp8GroupedGemm> kernel = Fp8GroupedGemm::create(*device(), config);
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

TEST_F(Fp8GroupedGemmGpu, RefusesWrongArguments) {
  const Problem p({2, 3}, 16, 16, 1);
  OnDevice on(p, p.shape, config_of(p.shape));
  Result<Fp8GroupedGemm> kernel = Fp8GroupedGemm::create(*device(), config_of(p.shape));
  Result<Recorder> recorder = Recorder::create(*device());
  ASSERT_TRUE(kernel.ok() && recorder.ok());
  using Args = Fp8GroupedGemmArgs;
  const auto refused = [&](const std::function<void(Fp8GroupedGemmShape&, Args&)>& change) {
    Fp8GroupedGemmShape shape = p.shape;
    Args args = on.args;
    change(shape, args);
    return kernel->record(*recorder, shape, args).message();
  };
  EXPECT_EQ(refused([](auto& s, Args&) { s.d_type = ElementType::kBf16; }),
            "fp8_grouped_gemm: d_type must be the configuration's");
  EXPECT_EQ(refused([](auto& s, Args&) { s.scales.b_rows = 1; }),
            "fp8_grouped_gemm: scales must be the configuration's");
  EXPECT_EQ(refused([](auto& s, Args&) { s.tokens = 2; }),
            "fp8_grouped_gemm: tokens must equal rows without a_rows, got 2 and 5");
  EXPECT_EQ(refused([](auto&, Args& a) { a.a = 0x108; }),
            "fp8_grouped_gemm: a must be 16-byte aligned, got 0x108");
  EXPECT_EQ(refused([](auto&, Args& a) { a.a_rows = 0x102; }),
            "fp8_grouped_gemm: a_rows must be 4-byte aligned, got 0x102");
  EXPECT_EQ(refused([](auto&, Args& a) { a.expert_table = 0x104; }),
            "fp8_grouped_gemm: expert_table must be 8-byte aligned, got 0x104");
  EXPECT_EQ(refused([](auto&, Args& a) { a.tiles = 0x101; }),
            "fp8_grouped_gemm: tiles must be 4-byte aligned, got 0x101");
  EXPECT_EQ(refused([](auto&, Args& a) { a.indirect_buffer = nullptr; }),
            "fp8_grouped_gemm: indirect_buffer must not be null");
  EXPECT_EQ(refused([](auto&, Args& a) { a.indirect_offset = 2; }),
            "fp8_grouped_gemm: indirect_offset must be a multiple of 4, got 2");
  EXPECT_EQ(refused([](auto&, Args& a) { a.indirect_offset = 4096; }),
            fmt::format("fp8_grouped_gemm: indirect_offset must leave 12 bytes of the buffer's {}, "
                        "got 4096",
                        on.indirect->buffer().bytes()));
  EXPECT_TRUE(recorder->end().ok());
}

TEST(Fp8GroupedGemmHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const auto refused = [&](const std::function<void(Fp8GroupedGemmShape&)>& change) {
    Fp8GroupedGemmShape shape = Fp8GroupedGemmShape::packed(9, 4, 20, 200);
    change(shape);
    const Status status = fp8_grouped_gemm_check(shape, caps);
    EXPECT_EQ(status.code(), Errc::kInvalidArgument);
    return status.message();
  };
  EXPECT_TRUE(fp8_grouped_gemm_check(Fp8GroupedGemmShape::packed(9, 4, 20, 200), caps).ok());
  EXPECT_TRUE(fp8_grouped_gemm_check(Fp8GroupedGemmShape::packed(0, 0, 20, 200), caps).ok());
  EXPECT_EQ(refused([](auto& s) { s.experts = 0; }),
            "fp8_grouped_gemm: experts must be at least 1 for 9 rows, got 0");
  EXPECT_EQ(refused([](auto& s) { s.tokens = 0; }),
            "fp8_grouped_gemm: tokens must be at least 1 for 9 rows, got 0");
  EXPECT_EQ(refused([](auto& s) { s.k = 1u << 25; }),
            "fp8_grouped_gemm: k must be at most 16777216, got 33554432");
  EXPECT_EQ(refused([](auto& s) { s.a_stride = 192; }),
            "fp8_grouped_gemm: a_stride must be at least k, got 192 < 200");
  EXPECT_EQ(refused([](auto& s) { s.a_stride = 201; }),
            "fp8_grouped_gemm: a_stride must be a multiple of 16 bytes, got 201");
  EXPECT_EQ(refused([](auto& s) { s.b_stride = 192; }),
            "fp8_grouped_gemm: b_stride must be at least k, got 192 < 200");
  EXPECT_EQ(refused([](auto& s) { s.b_stride = 201; }),
            "fp8_grouped_gemm: b_stride must be a multiple of 16 bytes, got 201");
  EXPECT_EQ(refused([](auto& s) { s.a_scale_stride = 1; }),
            "fp8_grouped_gemm: a_scale_stride must be at least ceil(k/128), got 1 < 2");
  EXPECT_EQ(refused([](auto& s) { s.b_scale_stride = 1; }),
            "fp8_grouped_gemm: b_scale_stride must be at least ceil(k/128), got 1 < 2");
  EXPECT_EQ(refused([](auto& s) { s.scales.b_rows = 0; }),
            "fp8_grouped_gemm: scales.b_rows must be 128 or 1, got 0");
  EXPECT_EQ(refused([](auto& s) { s.d_stride = 19; }),
            "fp8_grouped_gemm: d_stride must be at least n, got 19 < 20");
  EXPECT_EQ(
      refused([](auto& s) { s.rows = 16 * 65535; }),
      "fp8_grouped_gemm: rows and experts must make at most 65535 tiles of 16 rows, got 65538");
}

TEST(Fp8GroupedGemmHost, TheTileFollowsTheRowsPerExpert) {
  Caps caps = minimum_caps();
  caps.is_cpu = true;  // takes the portable path
  const auto tile_m = [&](uint32_t rows, uint32_t experts) {
    return fp8_grouped_gemm_choose(Fp8GroupedGemmShape::packed(rows, experts, 64, 64), caps).tile_m;
  };
  EXPECT_EQ(tile_m(1, 1), 1u);
  EXPECT_EQ(tile_m(64, 256), 1u);
  EXPECT_EQ(tile_m(512, 256), 4u);
  EXPECT_EQ(tile_m(2048, 256), 8u);
  EXPECT_EQ(tile_m(8192, 256), 16u);
  EXPECT_EQ(tile_m(160000, 40000), 8u);  // 4 would make up to 70000 tiles, more than workgroups
}

TEST(Fp8GroupedGemmHost, TheTileFollowsTheExpectedRowsOfMaskedGroups) {
  Fp8GroupedGemmShape shape = Fp8GroupedGemmShape::packed(32 * 192, 32, 64, 64);
  const auto tile_m = [&](uint32_t expected_rows) {
    shape.expected_rows = expected_rows;
    return fp8_grouped_gemm_choose(shape, minimum_caps()).tile_m;
  };
  EXPECT_EQ(tile_m(0), tile_m(32 * 192));
  EXPECT_EQ(tile_m(32 * 192 + 1), tile_m(32 * 192));
  EXPECT_LT(tile_m(32), tile_m(32 * 192));
}

TEST(Fp8GroupedGemmHost, NoSpreadOfRowsMakesMoreTilesThanTheCapacity) {
  Random random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<uint32_t> lengths(1 + random.below(9));
    for (uint32_t& length : lengths) length = random.below(3) ? random.below(40) : 0;
    for (uint32_t tile_m : {1u, 4u, 8u, 16u}) {
      const std::vector<uint32_t> ends = segment_ends(lengths);
      const MoeTileList list = make_moe_tiles(ends, tile_m, 1);
      EXPECT_LE(list.indirect[1],
                grouped_gemm_max_tiles(ends.back(), uint32_t(ends.size()), tile_m));
    }
  }
  EXPECT_EQ(grouped_gemm_max_tiles(20, 4, 16), 5u);  // 1 + 1 + 1 + 17: reached
  EXPECT_EQ(grouped_gemm_max_tiles(0, 4, 16), 0u);
}

TEST(Fp8GroupedGemmHost, ChoicePrintsItselfAndWhatItRejected) {
  const auto config =
      fp8_grouped_gemm_choose(Fp8GroupedGemmShape::packed(8, 8, 256, 256), minimum_caps());
  EXPECT_NE(config.to_string().find("not coopmat: the device has no VK_KHR_cooperative_matrix"),
            std::string::npos);
}

}  // namespace
}  // namespace hadal::test
