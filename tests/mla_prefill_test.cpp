// mla_prefill against its reference, and its promise that neither chunks nor batches change a bit.
#include "hadal/mla_prefill.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "hadal/reference/mla_prefill.h"
#include "hadal/types.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/same_bits.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

struct Problem {
  MlaPrefillShape shape;
  std::vector<float> q, kv, k_pe;  // with the shape's strides, padding NaN

  // Operands of a sequence whose queries begin at q_begin; `pad` widens every stride.
  Problem(uint32_t q_begin, uint32_t q_len, uint32_t heads, uint32_t nope, uint32_t rope,
          uint32_t v, uint32_t seed, uint32_t pad = 0, float q_scale = 1.0f) {
    Random random(seed);
    shape = MlaPrefillShape::packed(q_begin, q_len, heads, nope, rope, v);
    shape.scale = 1.0f / std::sqrt(float(std::max(nope + rope, 1u)));
    shape.q_head_stride += pad, shape.q_row_stride = heads * shape.q_head_stride + pad;
    shape.kv_row_stride += pad, shape.k_pe_stride += pad;
    shape.o_head_stride += pad / 2, shape.o_row_stride = heads * shape.o_head_stride;
    const uint32_t keys = shape.kv_rows;
    q = random.normals(size_t(q_len) * shape.q_row_stride, q_scale);
    kv = padded(random, keys, heads * (nope + v), shape.kv_row_stride);
    k_pe = padded(random, keys, rope, shape.k_pe_stride);
  }
  static std::vector<float> padded(Random& random, size_t rows, size_t width, size_t stride) {
    std::vector<float> values(rows * stride, NAN);
    for (size_t i = 0; i < values.size(); ++i) {
      if (i % stride < width) values[i] = random.normal();
    }
    return values;
  }
  // The queries [begin, begin + count) alone.
  [[nodiscard]] Problem rows(uint32_t begin, uint32_t count) const {
    Problem part = *this;
    part.shape.q_begin += begin, part.shape.q_len = count;
    part.q.assign(q.begin() + long(begin) * shape.q_row_stride,
                  q.begin() + long(begin + count) * shape.q_row_stride);
    return part;
  }
};

// o [q_len, heads, v] by one path, in calls of `chunk` keys each (0: one call).
std::vector<float> run_path(const Problem& p, const MlaPrefillConfig& config, uint32_t chunk) {
  const MlaPrefillShape& s = p.shape;
  GpuCase gpu(*device());
  GuardedBuffer& q = gpu.input(p.q);
  GuardedBuffer& kv = gpu.input(p.kv);
  GuardedBuffer& k_pe = gpu.input(p.k_pe);
  GuardedBuffer& o = gpu.output(uint64_t{s.q_len} * s.o_row_stride * 4);
  GuardedBuffer& state = gpu.output(uint64_t{s.q_len} * s.heads * 8);
  GuardedBuffer& scratch = gpu.output(mla_prefill_scratch_bytes(s));
  Result<MlaPrefill> kernel = MlaPrefill::create(*device(), config);
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) -> Status {
    for (uint32_t begin = 0; begin == 0 || begin < s.kv_rows; begin += chunk) {
      MlaPrefillShape call = s;
      call.kv_begin = begin;
      call.kv_rows = chunk ? std::min(chunk, s.kv_rows - begin) : s.kv_rows;
      call.first = begin == 0, call.last = begin + call.kv_rows == s.kv_rows;
      if (!call.first) recorder.barrier();
      HADAL_TRY(kernel->record(recorder, call,
                               {q.address(), kv.address() + uint64_t{begin} * s.kv_row_stride * 4,
                                k_pe.address() + uint64_t{begin} * s.k_pe_stride * 4, o.address(),
                                state.address(), scratch.address()}));
      if (!chunk) break;
    }
    return {};
  });
  std::vector<float> result;
  const std::vector<float> all = gpu.values<float>(o);
  for (size_t i = 0; i < all.size(); ++i) {
    const size_t in_head = i % s.o_row_stride % s.o_head_stride;
    if (in_head < s.v) {
      result.push_back(all[i]);
    } else {
      EXPECT_TRUE(std::isnan(all[i])) << "padding written: " << i;
    }
  }
  return result;
}

MlaPrefillConfig choose_path(const Problem& p, bool lanes) {
  Caps caps = device()->caps();
  caps.scalar_uniforms = lanes;
  return mla_prefill_choose(p.shape, caps);
}

// The same by the path that the device takes; where that is lanes, the portable path must
// agree bit for bit.
std::vector<float> run(const Problem& p, uint32_t chunk = 0) {
  const MlaPrefillConfig chosen = mla_prefill_choose(p.shape, device()->caps());
  const std::vector<float> result = run_path(p, chosen, chunk);
  if (chosen.lanes) {
    EXPECT_TRUE(same_bits(run_path(p, choose_path(p, false), chunk), result, p.shape.v));
  }
  return result;
}

void expect_matches_reference(const Problem& p) {
  const MlaPrefillShape& s = p.shape;
  const auto expected = reference::mla_prefill(s, {p.q.data(), p.kv.data(), p.k_pe.data()});
  const double factors = 1.0 + ceil_div(s.kv_rows, 64);
  EXPECT_TRUE(matches(fmt::format("mla_prefill {}+{} x{} {}+{} {}", s.q_begin, s.q_len, s.heads,
                                  s.nope, s.rope, s.v),
                      run(p), expected.value, s.v, [&](size_t i) {
                        const size_t row = i / s.v;
                        const double error = attention_weight_error(
                            s.nope + s.rope, s.kv_rows, factors, expected.score_magnitude[row],
                            expected.score_range[row]);
                        return attention_bound(error, s.kv_rows, expected.magnitude[i],
                                               expected.value[i]);
                      }));
}

class MlaPrefillGpu : public GpuTest {};

TEST_F(MlaPrefillGpu, MatchesTheReferenceOnRaggedSizes) {
  expect_matches_reference({0, 1, 1, 4, 4, 2, 1});
  expect_matches_reference({0, 67, 2, 32, 16, 24, 2});
  expect_matches_reference({61, 9, 3, 20, 12, 10, 3, 2});
  expect_matches_reference({129, 3, 5, 48, 16, 24, 4, 6});
  expect_matches_reference({63, 130, 1, 12, 4, 22, 5});
  expect_matches_reference({300, 18, 2, 8, 0, 24, 6});
}

// One vector of queries, two, several tiles with a short last one, diagonals inside and across
// blocks.
TEST_F(MlaPrefillGpu, MatchesTheReferenceAtEveryNumberOfQueries) {
  for (uint32_t q_len : {1u, 15u, 16u, 17u, 33u, 64u, 95u}) {
    expect_matches_reference({q_len % 3 * 50, q_len, 2, 16, 8, 24, 30 + q_len, q_len % 2 * 2});
  }
  expect_matches_reference({500, 70, 1, 24, 0, 8, 40});  // runs of blocks
  expect_matches_reference({0, 300, 3, 0, 16, 40, 41});
  expect_matches_reference({10, 20, 70, 8, 8, 8, 42});  // more items than workers
}

TEST_F(MlaPrefillGpu, MatchesTheReferenceAtDeepSeekV3sHeads) {
  expect_matches_reference({190, 17, 2, 128, 64, 128, 7});
}

TEST_F(MlaPrefillGpu, ChunksOfKeysChangeNoBit) {
  const Problem p(201, 21, 2, 24, 8, 24, 8, 2);
  const std::vector<float> whole = run(p);
  for (uint32_t chunk : {64u, 128u, 192u}) {
    EXPECT_TRUE(same_bits(run(p, chunk), whole, p.shape.v)) << "chunk " << chunk;
  }
}

// Where the device does not choose them too, if its workgroups can be one subgroup.
TEST_F(MlaPrefillGpu, LanesAgreeOnEveryCpuDriver) {
  const Problem p(70, 27, 2, 8, 8, 8, 13, 2);
  const MlaPrefillConfig lanes = choose_path(p, true), portable = choose_path(p, false);
  if (!device()->caps().is_cpu) GTEST_SKIP() << "not a CPU driver";
  ASSERT_TRUE(lanes.lanes && !portable.lanes);
  EXPECT_TRUE(same_bits(run_path(p, lanes, 64), run_path(p, portable, 0), p.shape.v));
}

TEST_F(MlaPrefillGpu, BatchesOfQueriesChangeNoBit) {
  const Problem p(59, 37, 2, 24, 8, 24, 9);
  const std::vector<float> whole = run(p);
  const size_t row = size_t(p.shape.heads) * p.shape.v;
  for (auto [begin, count] : {std::array{0u, 1u}, {4u, 2u}, {5u, 13u}, {17u, 7u}, {36u, 1u}}) {
    const std::vector<float> expected(whole.begin() + long(begin * row),
                                      whole.begin() + long((begin + count) * row));
    EXPECT_TRUE(same_bits(run(p.rows(begin, count)), expected, p.shape.v)) << begin;
    EXPECT_TRUE(same_bits(run(p.rows(begin, count), 64), expected, p.shape.v)) << begin;
  }
}

// Sequences side by side in one call: whole, a chunk in the middle of its keys, without queries,
// without keys, outside the operands. Each is its own call's bits; nothing else is written.
TEST_F(MlaPrefillGpu, ABatchIsItsSequences) {
  struct Part {
    uint32_t q_begin, q_len, kv_begin, kv_rows;
    bool first, last;
  };
  const std::vector<Part> parts = {{0, 40, 0, 40, true, true},       {130, 7, 0, 137, true, true},
                                   {5, 0, 0, 5, true, true},         {64, 1, 0, 65, true, true},
                                   {200, 33, 64, 128, false, false}, {9, 3, 0, 0, true, true},
                                   {300, 12, 0, 64, true, false}};
  const uint32_t heads = 3, nope = 16, rope = 8, v = 24;
  std::vector<MlaPrefillSequence> list;
  Problem all(0, 0, heads, nope, rope, v, 50);
  MlaPrefillShape& shape = all.shape;
  shape.kv_rows = 0;
  for (const Part& p : parts) {
    MlaPrefillSequence entry;
    entry.q_row = shape.q_len, entry.q_len = p.q_len, entry.q_begin = p.q_begin;
    entry.kv_row = shape.kv_rows, entry.kv_rows = p.kv_rows, entry.kv_begin = p.kv_begin;
    entry.flags = (p.first ? entry.kFirst : 0) | (p.last ? entry.kLast : 0);
    list.push_back(entry);
    shape.q_len += p.q_len, shape.kv_rows += p.kv_rows;
    shape.max_q_len = std::max(shape.max_q_len, p.q_len);
  }
  for (int bad = 0; bad < 4; ++bad) {
    MlaPrefillSequence entry;
    entry.q_len = 4, entry.kv_rows = 4;
    if (bad == 0) entry.q_row = shape.q_len - 3;
    if (bad == 1) entry.q_row = 0xfffffffeu;
    if (bad == 2) entry.kv_row = shape.kv_rows - 3;
    if (bad == 3) entry.kv_begin = 1;
    list.push_back(entry);
  }
  shape.sequences = uint32_t(list.size());
  Random random(51);
  all.q = random.normals(size_t(shape.q_len) * shape.q_row_stride);
  all.kv = random.normals(size_t(shape.kv_rows) * shape.kv_row_stride);
  all.k_pe = random.normals(size_t(shape.kv_rows) * shape.k_pe_stride);
  const std::vector<float> o_before = random.normals(size_t(shape.q_len) * shape.o_row_stride);
  std::vector<float> state_before = random.normals(size_t(shape.q_len) * heads * 2);
  for (size_t i = 1; i < state_before.size(); i += 2) {
    state_before[i] = std::fabs(state_before[i]) + 1.0f;
  }
  // Runs `call` and returns o and state.
  const auto outputs =
      [&](bool lanes,
          const std::function<Status(Recorder&, const MlaPrefill&, MlaPrefillArgs)>& call,
          const MlaPrefillShape& s) {
        GpuCase gpu(*device());
        Caps caps = device()->caps();
        caps.scalar_uniforms = lanes;
        Result<MlaPrefill> kernel = MlaPrefill::create(*device(), mla_prefill_choose(s, caps));
        EXPECT_TRUE(kernel.ok()) << kernel.status().message();
        MlaPrefillArgs args;
        args.q = gpu.input(all.q).address(), args.kv = gpu.input(all.kv).address();
        args.k_pe = gpu.input(all.k_pe).address();
        GuardedBuffer& o = gpu.input(o_before);
        GuardedBuffer& state = gpu.input(state_before);
        args.o = o.address(), args.state = state.address();
        args.scratch = gpu.output(mla_prefill_scratch_bytes(s)).address();
        args.sequences = gpu.input(list).address();
        gpu.run([&](Recorder& recorder) { return call(recorder, *kernel, args); });
        return std::pair(gpu.values<float>(o), gpu.values<float>(state));
      };
  for (const bool lanes : {false, true}) {
    if (lanes && !device()->caps().scalar_uniforms) continue;
    const auto batch = outputs(
        lanes,
        [&](Recorder& recorder, const MlaPrefill& kernel, const MlaPrefillArgs& args) {
          return kernel.record(recorder, shape, args);
        },
        shape);
    std::vector<float> o = o_before, state = state_before;
    for (size_t i = 0; i < parts.size(); ++i) {
      MlaPrefillShape one = shape;
      one.sequences = 0, one.q_len = list[i].q_len, one.kv_rows = list[i].kv_rows;
      one.q_begin = parts[i].q_begin, one.kv_begin = parts[i].kv_begin;
      one.first = parts[i].first, one.last = parts[i].last;
      const auto alone = outputs(
          false,
          [&](Recorder& recorder, const MlaPrefill& kernel, MlaPrefillArgs args) {
            args.q += uint64_t{list[i].q_row} * shape.q_row_stride * 4;
            args.o += uint64_t{list[i].q_row} * shape.o_row_stride * 4;
            args.state += uint64_t{list[i].q_row} * heads * 8;
            args.kv += uint64_t{list[i].kv_row} * shape.kv_row_stride * 4;
            args.k_pe += uint64_t{list[i].kv_row} * shape.k_pe_stride * 4;
            return kernel.record(recorder, one, args);
          },
          one);
      const auto take = [&](std::vector<float>& to, const std::vector<float>& from, size_t stride) {
        std::copy_n(from.begin() + long(list[i].q_row * stride), list[i].q_len * stride,
                    to.begin() + long(list[i].q_row * stride));
      };
      take(o, alone.first, shape.o_row_stride);
      take(state, alone.second, size_t{heads} * 2);
    }
    EXPECT_TRUE(same_bits(batch.first, o, v)) << (lanes ? "lanes" : "portable");
    EXPECT_TRUE(same_bits(batch.second, state, 2)) << (lanes ? "lanes" : "portable");
  }
}

// Scores over +-200: most weights underflow, and only differences are ever exponentiated.
TEST_F(MlaPrefillGpu, SurvivesScoresThatOverflowAnUnshiftedSoftmax) {
  const Problem p(70, 20, 2, 24, 8, 24, 10, 0, 200.0f);
  expect_matches_reference(p);
}

TEST_F(MlaPrefillGpu, EqualScoresGiveTheMeanOfTheValues) {
  Problem p(0, 96, 1, 4, 4, 2, 11);
  std::fill(p.q.begin(), p.q.end(), 0.0f);
  for (size_t i = 0; i < p.kv.size(); ++i) p.kv[i] = float(i / p.shape.kv_row_stride);
  const std::vector<float> o = run(p);
  for (uint32_t i = 0; i < 96; ++i) EXPECT_FLOAT_EQ(o[i * 2], float(i) / 2) << i;
}

TEST_F(MlaPrefillGpu, KeysAfterAQueryAreNoPartOfIt) {
  Problem p(0, 21, 1, 8, 4, 6, 12);
  const std::vector<float> clean = run(p);
  std::fill_n(p.kv.begin() + 13 * p.shape.kv_row_stride, p.shape.kv_row_stride, NAN);
  p.q[2 * p.shape.q_row_stride] = NAN;
  const std::vector<float> o = run(p);
  for (uint32_t i = 0; i < o.size(); ++i) {
    const uint32_t row = i / 6;
    if (row == 2 || row >= 13) {
      EXPECT_TRUE(std::isnan(o[i])) << row;
    } else {
      EXPECT_EQ(o[i], clean[i]) << row;
    }
  }
}

TEST_F(MlaPrefillGpu, EmptyProblemsAreDefined) {
  EXPECT_TRUE(run({5, 0, 2, 8, 4, 6, 1}).empty());
  EXPECT_TRUE(run({5, 3, 0, 8, 4, 6, 1}).empty());
  Problem no_keys(0, 3, 1, 8, 4, 6, 1);
  no_keys.shape.kv_rows = 0;
  EXPECT_EQ(run(no_keys), std::vector<float>(18, 0.0f));
  Problem no_dims(0, 3, 1, 0, 0, 6, 1);
  expect_matches_reference(no_dims);
}

TEST(MlaPrefillHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const MlaPrefillShape good = MlaPrefillShape::packed(64, 5, 3, 32, 16, 24);
  const auto refused = [&](const std::function<void(MlaPrefillShape&)>& change) {
    MlaPrefillShape shape = good;
    change(shape);
    const Status status = mla_prefill_check(shape, caps);
    EXPECT_EQ(status.code(), Errc::kInvalidArgument);
    return status.message();
  };
  EXPECT_TRUE(mla_prefill_check(good, caps).ok());
  EXPECT_EQ(refused([](auto& s) { s.nope = 30; }),
            "mla_prefill: nope must be a multiple of 4, got 30");
  EXPECT_EQ(refused([](auto& s) { s.rope = 14; }),
            "mla_prefill: rope must be a multiple of 4, got 14");
  EXPECT_EQ(refused([](auto& s) { s.v = 23; }), "mla_prefill: v must be even, got 23");
  EXPECT_EQ(refused([](auto& s) { s.v = 1026; }), "mla_prefill: v must be at most 1024, got 1026");
  EXPECT_EQ(refused([](auto& s) { s.k_pe_stride = 17; }),
            "mla_prefill: strides of q, kv and k_pe must be even, got 144, 48, 168, 17");
  EXPECT_EQ(refused([](auto& s) { s.q_head_stride = 46; }),
            "mla_prefill: q_head_stride must be at least nope + rope, got 46 < 48");
  EXPECT_EQ(refused([](auto& s) { s.q_row_stride = 142; }),
            "mla_prefill: q_row_stride must hold all heads, got 142 < 144");
  EXPECT_EQ(refused([](auto& s) { s.kv_row_stride = 166; }),
            "mla_prefill: kv_row_stride must be at least heads * (nope + v), got 166 < 168");
  EXPECT_EQ(refused([](auto& s) { s.k_pe_stride = 14; }),
            "mla_prefill: k_pe_stride must be at least rope, got 14 < 16");
  EXPECT_EQ(refused([](auto& s) { s.o_head_stride = 23; }),
            "mla_prefill: o_head_stride must be at least v, got 23 < 24");
  EXPECT_EQ(refused([](auto& s) { s.o_row_stride = 71; }),
            "mla_prefill: o_row_stride must hold all heads, got 71 < 72");
  EXPECT_EQ(refused([](auto& s) { s.o_row_stride = 1u << 25; }),
            "mla_prefill: row strides must be at most 16777216, got 33554432");
  EXPECT_EQ(refused([](auto& s) { s.kv_begin = 32; }),
            "mla_prefill: kv_begin must be a multiple of 64, got 32");
  EXPECT_EQ(refused([](auto& s) { s.last = false; }),
            "mla_prefill: kv_rows must be a multiple of 64 before the last chunk, got 69");
  EXPECT_EQ(refused([](auto& s) {
              s.heads = 65536, s.q_head_stride = 48, s.q_row_stride = 48 * 65536;
              s.kv_row_stride = 56 * 65536, s.o_row_stride = 24 * 65536;
            }),
            "mla_prefill: heads must be at most 65535, got 65536");
  EXPECT_EQ(refused([](auto& s) { s.q_len = 65536; }),
            "mla_prefill: q_len must be at most 65535, got 65536");
  EXPECT_EQ(refused([](auto& s) { s.sequences = 2, s.max_q_len = 6; }),
            "mla_prefill: max_q_len must be at most q_len, got 6 > 5");
  EXPECT_EQ(refused([](auto& s) { s.sequences = 2, s.max_q_len = s.q_len = 65536; }),
            "mla_prefill: max_q_len must be at most 65535, got 65536");
  EXPECT_EQ(refused([](auto& s) { s.sequences = 65536, s.max_q_len = 5; }),
            "mla_prefill: sequences must be at most 65535, got 65536");
  EXPECT_EQ(refused([](auto& s) { s.sequences = 65535, s.q_len = s.max_q_len = 65535; }),
            "mla_prefill: heads * sequences * queries of the longest must be less than 2^31, got "
            "12884508675");
}

TEST(MlaPrefillHost, ChoiceFitsEverySubgroupSize) {
  for (uint32_t subgroup : {4u, 8u, 16u, 32u, 64u}) {
    for (uint32_t v : {2u, 24u, 128u, 512u, 1024u}) {
      const MlaPrefillConfig config = mla_prefill_choose(
          MlaPrefillShape::packed(0, 100, 1, 128, 64, v), minimum_caps(subgroup));
      EXPECT_GE(config.pairs * config.workgroup_size * 2, v);
      EXPECT_EQ(64 % config.workgroup_size, 0u);
      EXPECT_GE(config.tile, 1u);
      Caps lanes = minimum_caps(subgroup);
      lanes.scalar_uniforms = lanes.is_cpu = true;
      const MlaPrefillConfig by_query =
          mla_prefill_choose(MlaPrefillShape::packed(0, 100, 1, 128, 64, v), lanes);
      EXPECT_EQ(bool(by_query.lanes), subgroup <= 16 && v % 8 == 0);
    }
  }
}

}  // namespace
}  // namespace hadal::test
