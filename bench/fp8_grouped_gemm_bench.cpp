// Speed of fp8_grouped_gemm: expert GEMMs of DeepSeek-V3 (2048 x 7168 for gate or up, 4096 x 7168
// for both). FLOP = 2*rows*n*k; bytes = a and d once, the weights of the experts that have rows
// once.
#include "hadal/fp8_grouped_gemm.h"

#include "hadal/reference/fp8_gemm.h"
#include "support/bench.h"
#include "support/gemm_path.h"
#include "support/moe_tiles.h"
#include "support/routing.h"

namespace hadal::bench {
namespace {

struct Weights {
  Buffer b, b_scale, table;
};

Weights make_weights(Bench& bench, uint32_t experts, uint32_t n, uint32_t k) {
  const uint64_t b_bytes = uint64_t{n} * fp8_row_stride(k);
  const uint64_t scales = uint64_t{ceil_div(n, 128)} * ceil_div(k, 128);
  Weights w{bench.e4m3(experts * b_bytes), bench.floats(experts * scales, 0.5f, 1.0f), {}};
  std::vector<ExpertWeight> table;
  for (uint32_t e = 0; e < experts; ++e) {
    table.push_back({w.b.address() + e * b_bytes, w.b_scale.address() + e * scales * 4});
  }
  w.table = bench.upload(table);
  return w;
}

// A sample of rows and columns, always the first and the last ones.
Check check_sample(Bench& bench, const Fp8GroupedGemmConfig& config, const Fp8GroupedGemmShape& s,
                   const std::vector<uint32_t>& ends, const Buffer& a, const Buffer& a_scale,
                   const Weights& w, const Buffer& d) {
  Check check;
  for (uint32_t row : sample_of(s.rows, 8)) {
    uint32_t expert = 0;
    while (row >= ends[expert]) ++expert;
    const auto a8 = bench.read<uint8_t>(a, uint64_t{row} * s.a_stride, s.a_stride);
    const auto sa = bench.read<float>(a_scale, uint64_t{row} * s.a_scale_stride, s.a_scale_stride);
    const auto d_row = bench.read<float>(d, uint64_t{row} * s.d_stride, s.n);
    for (uint32_t column : sample_of(s.n, 16, row)) {
      const auto b8 =
          bench.read<uint8_t>(w.b, (uint64_t{expert} * s.n + column) * s.b_stride, s.b_stride);
      const auto sb = bench.read<float>(
          w.b_scale, (uint64_t{expert} * ceil_div(s.n, 128) + column / 128) * s.b_scale_stride,
          s.b_scale_stride);
      const auto r = reference::fp8_gemm(Fp8GemmShape::packed(1, 1, s.k),
                                         {a8.data(), sa.data(), b8.data(), sb.data()});
      check.add(d_row[column], r.value[0], path_bound(config, s.k, r.value[0], r.magnitude[0]));
    }
  }
  return check;
}

void run_case(Bench& bench, const Weights& w, const Shape& shape) {
  const std::vector<uint32_t> lengths = rows_per_expert(
      shape.word("routing"), shape["experts"], shape["used"], shape["tokens"], shape["top_k"]);
  const std::vector<uint32_t> ends = test::segment_ends(lengths);
  auto s = Fp8GroupedGemmShape::packed(ends.back(), shape["experts"], shape["n"], shape["k"]);
  s.a_stride = s.b_stride = fp8_row_stride(s.k);
  require(fp8_grouped_gemm_check(s, bench.caps()));
  const Fp8GroupedGemmConfig config =
      fp8_grouped_gemm_choose(s, bench.caps(), policy_of(bench.options().policy));
  const auto used = double(lengths.size() - std::count(lengths.begin(), lengths.end(), 0u));
  const test::MoeTileList list =
      test::make_moe_tiles(ends, config.tile_m, config.column_groups(s.n));
  const Buffer tiles = bench.upload(list.tiles);
  const Buffer indirect = bench.upload(std::vector(list.indirect.begin(), list.indirect.end()));
  const Buffer a = bench.e4m3(uint64_t{s.rows} * s.a_stride);
  const Buffer a_scale = bench.floats(uint64_t{s.rows} * s.a_scale_stride, 0.5f, 1.0f);
  const Buffer d = bench.buffer(uint64_t{s.rows} * s.d_stride * 4);
  const Fp8GroupedGemm kernel = require(Fp8GroupedGemm::create(bench.device(), config));
  Fp8GroupedGemmArgs args;
  args.a = a.address(), args.a_scale = a_scale.address(), args.d = d.address();
  args.expert_table = w.table.address(), args.tiles = tiles.address();
  args.indirect_buffer = &indirect;
  bench.time(
      {path_of(config.to_string()), 2.0 * s.rows * s.n * s.k,
       double(s.rows) * s.k + used * s.n * s.k + 4.0 * s.rows * s.n},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); },
      [&] { return check_sample(bench, config, s, ends, a, a_scale, w, d); });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("fp8_grouped_gemm", argc, argv);
  const auto add = [&](uint32_t experts, uint32_t used, uint32_t n, uint32_t tokens, uint32_t top_k,
                       const char* routing) {
    bench.add({{"experts", experts},
               {"used", used},
               {"n", n},
               {"k", 7168},
               {"tokens", tokens},
               {"top_k", top_k},
               {"routing", routing}});
  };
  add(8, 1, 2048, 1, 1, "even");
  add(8, 8, 2048, 4, 2, "random");
  if (!bench.options().quick) {
    add(8, 8, 2048, 24, 2, "random");
    add(8, 8, 2048, 64, 2, "random");
    add(8, 1, 2048, 128, 1, "even");
    add(32, 32, 4096, 128, 8, "even");
    add(32, 32, 4096, 128, 8, "random");
  }
  // Experts of one size are made once.
  bench::Weights weights;
  std::vector<uint32_t> made;
  return bench.run([&](const bench::Shape& s) {
    const std::vector<uint32_t> wanted = {s["experts"], s["n"], s["k"]};
    if (made != wanted) weights = bench::make_weights(bench, wanted[0], wanted[1], wanted[2]);
    made = wanted;
    bench::run_case(bench, weights, s);
  });
}
