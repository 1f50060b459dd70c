// moe_gate against its reference, and the traps of the world's routers: ties, negative biased
// scores, masked groups, underflow, NaN.
#include "hadal/moe_gate.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <set>

#include "hadal/reference/moe_gate.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

struct Routing {
  std::vector<uint32_t> indices;
  std::vector<float> weights;
};

Routing run(const MoeGateShape& shape, const std::vector<float>& logits,
            const std::vector<float>& bias, uint32_t workgroup_size = 0) {
  GpuCase gpu(*device());
  GuardedBuffer& x = gpu.input_rows(logits, shape.experts, shape.logits_stride);
  GuardedBuffer& b = gpu.input(bias);
  const uint64_t count = uint64_t{shape.tokens} * shape.top_k;
  GuardedBuffer& indices = gpu.output(count * 4);
  GuardedBuffer& weights = gpu.output(count * 4);
  MoeGateConfig config = moe_gate_choose(shape, device()->caps());
  if (workgroup_size) config.workgroup_size = workgroup_size, config.lanes_top_k = 0;
  Result<MoeGate> kernel = MoeGate::create(*device(), config);
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) {
    return kernel->record(recorder, shape,
                          {x.address(), b.address(), indices.address(), weights.address()});
  });
  return {gpu.values<uint32_t>(indices), gpu.values<float>(weights)};
}

// Largest relative error of a row's scores, in ulp, and of one selection score, absolute.
struct RowBounds {
  double score_ulps = 0.0;
  double selection = 0.0;
};

RowBounds row_bounds(const MoeGateShape& s, const float* x, const double* scores,
                     const double* selection) {
  RowBounds bounds;
  double largest = -INFINITY, sum_ulps = s.experts;
  for (uint32_t e = 0; e < s.experts; ++e) largest = std::fmax(largest, x[e]);
  if (s.scoring == GateScoring::kSoftmax) {
    for (uint32_t e = 0; e < s.experts; ++e) {
      if (scores[e] > 0) sum_ulps += scores[e] * (3.0 + 3.0 * (largest - x[e]));
    }
  }
  for (uint32_t e = 0; e < s.experts; ++e) {
    if (std::isnan(x[e]) || std::isinf(x[e])) continue;
    double bound = sigmoid_bound(x[e], scores[e]);
    double ulps = 6.5 + 2.0 * std::fabs(x[e]);
    if (s.scoring == GateScoring::kSoftmax) {
      bound = softmax_bound(largest - x[e], scores[e], sum_ulps);
      ulps = 5.5 + 3.0 * (largest - x[e]) + sum_ulps;
    }
    // Only scores that matter to the row's weights: below 2^-80 the absolute term covers them.
    if (scores[e] > 0x1p-80) bounds.score_ulps = std::fmax(bounds.score_ulps, ulps);
    if (std::isinf(selection[e])) continue;
    bounds.selection =
        std::fmax(bounds.selection, bound + kU32 * (std::fabs(selection[e]) + bound));
  }
  return bounds;
}

// Indices equal the reference's except where its gap is below the error of the scores; weights
// within their bound. Returns the number of rows whose choice differs.
uint32_t expect_matches(const std::string& what, const MoeGateShape& s,
                        const std::vector<float>& logits, const std::vector<float>& bias) {
  MoeGateShape dense = s;
  dense.logits_stride = s.experts;
  const auto ref = reference::moe_gate(dense, logits.data(), bias.data());
  const Routing got = run(s, logits, bias);
  EXPECT_EQ(got.indices.size(), ref.indices.size());
  uint32_t swapped_rows = 0;
  std::vector<double> expected, bounds;
  for (uint32_t t = 0; t < s.tokens; ++t) {
    const double* c = &ref.selection[size_t(t) * s.experts];
    const double* scores = &ref.scores[size_t(t) * s.experts];
    const RowBounds row = row_bounds(s, &logits[size_t(t) * s.experts], scores, c);
    // A group's score adds two.
    const bool groups_certain = ref.group_gap[t] > 2.0 * (2.0 * row.selection + 2.0 * kU32);
    bool swapped = false;
    double sum = 1e-20;
    for (uint32_t k = 0; k < s.top_k; ++k) {
      const uint32_t mine = got.indices[size_t(t) * s.top_k + k];
      const uint32_t theirs = ref.indices[size_t(t) * s.top_k + k];
      if (mine >= s.experts) ADD_FAILURE() << what << ": index " << mine;
      if (mine >= s.experts) return s.tokens;
      swapped = swapped || mine != theirs;
      if (mine != theirs && groups_certain) {
        EXPECT_LE(std::fabs(c[mine] - c[theirs]), 2.0 * row.selection)
            << what << ": token " << t << " slot " << k << ": expert " << mine << " instead of "
            << theirs;
      }
      sum += c[mine] > -INFINITY ? scores[mine] : 0.0;
    }
    swapped_rows += swapped;
    for (uint32_t k = 0; k < s.top_k; ++k) {
      const uint32_t mine = got.indices[size_t(t) * s.top_k + k];
      const double score = c[mine] > -INFINITY ? scores[mine] : 0.0;
      expected.push_back((s.norm ? score / sum : score) * s.scaling);
      bounds.push_back(gate_weight_bound(expected.back(), row.score_ulps, s.top_k, s.scaling));
    }
    const std::set<uint32_t> different(got.indices.begin() + t * s.top_k,
                                       got.indices.begin() + (t + 1) * s.top_k);
    EXPECT_EQ(different.size(), s.top_k) << what << ": token " << t << " repeats an expert";
  }
  EXPECT_TRUE(matches(what, got.weights, expected, s.top_k, [&](size_t i) { return bounds[i]; }));
  return swapped_rows;
}

MoeGateShape v3_shape(uint32_t tokens) {
  MoeGateShape s = MoeGateShape::packed(tokens, 256, 8);
  s.n_group = 8, s.topk_group = 4, s.scaling = 2.5f;
  return s;
}

class MoeGateGpu : public GpuTest {};

TEST_F(MoeGateGpu, MatchesTheReferenceInEveryMethodAndScoring) {
  struct Size {
    uint32_t tokens, experts, top_k, n_group, topk_group;
  };
  uint32_t seed = 1, swapped = 0, rows = 0;
  for (Size z : {Size{3, 256, 8, 8, 4}, Size{1, 7, 3, 1, 1}, Size{5, 33, 6, 3, 2},
                 Size{2, 384, 8, 1, 1}, Size{2, 1024, 32, 64, 5}, Size{17, 20, 20, 5, 5},
                 Size{19, 64, 5, 4, 2}, Size{33, 48, 8, 3, 1}}) {
    for (GateScoring scoring : {GateScoring::kSigmoid, GateScoring::kSoftmax}) {
      for (GateMethod method :
           {GateMethod::kNoauxTc, GateMethod::kGroupLimitedGreedy, GateMethod::kGreedy}) {
        Random random(seed++);
        MoeGateShape s = MoeGateShape::packed(z.tokens, z.experts, z.top_k);
        s.n_group = z.n_group, s.topk_group = z.topk_group;
        s.scoring = scoring, s.method = method;
        s.norm = seed % 2, s.scaling = 2.5f, s.logits_stride += seed % 3;
        const auto logits = random.normals(size_t(z.tokens) * z.experts, 2.0f);
        const auto bias = random.normals(z.experts, 0.3f);
        swapped +=
            expect_matches(fmt::format("moe_gate {}x{} top {} scoring {} method {}", z.tokens,
                                       z.experts, z.top_k, int(scoring), int(method)),
                           s, logits, bias);
        rows += z.tokens;
      }
    }
  }
  EXPECT_LE(swapped * 20, rows) << "more swaps than rounding explains";
}

// Equal logits: the choice is the bias's alone, so exact, ties and all.
TEST_F(MoeGateGpu, TiesGoToTheLowestGroupAndExpert) {
  MoeGateShape s = v3_shape(1);
  const std::vector<float> logits(256, 0.25f);
  EXPECT_EQ(run(s, logits, std::vector<float>(256, 0.0f)).indices,
            (std::vector<uint32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  std::vector<float> bias(256, 0.0f);
  // Groups 1, 3, 6 ahead by their two best; groups 0, 2, 4, 5, 7 tie: 0 stays.
  for (uint32_t e : {40u, 60u, 100u, 101u, 200u, 222u}) bias[e] = 0.5f;
  bias[255] = 0.5f;  // alone, its group comes fourth
  EXPECT_EQ(run(s, logits, bias).indices,
            (std::vector<uint32_t>{40, 60, 100, 101, 200, 222, 255, 32}));
  bias[255] = 0.0f;
  EXPECT_EQ(run(s, logits, bias).indices,
            (std::vector<uint32_t>{40, 60, 100, 101, 200, 222, 0, 1}));
}

// A mask of 0 would prefer lost groups to negative scores.
TEST_F(MoeGateGpu, LostGroupsStayOutBelowNegativeScores) {
  MoeGateShape s = v3_shape(1);
  std::vector<float> bias(256);
  for (uint32_t e = 0; e < 256; ++e) bias[e] = -5.0f - float(e % 32) - float(e / 32) * 0.125f;
  const Routing got = run(s, std::vector<float>(256, 0.0f), bias);
  EXPECT_EQ(got.indices, (std::vector<uint32_t>{0, 32, 64, 96, 1, 33, 65, 97}));
  for (float w : got.weights) EXPECT_NEAR(w, 2.5f / 8, 1e-6f);  // unbiased scores, all equal
}

// Sigmoids far below 1e-20: no 0/0.
TEST_F(MoeGateGpu, UnderflowingScoresGiveFiniteWeights) {
  MoeGateShape s = v3_shape(3);
  std::vector<float> logits(3 * 256, -60.0f);
  std::fill_n(logits.begin() + 256, 256, -200.0f);
  std::fill_n(logits.begin() + 512, 256, -INFINITY);
  const Routing got = run(s, logits, std::vector<float>(256, 0.0f));
  for (uint32_t i = 0; i < 24; ++i) {
    EXPECT_EQ(got.indices[i], i % 8);
    EXPECT_TRUE(std::isfinite(got.weights[i])) << i;
    EXPECT_GE(got.weights[i], 0.0f);
  }
  EXPECT_EQ(got.weights[16], 0.0f);
}

TEST_F(MoeGateGpu, NanCountsAsMinusInfinityAndRowsAreIndependent) {
  for (GateScoring scoring : {GateScoring::kSigmoid, GateScoring::kSoftmax}) {
    MoeGateShape s = v3_shape(4);
    s.scoring = scoring;
    Random random(5);
    std::vector<float> logits = random.normals(4 * 256);
    const std::vector<float> bias = random.normals(256, 0.1f);
    const Routing clean = run(s, logits, bias);
    for (uint32_t e = 0; e < 256; e += 3) logits[256 + e] = NAN;
    std::fill_n(logits.begin() + 512, 256, NAN);
    logits[512 + 77] = 1.0f;
    expect_matches("moe_gate with NaN", s, logits, bias);
    const Routing got = run(s, logits, bias);
    // One expert left: the lowest indices fill up.
    EXPECT_EQ(std::vector<uint32_t>(got.indices.begin() + 16, got.indices.begin() + 24),
              (std::vector<uint32_t>{77, 0, 1, 2, 3, 4, 5, 6}));
    EXPECT_EQ(got.weights[17], 0.0f);
    for (uint32_t i : {0u, 7u, 24u, 31u}) {
      EXPECT_EQ(got.indices[i], clean.indices[i]);
      EXPECT_EQ(got.weights[i], clean.weights[i]);
    }
  }
}

// House rule 8, and any number of subgroups per workgroup (several where the workgroup is larger).
TEST_F(MoeGateGpu, ATokenHasTheSameBitsInEveryBatchAndChoiceInEveryWorkgroup) {
  Random random(9);
  MoeGateShape s = v3_shape(7);
  const std::vector<float> logits = random.normals(7 * 256), bias = random.normals(256, 0.1f);
  const Routing all = run(s, logits, bias);
  MoeGateShape one = v3_shape(1);
  for (uint32_t t = 0; t < 7; ++t) {
    const Routing got = run(one, {logits.begin() + t * 256, logits.begin() + (t + 1) * 256}, bias);
    EXPECT_EQ(got.indices,
              std::vector<uint32_t>(all.indices.begin() + t * 8, all.indices.begin() + t * 8 + 8));
    EXPECT_EQ(got.weights,
              std::vector<float>(all.weights.begin() + t * 8, all.weights.begin() + t * 8 + 8));
  }
  const Routing wide = run(s, logits, bias, 64);
  EXPECT_EQ(wide.indices, all.indices);
  EXPECT_EQ(wide.weights, all.weights);  // sigmoid and a sum in slot order: no reduction of floats
}

// Few values, so that experts and groups tie at every place, NaN and infinities among them: every
// form of the kernel decides alike.
TEST_F(MoeGateGpu, EveryFormChoosesTheSameAmongTies) {
  const float values[] = {-INFINITY, -60.0f, -1.0f, -0.0f, 0.0f, 1.0f, INFINITY, NAN};
  for (uint32_t topk_group : {1u, 3u, 4u, 8u}) {
    for (GateMethod method :
         {GateMethod::kNoauxTc, GateMethod::kGroupLimitedGreedy, GateMethod::kGreedy}) {
      MoeGateShape s = v3_shape(37);
      s.topk_group = topk_group, s.method = method;
      Random random(topk_group);
      std::vector<float> logits, bias;
      for (float u : random.uniforms(37 * 256, 0.0f, 7.999f)) logits.push_back(values[int(u)]);
      for (float u : random.uniforms(256, 0.0f, 3.999f)) bias.push_back(float(int(u)) - 1.5f);
      bias[3] = -INFINITY, bias[70] = INFINITY, bias[71] = NAN;
      const Routing chosen = run(s, logits, bias), general = run(s, logits, bias, 64);
      EXPECT_EQ(chosen.indices, general.indices) << topk_group << " method " << int(method);
      EXPECT_EQ(chosen.weights, general.weights) << topk_group << " method " << int(method);
    }
  }
}

TEST_F(MoeGateGpu, EmptyProblemsAreDefined) {
  EXPECT_TRUE(run(MoeGateShape::packed(0, 8, 2), {}, std::vector<float>(8)).indices.empty());
  EXPECT_TRUE(run(MoeGateShape::packed(2, 8, 0), std::vector<float>(16), std::vector<float>(8))
                  .indices.empty());
}

TEST(MoeGateHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const auto refused = [&](const std::function<void(MoeGateShape&)>& change) {
    MoeGateShape shape = v3_shape(4);
    change(shape);
    return moe_gate_check(shape, caps).message();
  };
  EXPECT_TRUE(moe_gate_check(v3_shape(4), caps).ok());
  EXPECT_EQ(refused([](auto& s) { s.tokens = 65536; }),
            "moe_gate: tokens must be at most 65535, got 65536");
  EXPECT_EQ(refused([](auto& s) { s.experts = 0; }), "moe_gate: experts must be in 1..1024, got 0");
  EXPECT_EQ(refused([](auto& s) { s.experts = 1025; }),
            "moe_gate: experts must be in 1..1024, got 1025");
  EXPECT_EQ(refused([](auto& s) { s.top_k = 33; }), "moe_gate: top_k must be at most 32, got 33");
  EXPECT_EQ(refused([](auto& s) { s.experts = 7; }),
            "moe_gate: top_k must be at most experts, got 8 > 7");
  EXPECT_EQ(refused([](auto& s) { s.logits_stride = 255; }),
            "moe_gate: logits_stride must be at least experts, got 255 < 256");
  EXPECT_EQ(refused([](auto& s) { s.n_group = 0; }), "moe_gate: n_group must be in 1..64, got 0");
  EXPECT_EQ(refused([](auto& s) { s.n_group = 3; }),
            "moe_gate: experts must be a multiple of n_group, got 256 % 3");
  EXPECT_EQ(refused([](auto& s) { s.topk_group = 9; }),
            "moe_gate: topk_group must be in 1..n_group, got 9 of 8");
  EXPECT_EQ(refused([](auto& s) { s.n_group = 64, s.topk_group = 1; }),
            "moe_gate: top_k must be at most the 4 experts of topk_group groups, got 8");
  EXPECT_EQ(refused([](auto& s) { s.experts = 64, s.n_group = 64, s.topk_group = 8; }),
            "moe_gate: a group must have at least 2 experts, got 64 of 64 groups");
}

}  // namespace
}  // namespace hadal::test
