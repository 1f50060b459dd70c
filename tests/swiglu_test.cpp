// swiglu: against its reference within a derived bound, extreme gates, fused quantisation bit for
// bit.
#include "hadal/swiglu.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "hadal/fp8_quantize.h"
#include "hadal/grouped_gemm.h"
#include "hadal/reference/fp8_quantize.h"
#include "hadal/reference/swiglu.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/same_bits.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

struct Problem {
  SwigluShape shape;
  std::vector<float> gate, up;  // dense

  Problem(uint32_t rows, uint32_t n, uint32_t seed) : shape(SwigluShape::packed(rows, n)) {
    Random random(seed);
    gate = random.normals(size_t(rows) * n, 6.0f);
    up = random.normals(size_t(rows) * n, 2.0f);
  }
};

struct Outputs {
  std::vector<float> y, scale;
  std::vector<uint8_t> q;
};

Outputs run(const Problem& p, const SwigluShape& s, uint32_t workgroup_size = 0) {
  GpuCase gpu(*device());
  GuardedBuffer& gate = gpu.input_rows(p.gate, s.n, s.gate_stride);
  GuardedBuffer& up = gpu.input_rows(p.up, s.n, s.up_stride);
  GuardedBuffer& y = gpu.output(uint64_t{s.rows} * s.y_stride * 4);
  GuardedBuffer& q = gpu.output(uint64_t{s.rows} * s.q_stride);
  GuardedBuffer& scale = gpu.output(uint64_t{s.rows} * s.scale_stride * 4);
  SwigluConfig config = swiglu_choose(s, device()->caps());
  if (workgroup_size) config.workgroup_size = workgroup_size, config.row_vectors = false;
  const auto kernel = Swiglu::create(*device(), config);
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  const SwigluArgs args{gate.address(), up.address(), s.write_y ? y.address() : 0,
                        s.quantize ? q.address() : 0, s.quantize ? scale.address() : 0};
  gpu.run([&](Recorder& recorder) { return kernel->record(recorder, s, args); });
  // What is not asked for must stay untouched: a width of 0 checks the whole row.
  return {gpu.rows<float>(y, s.rows, s.write_y ? s.n : 0, s.y_stride),
          gpu.rows<float>(scale, s.rows, s.quantize ? ceil_div(s.n, 128) : 0, s.scale_stride),
          gpu.rows<uint8_t>(q, s.rows, s.quantize ? s.n : 0, s.q_stride)};
}

void expect_reference(const Problem& p, const SwigluShape& s, uint32_t workgroup_size = 0) {
  SwigluShape dense = s;
  dense.gate_stride = dense.up_stride = s.n;
  const std::vector<double> expected = reference::swiglu(dense, {p.gate.data(), p.up.data()});
  const Outputs actual = run(p, s, workgroup_size);
  EXPECT_TRUE(matches(fmt::format("swiglu {}x{}", s.rows, s.n), actual.y, expected, s.n,
                      [&](size_t i) { return swiglu_bound(p.gate[i], p.up[i], expected[i]); }));
  if (s.quantize) {
    const auto q = reference::fp8_quantize(s.rows, s.n, actual.y.data(), s.n, s.scale_format);
    EXPECT_TRUE(same_bits(actual.q, q.codes, s.n));
    EXPECT_TRUE(same_bits(actual.scale, q.scales, ceil_div(s.n, 128)));
  }
}

class SwigluGpu : public GpuTest {};

// The tile list's rows get Swiglu's bits, all others keep their content.
TEST_F(SwigluGpu, TilesTakeTheirRowsOnly) {
  for (auto [n, write_y, quantize] : {std::tuple{37u, true, true},
                                      {300u, true, true},
                                      {2500u, false, true},
                                      {129u, true, false}}) {
    Problem p(23, n, n);
    p.shape.write_y = write_y, p.shape.quantize = quantize;
    p.shape.gate_stride += 1, p.shape.y_stride += 2, p.shape.scale_stride += 3;
    const Outputs all = run(p, p.shape);
    GpuCase gpu(*device());
    const SwigluConfig config = swiglu_choose(p.shape, device()->caps());
    const std::vector<MoeTile> tiles = {{0, 1, 4, 0}, {1, 4, 5, 0}, {3, 9, 9, 0}, {7, 20, 23, 0}};
    GuardedBuffer& list = gpu.input(tiles);
    GuardedBuffer& command = gpu.input(std::vector<uint32_t>{config.runs(n), 4, 1});
    GuardedBuffer& gate = gpu.input_rows(p.gate, n, p.shape.gate_stride);
    GuardedBuffer& up = gpu.input_rows(p.up, n, p.shape.up_stride);
    GuardedBuffer& y = gpu.output(uint64_t{23} * p.shape.y_stride * 4);
    GuardedBuffer& q = gpu.output(uint64_t{23} * p.shape.q_stride);
    GuardedBuffer& scale = gpu.output(uint64_t{23} * p.shape.scale_stride * 4);
    const auto kernel = SwigluTiles::create(*device(), config);
    ASSERT_TRUE(kernel.ok()) << kernel.status().message();
    const SwigluTilesArgs args{
        {gate.address(), up.address(), y.address(), q.address(), scale.address()},
        list.address(),
        4,
        &command.buffer(),
        command.address() - command.buffer().address()};
    gpu.run([&](Recorder& recorder) { return kernel->record(recorder, p.shape, args); });
    const uint32_t groups = ceil_div(n, 128);
    const auto y_rows = gpu.rows<float>(y, 23, write_y ? n : 0, p.shape.y_stride);
    const auto q_rows = gpu.rows<uint8_t>(q, 23, quantize ? n : 0, p.shape.q_stride);
    const auto s_rows = gpu.rows<float>(scale, 23, quantize ? groups : 0, p.shape.scale_stride);
    for (uint32_t row = 0; row < 23; ++row) {
      const bool in = (row >= 1 && row < 5) || row >= 20;
      const auto expect = [&](const auto& got, const auto& expected, size_t width, auto untouched) {
        for (size_t i = row * width; i < (row + 1) * width && i < got.size(); ++i) {
          EXPECT_TRUE(same_bits(got[i], in ? expected[i] : untouched)) << "row " << row;
        }
      };
      expect(y_rows, all.y, n, NAN);
      expect(q_rows, all.q, n, uint8_t{0xff});
      expect(s_rows, all.scale, groups, NAN);
    }
  }
}

TEST_F(SwigluGpu, TilesRefuseWrongLists) {
  const SwigluShape shape = SwigluShape::packed(3, 5);
  const auto kernel = SwigluTiles::create(*device(), swiglu_choose(shape, device()->caps()));
  Result<Recorder> recorder = Recorder::create(*device());
  ASSERT_TRUE(kernel.ok() && recorder.ok());
  SwigluTilesArgs args;
  EXPECT_EQ(kernel->record(*recorder, shape, args).message(),
            "swiglu: tiles must be 4-byte aligned, got 0x0");
  args.tiles = 16;
  EXPECT_EQ(kernel->record(*recorder, shape, args).message(),
            "swiglu: indirect_buffer must not be null");
  args.operands.q = 8;
  EXPECT_EQ(kernel->record(*recorder, shape, args).message(),
            "swiglu: q must be 16-byte aligned, got 0x8");
  EXPECT_TRUE(recorder->end().ok());
}

TEST(SwigluHost, TilesTakeAnyNumberOfRows) {
  const SwigluShape shape = SwigluShape::packed(1u << 20, 256);
  EXPECT_FALSE(swiglu_check(shape, minimum_caps()).ok());
  EXPECT_TRUE(swiglu_tiles_check(shape, minimum_caps()).ok());
  EXPECT_EQ((SwigluConfig{16, 3}.runs(128 * 7 + 1)), 3u);
}

TEST_F(SwigluGpu, MatchesTheReferenceOnRaggedSizes) {
  uint32_t seed = 1;
  for (auto [rows, n] : {std::pair{1u, 1u},
                         {2u, 3u},
                         {3u, 127u},
                         {5u, 128u},
                         {7u, 131u},
                         {4u, 391u},
                         {3u, 2048u},
                         {1u, 18432u}}) {
    const Problem p(rows, n, seed++);
    SwigluShape s = p.shape;
    expect_reference(p, s);
    s.quantize = true;
    s.scale_format = rows % 2 ? ScaleFormat::kFp32 : ScaleFormat::kUe8m0;
    s.gate_stride += 3, s.up_stride += 1, s.y_stride += 5, s.q_stride += 16, s.scale_stride += 2;
    expect_reference(p, s);
  }
}

TEST_F(SwigluGpu, AnyWorkgroupSizeMatches) {
  Problem p(3, 421, 25);
  p.shape.quantize = true;
  for (uint32_t size : {4u, 8u, 16u, 32u}) expect_reference(p, p.shape, size);
}

TEST_F(SwigluGpu, ExtremeGatesGiveNoNan) {
  const std::vector<float> gates = {0.0f,     -0.0f,    1e-30f,    -1e-30f, 20.0f,  -20.0f,
                                    86.9f,    -86.9f,   87.0f,     -87.0f,  -87.1f, 88.8f,
                                    -88.8f,   1000.0f,  -1000.f,   1e30f,   -1e30f, 3.4e38f,
                                    -3.4e38f, INFINITY, -INFINITY, NAN,     5.0f,   -5.0f};
  Problem p(2, uint32_t(gates.size()), 30);
  for (uint32_t i = 0; i < p.shape.n; ++i) {
    p.gate[i] = p.gate[p.shape.n + i] = gates[i];
    p.up[i] = 1.0f, p.up[p.shape.n + i] = -0.5f;
  }
  expect_reference(p, p.shape);
  const std::vector<float> y = run(p, p.shape).y;
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), std::isnan(p.gate[i])) << i;
  EXPECT_EQ(y[20], 0.0f);
}

TEST_F(SwigluGpu, ANanPoisonsItsElementAndItsGroupOnly) {
  Problem p(2, 260, 35);
  p.up[130] = NAN;
  p.shape.quantize = true;
  const Outputs out = run(p, p.shape);
  for (size_t i = 0; i < out.y.size(); ++i) EXPECT_EQ(std::isnan(out.y[i]), i == 130) << i;
  for (size_t i = 0; i < out.scale.size(); ++i) EXPECT_EQ(std::isnan(out.scale[i]), i == 1) << i;
}

TEST_F(SwigluGpu, FusedQuantisationEqualsFp8QuantizeAfterIt) {
  const Problem p(4, 393, 40);
  SwigluShape fused = p.shape;
  fused.quantize = true, fused.write_y = false;
  const Outputs expected = run(p, fused);
  fused.write_y = true;
  EXPECT_EQ(run(p, fused).q, expected.q);
  const auto qs = Fp8QuantizeShape::packed(4, 393);
  GpuCase gpu(*device());
  GuardedBuffer& gate = gpu.input(p.gate);
  GuardedBuffer& up = gpu.input(p.up);
  GuardedBuffer& y = gpu.output(p.up.size() * 4);
  GuardedBuffer& q = gpu.output(4 * qs.q_stride);
  GuardedBuffer& scale = gpu.output(4 * qs.scale_stride * 4);
  const auto swiglu = Swiglu::create(*device(), swiglu_choose(p.shape, device()->caps()));
  const auto quantize = Fp8Quantize::create(*device(), fp8_quantize_choose(qs, device()->caps()));
  ASSERT_TRUE(swiglu.ok() && quantize.ok());
  gpu.run([&](Recorder& recorder) -> Status {
    HADAL_TRY(swiglu->record(recorder, p.shape, {gate.address(), up.address(), y.address(), 0, 0}));
    recorder.barrier();
    return quantize->record(recorder, qs, {y.address(), q.address(), scale.address()});
  });
  EXPECT_EQ(gpu.rows<uint8_t>(q, 4, 393, qs.q_stride), expected.q);
  EXPECT_EQ(gpu.rows<float>(scale, 4, 4, qs.scale_stride), expected.scale);
}

// gate and up as the halves of one GEMM's output, y over gate.
TEST_F(SwigluGpu, HalvesOfOneBufferInPlace) {
  constexpr uint32_t rows = 3, n = 141;
  const Problem p(rows, n, 50);
  const std::vector<float> expected = run(p, p.shape).y;
  std::vector<float> both;
  for (uint32_t r = 0; r < rows; ++r) {
    both.insert(both.end(), p.gate.begin() + r * n, p.gate.begin() + (r + 1) * n);
    both.insert(both.end(), p.up.begin() + r * n, p.up.begin() + (r + 1) * n);
  }
  GpuCase gpu(*device());
  GuardedBuffer& buffer = gpu.input(both);
  SwigluShape s = p.shape;
  s.gate_stride = s.up_stride = s.y_stride = 2 * n;
  const auto kernel = Swiglu::create(*device(), swiglu_choose(s, device()->caps()));
  ASSERT_TRUE(kernel.ok());
  gpu.run([&](Recorder& recorder) {
    return kernel->record(recorder, s,
                          {buffer.address(), buffer.address() + n * 4, buffer.address(), 0, 0});
  });
  const std::vector<float> after = gpu.values<float>(buffer);
  for (uint32_t r = 0; r < rows; ++r) {
    for (uint32_t i = 0; i < n; ++i) {
      EXPECT_EQ(after[r * 2 * n + i], expected[r * n + i]);
      EXPECT_EQ(after[r * 2 * n + n + i], p.up[r * n + i]);
    }
  }
}

TEST_F(SwigluGpu, ARowHasTheSameBitsInEveryBatch) {
  constexpr uint32_t n = 391;
  const Problem p(13, n, 70);
  const Outputs all = run(p, p.shape);
  for (uint32_t row : {0u, 6u, 12u}) {
    Problem one = p;
    one.shape.rows = 1;
    one.gate.assign(p.gate.begin() + row * n, p.gate.begin() + (row + 1) * n);
    one.up.assign(p.up.begin() + row * n, p.up.begin() + (row + 1) * n);
    const Outputs single = run(one, one.shape);
    EXPECT_TRUE(std::equal(single.y.begin(), single.y.end(), all.y.begin() + row * n));
  }
}

TEST_F(SwigluGpu, EmptyProblemsAreDefined) {
  EXPECT_TRUE(run(Problem(0, 5, 1), SwigluShape::packed(0, 5)).y.empty());
  EXPECT_TRUE(run(Problem(3, 0, 1), SwigluShape::packed(3, 0)).y.empty());
}

TEST_F(SwigluGpu, RefusesMisalignedAddresses) {
  const auto s = SwigluShape::packed(1, 16);
  const auto kernel = Swiglu::create(*device(), swiglu_choose(s, device()->caps()));
  Result<Recorder> recorder = Recorder::create(*device());
  ASSERT_TRUE(kernel.ok() && recorder.ok());
  EXPECT_EQ(kernel->record(*recorder, s, {0x1000, 0x2002, 0x3000, 0, 0}).message(),
            "swiglu: addresses of floats must be 4-byte aligned");
  EXPECT_EQ(kernel->record(*recorder, s, {0x1000, 0x2000, 0x3000, 0x4004, 0}).message(),
            "swiglu: q must be 16-byte aligned, got 0x4004");
}

TEST(SwigluHost, RefusesEveryBrokenRuleByName) {
  const auto refused = [](const std::function<void(SwigluShape&)>& change) {
    SwigluShape shape = SwigluShape::packed(4, 200);
    shape.quantize = true;
    change(shape);
    const Status status = swiglu_check(shape, minimum_caps());
    EXPECT_EQ(status.code(), Errc::kInvalidArgument);
    return status.message();
  };
  SwigluShape only_y = SwigluShape::packed(4, 200);
  only_y.q_stride = only_y.scale_stride = 0;
  EXPECT_TRUE(swiglu_check(only_y, minimum_caps()).ok());
  EXPECT_EQ(refused([](auto& s) { s.n = 1u << 23; }),
            "swiglu: n must be at most 4194304, got 8388608");
  EXPECT_EQ(refused([](auto& s) { s.gate_stride = 199; }),
            "swiglu: gate_stride must be at least n, got 199 < 200");
  EXPECT_EQ(refused([](auto& s) { s.up_stride = 199; }),
            "swiglu: up_stride must be at least n, got 199 < 200");
  EXPECT_EQ(refused([](auto& s) { s.y_stride = 199; }),
            "swiglu: y_stride must be at least n, got 199 < 200");
  EXPECT_EQ(refused([](auto& s) { s.q_stride = 192; }),
            "swiglu: q_stride must be at least n, got 192 < 200");
  EXPECT_EQ(refused([](auto& s) { s.q_stride = 201; }),
            "swiglu: q_stride must be a multiple of 16 bytes, got 201");
  EXPECT_EQ(refused([](auto& s) { s.scale_stride = 1; }),
            "swiglu: scale_stride must be at least ceil(n/128), got 1 < 2");
  EXPECT_EQ(refused([](auto& s) { s.rows = 65536; }),
            "swiglu: rows must be at most 65535, got 65536");
}

TEST(SwigluHost, ChoicePrintsItself) {
  EXPECT_EQ(swiglu_choose({}, minimum_caps(16)).to_string().find("swiglu: workgroup 16"), 0u);
}

}  // namespace
}  // namespace hadal::test
