// The MLP of all experts in one command buffer: tile list, gate and up as one GEMM over weights
// that lie behind each other, SwiGLU with re-quantisation behind it, down. Replayed with other
// routings in device memory, in both forms, it gives each row the bits of the dense kernels, gate
// and up apart.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <cmath>

#include "hadal/fp8_gemm.h"
#include "hadal/fp8_grouped_gemm.h"
#include "hadal/moe_tiles.h"
#include "hadal/recorder.h"
#include "hadal/swiglu.h"
#include "support/gpu.h"
#include "support/random.h"
#include "support/same_bits.h"

namespace hadal::test {
namespace {

constexpr uint32_t kExperts = 3, kMMax = 9, kRows = kExperts * kMMax;
constexpr uint32_t kHidden = 200, kWidth = 256, kStride = 208, kBlocks = 2, kOut = 70;

std::vector<float> scales(Random& random, size_t count) {
  return random.uniforms(count, 0x1p-10f, 0x1p-6f);
}

struct Expert {
  std::vector<uint8_t> gate_up, down;  // [2 * kWidth, kStride], [kOut, kWidth]
  std::vector<float> gate_up_scale, down_scale;
};

struct Problem {
  std::vector<uint8_t> a;
  std::vector<float> a_scale;
  std::vector<Expert> experts;

  explicit Problem(uint32_t seed) {
    Random random(seed);
    a = random.e4m3_codes(size_t(kRows) * kStride);
    a_scale = scales(random, size_t(kRows) * kBlocks);
    for (uint32_t e = 0; e < kExperts; ++e) {
      experts.push_back({random.e4m3_codes(size_t(2) * kWidth * kStride),
                         random.e4m3_codes(size_t(kOut) * kWidth),
                         scales(random, size_t(2) * kWidth / 128 * kBlocks),
                         scales(random, size_t(ceil_div(kOut, 128)) * (kWidth / 128))});
    }
  }
};

SwigluShape swiglu_shape(uint32_t stride) {
  SwigluShape shape = SwigluShape::packed(kRows, kWidth);
  shape.gate_stride = shape.up_stride = stride;
  shape.write_y = false, shape.quantize = true;
  return shape;
}

// Default policies.
Fp8GemmConfig choose_dense(const Fp8GemmShape& shape, const Caps& caps) {
  return fp8_gemm_choose(shape, caps);
}
Fp8GroupedGemmConfig choose_grouped(const Fp8GroupedGemmShape& shape, const Caps& caps) {
  return fp8_grouped_gemm_choose(shape, caps);
}

template <class Kernel, class Choose, class Shape, class Args>
Status record(Recorder& recorder, Choose choose, const Shape& shape, const Args& args) {
  HADAL_ASSIGN(const Kernel kernel, Kernel::create(*device(), choose(shape, device()->caps())));
  return kernel.record(recorder, shape, args);
}

// All rows through one expert, by the dense kernels, gate and up one after the other.
std::vector<float> dense(const Problem& p, const Expert& expert) {
  GpuCase gpu(*device());
  const GuardedBuffer &a = gpu.input(p.a), &a_scale = gpu.input(p.a_scale);
  const GuardedBuffer &b = gpu.input(expert.gate_up), &down = gpu.input(expert.down);
  const GuardedBuffer& b_scale = gpu.input(expert.gate_up_scale);
  const GuardedBuffer& down_scale = gpu.input(expert.down_scale);
  const GuardedBuffer& gate = gpu.output(uint64_t{kRows} * kWidth * 4);
  const GuardedBuffer& up = gpu.output(uint64_t{kRows} * kWidth * 4);
  const GuardedBuffer& q = gpu.output(uint64_t{kRows} * kWidth);
  const GuardedBuffer& scale = gpu.output(uint64_t{kRows} * kWidth / 128 * 4);
  const GuardedBuffer& d = gpu.output(uint64_t{kRows} * kOut * 4);
  const Fp8GemmShape half = Fp8GemmShape::packed(kRows, kWidth, kHidden);
  gpu.run([&](Recorder& recorder) -> Status {
    HADAL_TRY(record<Fp8Gemm>(recorder, choose_dense, half,
                              Fp8GemmArgs{a.address(), a_scale.address(), b.address(),
                                          b_scale.address(), gate.address()}));
    HADAL_TRY(record<Fp8Gemm>(
        recorder, choose_dense, half,
        Fp8GemmArgs{a.address(), a_scale.address(), b.address() + uint64_t{kWidth} * kStride,
                    b_scale.address() + uint64_t{kWidth} / 128 * kBlocks * 4, up.address()}));
    recorder.barrier();
    HADAL_TRY(
        record<Swiglu>(recorder, swiglu_choose, swiglu_shape(kWidth),
                       SwigluArgs{gate.address(), up.address(), 0, q.address(), scale.address()}));
    recorder.barrier();
    return record<Fp8Gemm>(recorder, choose_dense, Fp8GemmShape::packed(kRows, kOut, kWidth),
                           Fp8GemmArgs{q.address(), scale.address(), down.address(),
                                       down_scale.address(), d.address()});
  });
  return gpu.values<float>(d);
}

void expect_replays(bool masked, const std::vector<std::vector<uint32_t>>& routings) {
  const Problem p(masked ? 1 : 2);
  std::vector<std::vector<float>> expected;
  for (const Expert& expert : p.experts) expected.push_back(dense(p, expert));

  GpuCase gpu(*device());
  std::vector<ExpertWeight> gate_up_table, down_table;
  for (const Expert& e : p.experts) {
    gate_up_table.push_back({gpu.input(e.gate_up).address(), gpu.input(e.gate_up_scale).address()});
    down_table.push_back({gpu.input(e.down).address(), gpu.input(e.down_scale).address()});
  }
  const GuardedBuffer &a = gpu.input(p.a), &a_scale = gpu.input(p.a_scale);
  GuardedBuffer& segments = gpu.input(std::vector<uint32_t>(kExperts, 0u));
  const GuardedBuffer& gate_up = gpu.output(uint64_t{kRows} * 2 * kWidth * 4);
  const GuardedBuffer& q = gpu.output(uint64_t{kRows} * kWidth);
  const GuardedBuffer& scale = gpu.output(uint64_t{kRows} * kWidth / 128 * 4);
  GuardedBuffer& d = gpu.output(uint64_t{kRows} * kOut * 4);

  auto first = Fp8GroupedGemmShape::packed(kRows, kExperts, 2 * kWidth, kHidden);
  auto second = Fp8GroupedGemmShape::packed(kRows, kExperts, kOut, kWidth);
  first.expected_rows = second.expected_rows = 13;
  const Caps& caps = device()->caps();
  const auto first_config = fp8_grouped_gemm_choose(first, caps);
  const auto second_config = fp8_grouped_gemm_choose(second, caps);
  ASSERT_EQ(first_config.tile_m, second_config.tile_m);
  const SwigluShape act = swiglu_shape(2 * kWidth);
  MoeTilesShape list = masked ? MoeTilesShape::masked_groups(kExperts, kMMax, first_config.tile_m)
                              : MoeTilesShape::contiguous(kRows, kExperts, first_config.tile_m);
  list.command_count = 3;
  list.groups_x = {first_config.column_groups(2 * kWidth), swiglu_choose(act, caps).runs(kWidth),
                   second_config.column_groups(kOut), 0};
  const GuardedBuffer& tiles = gpu.output(uint64_t{moe_tiles_max_tiles(list)} * sizeof(MoeTile));
  const GuardedBuffer& commands = gpu.output(36);
  const uint64_t command = commands.address() - commands.buffer().address();

  RecorderOptions options;
  options.check_hazards = true;
  Result<Recorder> recorder = Recorder::create(*device(), options);
  ASSERT_TRUE(recorder.ok());
  const auto record_all = [&]() -> Status {
    HADAL_TRY(
        record<MoeTiles>(*recorder, moe_tiles_choose, list,
                         MoeTilesArgs{segments.address(), tiles.address(), commands.address()}));
    recorder->barrier();
    Fp8GroupedGemmArgs args;
    args.a = a.address(), args.a_scale = a_scale.address();
    args.expert_table = gpu.input(gate_up_table).address(), args.tiles = tiles.address();
    args.indirect_buffer = &commands.buffer(), args.indirect_offset = command;
    args.d = gate_up.address();
    HADAL_TRY(record<Fp8GroupedGemm>(*recorder, choose_grouped, first, args));
    recorder->barrier();
    HADAL_TRY(record<SwigluTiles>(
        *recorder, swiglu_choose, act,
        SwigluTilesArgs{
            {gate_up.address(), gate_up.address() + kWidth * 4, 0, q.address(), scale.address()},
            tiles.address(),
            moe_tiles_max_tiles(list),
            &commands.buffer(),
            command + 12}));
    recorder->barrier();
    args.a = q.address(), args.a_scale = scale.address();
    args.expert_table = gpu.input(down_table).address(), args.indirect_offset = command + 24;
    args.d = d.address();
    HADAL_TRY(record<Fp8GroupedGemm>(*recorder, choose_grouped, second, args));
    return recorder->end();
  };
  const Status recorded = record_all();
  ASSERT_TRUE(recorded.ok()) << recorded.message();
  for (const std::vector<uint32_t>& routing : routings) {
    SCOPED_TRACE(fmt::format("masked {}, {}", masked, fmt::join(routing, " ")));
    segments.write(std::as_bytes(std::span(routing)));
    d.write(std::vector<std::byte>(d.bytes(), std::byte{0xff}));
    ASSERT_TRUE(device()->run(*recorder).ok());
    std::vector<float> rows(size_t(kRows) * kOut, NAN);  // where no segment is
    for (uint32_t e = 0, begin = 0; e < kExperts; ++e) {
      if (masked) begin = e * kMMax;
      const uint32_t end = masked ? begin + routing[e] : routing[e];
      std::copy(expected[e].begin() + begin * kOut, expected[e].begin() + end * kOut,
                rows.begin() + begin * kOut);
      begin = end;
    }
    EXPECT_TRUE(same_bits(gpu.values<float>(d), rows, kOut));
    EXPECT_TRUE(d.guards_intact() && q.guards_intact() && gate_up.guards_intact());
  }
}

class ExpertMlpGpu : public GpuTest {};

TEST_F(ExpertMlpGpu, OneRecordingServesEveryMaskedRouting) {
  expect_replays(true, {{4, 0, 9}, {0, 0, 0}, {9, 9, 9}, {1, 2, 3}});
}

TEST_F(ExpertMlpGpu, OneRecordingServesEveryContiguousRouting) {
  expect_replays(false, {{4, 4, 13}, {0, 0, 0}, {27, 27, 27}, {0, 0, 27}, {5, 9, 20}});
}

}  // namespace
}  // namespace hadal::test
