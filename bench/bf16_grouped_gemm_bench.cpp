// Speed of bf16_grouped_gemm at DeepSeek-V3's expert shape (gate and up: 2048 x 7168) with 8
// experts. FLOP = 2*rows*n*k; bytes = a and d once, the weights of the experts that have rows once.
#include "hadal/bf16_grouped_gemm.h"

#include "hadal/reference/bf16_gemm.h"
#include "support/bench.h"
#include "support/moe_tiles.h"
#include "support/routing.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

struct Weights {
  Buffer b, table;
};

Weights make_weights(Bench& bench, uint32_t experts, uint32_t n, uint32_t k) {
  const uint64_t elements = uint64_t{n} * k;
  Weights w{bench.bf16(experts * elements, -1.0f, 1.0f), {}};
  std::vector<ExpertWeight> table;
  for (uint32_t e = 0; e < experts; ++e) table.push_back({w.b.address() + e * elements * 2, 0});
  w.table = bench.upload(table);
  return w;
}

// A sample of rows and columns, always the first and the last ones.
Check check_sample(Bench& bench, const Bf16GroupedGemmShape& s, const std::vector<uint32_t>& ends,
                   const Buffer& a, const Weights& w, const Buffer& d) {
  Check check;
  for (uint32_t row : sample_of(s.rows, 8)) {
    uint32_t expert = 0;
    while (row >= ends[expert]) ++expert;
    const auto af = bench.read<float>(a, uint64_t{row} * s.a_stride, s.a_stride);
    const auto d_row = bench.read<float>(d, uint64_t{row} * s.d_stride, s.n);
    for (uint32_t column : sample_of(s.n, 16, row)) {
      const auto b16 =
          bench.read<uint16_t>(w.b, (uint64_t{expert} * s.n + column) * s.b_stride, s.b_stride);
      const auto r =
          reference::bf16_gemm(Bf16GemmShape::packed(1, 1, s.k), {af.data(), nullptr, b16.data()});
      check.add(d_row[column], r.value[0], test::bf16_gemm_bound(s.k, r.value[0], r.magnitude[0]));
    }
  }
  return check;
}

void run_case(Bench& bench, const Weights& w, const Shape& shape) {
  const std::vector<uint32_t> lengths = rows_per_expert(
      shape.word("routing"), shape["experts"], shape["used"], shape["tokens"], shape["top_k"]);
  const std::vector<uint32_t> ends = test::segment_ends(lengths);
  const auto s =
      Bf16GroupedGemmShape::packed(ends.back(), shape["experts"], shape["n"], shape["k"]);
  require(bf16_grouped_gemm_check(s, bench.caps()));
  const Bf16GroupedGemmConfig config = bf16_grouped_gemm_choose(s, bench.caps());
  const auto used = double(lengths.size() - std::count(lengths.begin(), lengths.end(), 0u));
  const test::MoeTileList list =
      test::make_moe_tiles(ends, config.tile_m, config.column_groups(s.n));
  const Buffer tiles = bench.upload(list.tiles);
  const Buffer indirect = bench.upload(std::vector(list.indirect.begin(), list.indirect.end()));
  const Buffer a = bench.floats(uint64_t{s.rows} * s.a_stride, -1.0f, 1.0f);
  const Buffer d = bench.buffer(uint64_t{s.rows} * s.d_stride * 4);
  const Bf16GroupedGemm kernel = require(Bf16GroupedGemm::create(bench.device(), config));
  Bf16GroupedGemmArgs args;
  args.a = a.address(), args.d = d.address();
  args.expert_table = w.table.address(), args.tiles = tiles.address();
  args.indirect_buffer = &indirect;
  bench.time(
      {path_of(config.to_string()), 2.0 * s.rows * s.n * s.k,
       4.0 * s.rows * s.k + 2.0 * used * s.n * s.k + 4.0 * s.rows * s.n},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); },
      [&] { return check_sample(bench, s, ends, a, w, d); });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("bf16_grouped_gemm", argc, argv);
  const auto add = [&](uint32_t used, uint32_t tokens, uint32_t top_k, const char* routing) {
    bench.add({{"experts", 8},
               {"used", used},
               {"n", 2048},
               {"k", 7168},
               {"tokens", tokens},
               {"top_k", top_k},
               {"routing", routing}});
  };
  add(1, 1, 1, "even");
  add(8, 4, 2, "random");
  if (!bench.options().quick) {
    add(8, 24, 2, "random");
    add(8, 64, 2, "random");
    add(1, 128, 1, "even");
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
