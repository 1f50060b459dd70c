// Speed of bf16_grouped_gemm at DeepSeek-V3's expert shape (gate and up: 2048 x 7168) with 8
// experts. FLOP = 2*rows*n*k; bytes = a and d once, the weights of the experts that have rows once.
#include "hadal/bf16_grouped_gemm.h"

#include <fmt/format.h>

#include <cmath>

#include "hadal/reference/bf16_gemm.h"
#include "support/bench.h"
#include "support/moe_tiles.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

constexpr uint32_t kExperts = 8, kN = 2048, kK = 7168;

struct Weights {
  Buffer b, table;
};

Weights make_weights(Bench& bench) {
  const uint64_t elements = uint64_t{kN} * kK;
  Weights w{bench.bf16(kExperts * elements, -1.0f, 1.0f), {}};
  std::vector<ExpertWeight> table;
  for (uint32_t e = 0; e < kExperts; ++e) table.push_back({w.b.address() + e * elements * 2, 0});
  w.table = bench.buffer(table.size() * sizeof(ExpertWeight));
  require(bench.device().upload(w.table, 0, std::as_bytes(std::span(table))));
  return w;
}

// Compares the first and the last row, at a few columns, with the reference.
bool check_sample(Bench& bench, const Bf16GroupedGemmShape& s, const std::vector<uint32_t>& ends,
                  const Buffer& a, const Weights& w, const Buffer& d) {
  std::vector<uint16_t> b16(s.b_stride);
  const std::vector<float> af = bench.read_floats(a, uint64_t{s.rows} * s.a_stride);
  const std::vector<float> result = bench.read_floats(d, uint64_t{s.rows} * s.d_stride);
  for (uint32_t row : {0u, s.rows - 1}) {
    uint32_t expert = 0;
    while (row >= ends[expert]) ++expert;
    for (uint32_t column : {0u, s.n / 3, s.n - 1}) {
      require(bench.device().download(w.b, (uint64_t{expert} * s.n + column) * s.b_stride * 2,
                                      std::as_writable_bytes(std::span(b16))));
      const auto r = reference::bf16_gemm(Bf16GemmShape::packed(1, 1, s.k),
                                          {&af[size_t(row) * s.a_stride], nullptr, b16.data()});
      const double error = std::fabs(result[size_t(row) * s.d_stride + column] - r.value[0]);
      if (!(error <= test::bf16_gemm_bound(s.k, r.value[0], r.magnitude[0]))) return false;
    }
  }
  return true;
}

void run_case(Bench& bench, const Weights& w, const std::vector<uint32_t>& lengths) {
  const std::vector<uint32_t> ends = test::segment_ends(lengths);
  const auto s = Bf16GroupedGemmShape::packed(ends.back(), kExperts, kN, kK);
  const Bf16GroupedGemmConfig config = bf16_grouped_gemm_choose(s, bench.device().caps());
  const uint32_t used = uint32_t(
      std::count_if(lengths.begin(), lengths.end(), [](uint32_t length) { return length > 0; }));
  const std::string name = fmt::format("bf16_grouped_gemm rows={} used={} tile {}x{}", s.rows, used,
                                       config.tile_m, config.tile_n);
  if (!bench.selected(name)) return;
  const test::MoeTileList list =
      test::make_moe_tiles(ends, config.tile_m, config.column_groups(s.n));
  const Buffer tiles = bench.buffer(list.tiles.size() * sizeof(MoeTile));
  const Buffer indirect = bench.buffer(sizeof(list.indirect));
  require(bench.device().upload(tiles, 0, std::as_bytes(std::span(list.tiles))));
  require(bench.device().upload(indirect, 0, std::as_bytes(std::span(list.indirect))));
  const Buffer a = bench.floats(uint64_t{s.rows} * s.a_stride, -1.0f, 1.0f);
  const Buffer d = bench.buffer(uint64_t{s.rows} * s.d_stride * 4);
  const Bf16GroupedGemm kernel = require(Bf16GroupedGemm::create(bench.device(), config));
  Bf16GroupedGemmArgs args;
  args.a = a.address(), args.d = d.address();
  args.expert_table = w.table.address(), args.tiles = tiles.address();
  args.indirect_buffer = &indirect;
  bench.time(
      {name, 2.0 * s.rows * s.n * s.k,
       4.0 * s.rows * s.k + 2.0 * used * s.n * s.k + 4.0 * s.rows * s.n},
      [&](Recorder& recorder) { return kernel.record(recorder, s, args); },
      [&] { return check_sample(bench, s, ends, a, w, d); });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Options options = bench::parse_options(argc, argv);
  bench::Bench bench("bf16_grouped_gemm", options);
  const bench::Weights weights = bench::make_weights(bench);
  bench::run_case(bench, weights, {0, 1, 0, 0, 0, 0, 0, 0});
  bench::run_case(bench, weights, {1, 0, 2, 0, 1, 3, 0, 1});
  if (options.quick) return 0;
  bench::run_case(bench, weights, {7, 4, 9, 2, 12, 6, 0, 8});
  bench::run_case(bench, weights, {30, 10, 17, 16, 21, 5, 9, 20});
  bench::run_case(bench, weights, {128, 0, 0, 0, 0, 0, 0, 0});
  return 0;
}
