// Speed of mla_absorb at DeepSeek-V3's shape: 128 heads, nope 128, v 128, rank 512.
// FLOP = 2*tokens*heads*in*out; bytes = the half of w that the direction uses, in and out once.
#include "hadal/mla_absorb.h"

#include "hadal/reference/mla_absorb.h"
#include "support/bench.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

// The last head of the last token.
Check check_sample(Bench& bench, const MlaAbsorbShape& s, const Buffer& in, const Buffer& w,
                   const Buffer& w_scale, const Buffer& out) {
  const uint32_t rows = s.heads * (s.nope + s.v);
  std::vector<uint8_t> bytes(w.bytes());
  require(bench.device().download(w, 0, std::as_writable_bytes(std::span(bytes))));
  const std::vector<float> x = bench.read_floats(in, uint64_t{s.tokens} * s.in_token_stride);
  const std::vector<float> scale =
      bench.read_floats(w_scale, uint64_t{rows} / 128 * s.w_scale_stride);
  const std::vector<float> result = bench.read_floats(out, uint64_t{s.tokens} * s.out_token_stride);
  // One head alone: V3's heads have 256 rows, so its scale blocks are whole.
  MlaAbsorbShape one = s;
  one.tokens = one.heads = 1;
  const size_t head = s.heads - 1, token = s.tokens - 1, row = head * (s.nope + s.v);
  reference::MlaAbsorbInputs inputs;
  inputs.in = &x[token * s.in_token_stride + head * s.in_head_stride];
  inputs.w = &bytes[row * s.w_stride];
  inputs.w_scale = &scale[row / 128 * s.w_scale_stride];
  inputs.w_bf16 = reinterpret_cast<const uint16_t*>(bytes.data()) + row * s.w_stride;
  if (s.weight_type == MlaAbsorbWeight::kE4m3) inputs.w_bf16 = nullptr;
  const auto r = reference::mla_absorb(one, inputs);
  Check check;
  for (size_t i = 0; i < r.value.size(); ++i) {
    const float actual = result[token * s.out_token_stride + head * s.out_head_stride + i];
    check.add(actual, r.value[i], test::mla_absorb_bound(s.in_width(), r.value[i], r.magnitude[i]));
  }
  return check;
}

void run_case(Bench& bench, uint32_t tokens, MlaAbsorbDirection direction, MlaAbsorbWeight weight) {
  const auto s = MlaAbsorbShape::packed(tokens, 128, 128, 128, 512, direction, weight);
  require(mla_absorb_check(s, bench.caps()));
  const MlaAbsorbConfig config = mla_absorb_choose(s, bench.caps());
  const bool e4m3 = weight == MlaAbsorbWeight::kE4m3;
  const uint64_t rows = uint64_t{s.heads} * (s.nope + s.v);
  const Buffer w = e4m3 ? bench.e4m3(rows * s.w_stride) : bench.bf16(rows * s.w_stride, -1, 1);
  const Buffer w_scale = bench.floats(rows / 128 * s.w_scale_stride, 0.5f, 1.0f);
  const Buffer in = bench.floats(uint64_t{tokens} * s.in_token_stride, -1.0f, 1.0f);
  const Buffer out = bench.buffer(uint64_t{tokens} * s.out_token_stride * 4);
  const MlaAbsorb kernel = require(MlaAbsorb::create(bench.device(), config));
  const MlaAbsorbArgs args{in.address(), w.address(), w_scale.address(), out.address()};
  const double weights = 128.0 * 128.0 * 512.0;
  bench.time(
      {path_of(config.to_string()), 2.0 * tokens * weights,
       weights * (e4m3 ? 1 : 2) + 4.0 * tokens * 128.0 * (s.in_width() + s.out_width())},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); },
      [&] { return check_sample(bench, s, in, w, w_scale, out); });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("mla_absorb", argc, argv);
  for (uint32_t tokens : {1u, 4u, 16u}) {
    if (bench.options().quick && tokens > 4) continue;
    for (const char* direction : {"query", "value"}) {
      for (const char* weight : {"e4m3", "bf16"}) {
        bench.add({{"tokens", tokens}, {"direction", direction}, {"weight", weight}});
      }
    }
  }
  return bench.run([&](const bench::Shape& s) {
    bench::run_case(
        bench, s["tokens"],
        s.word("direction") == "query" ? MlaAbsorbDirection::kQuery : MlaAbsorbDirection::kValue,
        s.word("weight") == "e4m3" ? MlaAbsorbWeight::kE4m3 : MlaAbsorbWeight::kBf16);
  });
}
