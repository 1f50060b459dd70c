// mla_absorb against its reference: both directions and weight formats, ragged heads whose rows
// cross scale blocks, strides of the tensors around it, every refusal, determinism across tiles.
#include "hadal/mla_absorb.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "hadal/recorder.h"
#include "hadal/reference/formats.h"
#include "hadal/reference/mla_absorb.h"
#include "support/compare.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/tolerance.h"

namespace hadal::test {
namespace {

using Direction = MlaAbsorbDirection;
using Weight = MlaAbsorbWeight;

struct Problem {
  MlaAbsorbShape shape;
  std::vector<float> in, w_scale;  // strides as in the shape, gaps NaN
  std::vector<uint8_t> w;          // e4m3, padding 0xff
  std::vector<uint16_t> w_bf16;

  // `gap` elements behind every head (where q keeps its rope channels) and every token.
  Problem(MlaAbsorbShape s, uint32_t seed, uint32_t gap = 0) : shape(s) {
    Random random(seed);
    shape.in_head_stride += gap, shape.out_head_stride += 2 * gap;
    shape.in_token_stride = shape.heads * shape.in_head_stride + gap;
    shape.out_token_stride = shape.heads * shape.out_head_stride + 3 * gap;
    shape.w_stride += gap ? 16 : 0, shape.w_scale_stride += gap;
    in.assign(size_t(shape.tokens) * shape.in_token_stride, NAN);
    for (size_t t = 0; t < shape.tokens; ++t) {
      for (size_t h = 0; h < shape.heads; ++h) {
        for (size_t i = 0; i < shape.in_width(); ++i) {
          in[t * shape.in_token_stride + h * shape.in_head_stride + i] = random.normal();
        }
      }
    }
    const uint32_t rows = shape.heads * (shape.nope + shape.v);
    const size_t elements = size_t(rows) * shape.w_stride;
    if (shape.weight_type == Weight::kE4m3) {
      w = random.e4m3_codes(elements);
      for (size_t i = 0; i < elements; ++i) {
        if (i % shape.w_stride >= shape.rank) w[i] = 0xff;
      }
      w_scale.resize(size_t(ceil_div(rows, 128)) * shape.w_scale_stride);
      // Over several binades, so that a misplaced one shows.
      for (float& v : w_scale) {
        v = std::ldexp(random.uniform(0.5f, 1.0f), int(random.below(8)) - 10);
      }
    } else {
      w_bf16.assign(elements, uint16_t(0xffff));
      for (size_t i = 0; i < elements; ++i) {
        if (i % shape.w_stride < shape.rank) w_bf16[i] = reference::bf16_encode(random.normal());
      }
    }
  }
};

MlaAbsorbConfig config_of(const MlaAbsorbShape& shape) {
  return mla_absorb_choose(shape, device()->caps());
}

// Runs the problem on the device and returns out [tokens, heads, width]; checks that gaps stay.
std::vector<float> run(const Problem& p, const MlaAbsorbConfig& config) {
  const MlaAbsorbShape& s = p.shape;
  GpuCase gpu(*device());
  GuardedBuffer& in = gpu.input(p.in);
  GuardedBuffer& w = s.weight_type == Weight::kE4m3 ? gpu.input(p.w) : gpu.input(p.w_bf16);
  GuardedBuffer& w_scale = gpu.input(p.w_scale);
  GuardedBuffer& out = gpu.output(uint64_t(s.tokens) * s.out_token_stride * 4);
  Result<MlaAbsorb> kernel = MlaAbsorb::create(*device(), config);
  EXPECT_TRUE(kernel.ok()) << kernel.status().message();
  gpu.run([&](Recorder& recorder) {
    return kernel->record(recorder, s,
                          {in.address(), w.address(), w_scale.address(), out.address()});
  });
  std::vector<float> result;
  const std::vector<float> all = gpu.values<float>(out);
  const auto untouched = [](float v) {
    uint32_t bits = 0;
    std::memcpy(&bits, &v, 4);
    return bits == 0xffffffffu;
  };
  for (size_t i = 0; i < all.size(); ++i) {
    const size_t in_token = i % s.out_token_stride, head = in_token / s.out_head_stride;
    if (head < s.heads && in_token % s.out_head_stride < s.out_width()) {
      result.push_back(all[i]);
    } else {
      EXPECT_TRUE(untouched(all[i])) << "gap written at " << i;
    }
  }
  return result;
}

std::vector<float> run(const Problem& p) {
  return run(p, config_of(p.shape));
}

void expect_matches_reference(const Problem& p) {
  const MlaAbsorbShape& s = p.shape;
  const auto expected =
      reference::mla_absorb(s, {p.in.data(), p.w.data(), p.w_scale.data(), p.w_bf16.data()});
  EXPECT_TRUE(
      matches(fmt::format("mla_absorb {} tokens, {} heads, {}+{} x {}, {}, {}", s.tokens, s.heads,
                          s.nope, s.v, s.rank, s.direction == Direction::kQuery ? "query" : "value",
                          s.weight_type == Weight::kE4m3 ? "e4m3" : "bf16"),
              run(p), expected.value, s.out_width(), [&](size_t i) {
                return mla_absorb_bound(s.in_width(), expected.value[i], expected.magnitude[i]);
              }));
}

// Every direction and weight format.
void for_each_form(const std::function<void(Direction, Weight)>& f) {
  for (Direction direction : {Direction::kQuery, Direction::kValue}) {
    for (Weight weight : {Weight::kE4m3, Weight::kBf16}) f(direction, weight);
  }
}

class MlaAbsorbGpu : public GpuTest {};

TEST_F(MlaAbsorbGpu, MatchesTheReferenceOnRaggedSizes) {
  struct Size {
    uint32_t tokens, heads, nope, v, rank;
  };
  uint32_t seed = 1;
  // Heads of 56, 64 and 155 rows: scale blocks begin inside heads, some inside W_UK.
  for (const Size& z : std::vector<Size>{{1, 1, 1, 1, 1},
                                         {1, 5, 32, 24, 64},
                                         {3, 7, 32, 32, 72},
                                         {2, 3, 128, 27, 131},
                                         {9, 2, 129, 130, 268},
                                         {1, 2, 128, 128, 512},
                                         {5, 1, 300, 5, 13}}) {
    for_each_form([&](Direction direction, Weight weight) {
      expect_matches_reference(
          Problem(MlaAbsorbShape::packed(z.tokens, z.heads, z.nope, z.v, z.rank, direction, weight),
                  seed++));
    });
  }
}

TEST_F(MlaAbsorbGpu, HonoursStridesAndNeverUsesPadding) {
  for_each_form([](Direction direction, Weight weight) {
    expect_matches_reference(
        Problem(MlaAbsorbShape::packed(3, 4, 40, 24, 93, direction, weight), 50, /*gap=*/5));
  });
}

// House rule 8: a token's bits depend neither on the tokens beside it nor on the tile.
TEST_F(MlaAbsorbGpu, ATokenHasTheSameBitsInEveryBatch) {
  for_each_form([](Direction direction, Weight weight) {
    const Problem all(MlaAbsorbShape::packed(11, 3, 70, 33, 203, direction, weight), 60);
    const std::vector<float> expected = run(all);
    const size_t width = size_t(all.shape.heads) * all.shape.out_width();
    for (uint32_t tokens : {1u, 3u, 6u}) {
      Problem part = all;  // the last tokens of `all`
      part.shape.tokens = tokens;
      part.in.erase(part.in.begin(),
                    part.in.begin() + long((11 - tokens) * part.shape.in_token_stride));
      EXPECT_EQ(run(part),
                std::vector<float>(expected.begin() + long((11 - tokens) * width), expected.end()))
          << tokens << " tokens";
    }
  });
}

// Nor on the path: the portable one's configuration, as a device without scalar uniforms has it.
TEST_F(MlaAbsorbGpu, PathsHaveTheSameBits) {
  Caps portable = device()->caps();
  portable.scalar_uniforms = false;
  uint32_t seed = 90;
  for (const uint32_t tokens : {1u, 2u, 5u, 19u}) {
    for_each_form([&](Direction direction, Weight weight) {
      // 150 and 107 rows: segments of every length; ragged ranks that end a vector anywhere.
      for (const uint32_t rank : {64u, 262u, 515u}) {
        const Problem p(MlaAbsorbShape::packed(tokens, 3, 150, 107, rank, direction, weight),
                        seed++);
        const MlaAbsorbConfig config = config_of(p.shape);
        EXPECT_EQ(config.path == GemmPath::kScalar, device()->caps().scalar_uniforms);
        EXPECT_EQ(run(p), run(p, mla_absorb_choose(p.shape, portable)))
            << tokens << " tokens, rank " << rank << ": " << config.to_string();
      }
    });
  }
}

// One-hot inputs pick rows and columns of w: exact, and only head h's own.
TEST_F(MlaAbsorbGpu, OneHotInputsPickTheirWeights) {
  for_each_form([](Direction direction, Weight weight) {
    Problem p(MlaAbsorbShape::packed(1, 3, 40, 24, 75, direction, weight), 70);
    std::fill(p.in.begin(), p.in.end(), 0.0f);
    const uint32_t pick = 37, head = 2;
    p.in[head * p.shape.in_head_stride + pick] = 1.0f;
    const std::vector<float> out = run(p);
    for (uint32_t i = 0; i < out.size(); ++i) {
      const uint32_t h = i / p.shape.out_width(), o = i % p.shape.out_width();
      const uint32_t row = head * 64 + (direction == Direction::kQuery ? pick : 40 + o);
      const uint32_t l = direction == Direction::kQuery ? o : pick;
      const size_t at = size_t(row) * p.shape.w_stride + l;
      const float w = weight == Weight::kBf16
                          ? reference::bf16_decode(p.w_bf16[at])
                          : reference::e4m3_decode(p.w[at]) *
                                p.w_scale[(row / 128) * p.shape.w_scale_stride + l / 128];
      EXPECT_EQ(out[i], h == head ? w : 0.0f) << i;
    }
  });
}

TEST_F(MlaAbsorbGpu, EmptyProblemsAreDefined) {
  const auto packed = [](uint32_t tokens, uint32_t heads, uint32_t nope, uint32_t v, uint32_t rank,
                         Direction direction) {
    return Problem(MlaAbsorbShape::packed(tokens, heads, nope, v, rank, direction, Weight::kE4m3),
                   1);
  };
  EXPECT_TRUE(run(packed(0, 2, 8, 8, 16, Direction::kQuery)).empty());
  EXPECT_TRUE(run(packed(2, 0, 8, 8, 16, Direction::kValue)).empty());
  EXPECT_TRUE(run(packed(2, 2, 8, 8, 0, Direction::kQuery)).empty());
  EXPECT_TRUE(run(packed(2, 2, 8, 0, 16, Direction::kValue)).empty());
  EXPECT_EQ(run(packed(1, 2, 0, 8, 5, Direction::kQuery)), std::vector<float>(10, 0.0f));
  EXPECT_EQ(run(packed(1, 2, 8, 5, 0, Direction::kValue)), std::vector<float>(10, 0.0f));
}

TEST_F(MlaAbsorbGpu, ANanPoisonsItsTokenAndHeadOnly) {
  for (Direction direction : {Direction::kQuery, Direction::kValue}) {
    Problem p(MlaAbsorbShape::packed(3, 2, 32, 24, 64, direction, Weight::kE4m3), 80);
    p.in[p.shape.in_token_stride + p.shape.in_head_stride + 7] = NAN;  // token 1, head 1
    const std::vector<float> out = run(p);
    const size_t width = p.shape.out_width();
    for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isnan(out[i]), i / width == 3) << i;
  }
}

TEST(MlaAbsorbHost, RefusesEveryBrokenRuleByName) {
  const Caps caps = minimum_caps();
  const auto shape_of = [](Weight weight) {
    return MlaAbsorbShape::packed(2, 3, 32, 24, 200, Direction::kQuery, weight);
  };
  const auto refused = [&](const std::function<void(MlaAbsorbShape&)>& change,
                           Weight weight = Weight::kE4m3) {
    MlaAbsorbShape shape = shape_of(weight);
    change(shape);
    const Status status = mla_absorb_check(shape, caps);
    EXPECT_EQ(status.code(), Errc::kInvalidArgument);
    return status.message();
  };
  EXPECT_TRUE(mla_absorb_check(shape_of(Weight::kE4m3), caps).ok());
  EXPECT_TRUE(mla_absorb_check(shape_of(Weight::kBf16), caps).ok());
  EXPECT_EQ(refused([](auto& s) { s.rank = 1u << 25; }),
            "mla_absorb: rank must be at most 16777216, got 33554432");
  EXPECT_EQ(refused([](auto& s) { s.nope = 1u << 25; }),
            "mla_absorb: nope must be at most 16777216, got 33554432");
  EXPECT_EQ(refused([](auto& s) { s.v = 1u << 25; }),
            "mla_absorb: v must be at most 16777216, got 33554432");
  EXPECT_EQ(refused([](auto& s) { s.heads = 70000; }),
            "mla_absorb: heads must be at most 65535, got 70000");
  EXPECT_EQ(refused([](auto& s) { s.heads = 1000, s.nope = s.v = 1u << 24; }),
            "mla_absorb: heads * (nope + v) must be at most 2147483648, got 33554432000");
  EXPECT_EQ(refused([](auto& s) { s.tokens = 2 * 65535 + 1; }),
            "mla_absorb: tokens must be at most 131070, got 131071");
  EXPECT_EQ(refused([](auto& s) { s.w_stride = 192; }),
            "mla_absorb: w_stride must be at least rank, got 192 < 200");
  EXPECT_EQ(refused([](auto& s) { s.w_stride = 216; }),
            "mla_absorb: w_stride must be a multiple of 16 elements (16 bytes), got 216");
  EXPECT_EQ(refused([](auto& s) { s.w_stride = 204; }, Weight::kBf16),
            "mla_absorb: w_stride must be a multiple of 8 elements (16 bytes), got 204");
  EXPECT_EQ(refused([](auto& s) { s.w_scale_stride = 1; }),
            "mla_absorb: w_scale_stride must be at least ceil(rank/128), got 1 < 2");
  EXPECT_EQ(refused([](auto& s) { s.in_head_stride = 31; }),
            "mla_absorb: in_head_stride must be at least 32, got 31");
  EXPECT_EQ(refused([](auto& s) { s.in_token_stride = 95; }),
            "mla_absorb: in_token_stride must be at least 96, got 95");
  EXPECT_EQ(refused([](auto& s) { s.out_head_stride = 199; }),
            "mla_absorb: out_head_stride must be at least 200, got 199");
  EXPECT_EQ(refused([](auto& s) { s.out_token_stride = 599; }),
            "mla_absorb: out_token_stride must be at least 600, got 599");
}

TEST(MlaAbsorbHost, ChoicePrintsItselfAndWhatItRejected) {
  const MlaAbsorbConfig config = mla_absorb_choose(
      MlaAbsorbShape::packed(1, 2, 32, 24, 64, Direction::kValue, Weight::kBf16), minimum_caps());
  EXPECT_EQ(config.tile_m, 1u);
  EXPECT_NE(config.to_string().find("not coopmat: the device has no VK_KHR_cooperative_matrix"),
            std::string::npos);
}

}  // namespace
}  // namespace hadal::test
