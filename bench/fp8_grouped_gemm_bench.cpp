// Speed of fp8_grouped_gemm: expert GEMMs of DeepSeek-V3 (2048 x 7168 for gate or up, 4096 x 7168
// for both). FLOP = 2*rows*n*k; bytes = a and d once, the weights of the experts that have rows
// once. form=masked is the same routing in a tensor [experts, m_max, k] with counts on the device;
// form=dense the same rows by one fp8_gemm per expert, and how fast the grouped ones are beside it.
#include "hadal/fp8_grouped_gemm.h"

#include <fmt/format.h>

#include <map>

#include "hadal/fp8_gemm.h"
#include "hadal/moe_tiles.h"
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

// Operands of one routing. The rows of an expert begin at begin[e]: packed, or m_max apart.
struct Problem {
  Fp8GroupedGemmShape shape;
  std::vector<uint32_t> lengths, begin;
  double rows = 0, used = 0;
  Buffer a, a_scale, d;

  Problem(Bench& bench, const Shape& wanted, bool masked)
      : lengths(rows_per_expert(wanted.word("routing"), wanted["experts"], wanted["used"],
                                wanted["tokens"], wanted["top_k"])) {
    const uint32_t m_max = *std::max_element(lengths.begin(), lengths.end());
    uint32_t end = 0;
    for (uint32_t length : lengths) {
      begin.push_back(masked ? uint32_t(begin.size()) * m_max : end);
      end = begin.back() + (masked ? m_max : length);
      rows += length, used += length > 0;
    }
    shape = Fp8GroupedGemmShape::packed(end, wanted["experts"], wanted["n"], wanted["k"]);
    shape.a_stride = shape.b_stride = fp8_row_stride(shape.k);
    shape.expected_rows = masked ? uint32_t(rows) : 0;
    require(fp8_grouped_gemm_check(shape, bench.caps()));
    a = bench.e4m3(uint64_t{shape.rows} * shape.a_stride);
    a_scale = bench.floats(uint64_t{shape.rows} * shape.a_scale_stride, 0.5f, 1.0f);
    d = bench.buffer(uint64_t{shape.rows} * shape.d_stride * 4);
  }
  [[nodiscard]] Work work(const std::string& path) const {
    const double n = shape.n, k = shape.k;
    return {path, 2.0 * rows * n * k, rows * k + used * n * k + 4.0 * rows * n};
  }
  // A sample of rows and columns, always the first and the last ones.
  template <class Config>
  Check check(Bench& bench, const Config& config, const Weights& w) const {
    std::vector<std::pair<uint32_t, uint32_t>> all;  // expert, row
    for (uint32_t e = 0; e < shape.experts; ++e) {
      for (uint32_t i = 0; i < lengths[e]; ++i) all.emplace_back(e, begin[e] + i);
    }
    Check check;
    for (uint32_t at : sample_of(uint32_t(all.size()), 8)) {
      const auto [expert, row] = all[at];
      check_row(bench, config, w, expert, row, check);
    }
    return check;
  }

 private:
  template <class Config>
  void check_row(Bench& bench, const Config& config, const Weights& w, uint32_t expert,
                 uint32_t row, Check& check) const {
    const Fp8GroupedGemmShape& s = shape;
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
};

// One indirect dispatch over a list that was made before, or, in the masked form, by moe_tiles in
// the same command buffer.
Timing run_grouped(Bench& bench, const Weights& w, const Shape& shape, bool masked) {
  const Problem p(bench, shape, masked);
  const Fp8GroupedGemmConfig config =
      fp8_grouped_gemm_choose(p.shape, bench.caps(), bench.gemm_policy());
  MoeTilesShape plan_shape = MoeTilesShape::masked_groups(
      p.shape.experts, masked ? p.shape.rows / p.shape.experts : 0, config.tile_m);
  plan_shape.command_count = 1, plan_shape.groups_x[0] = config.column_groups(p.shape.n);
  require(moe_tiles_check(plan_shape, bench.caps()));
  const MoeTiles plan =
      require(MoeTiles::create(bench.device(), moe_tiles_choose(plan_shape, bench.caps())));
  const Buffer counts = bench.upload(p.lengths);
  const test::MoeTileList list =
      test::make_moe_tiles(test::segment_ends(p.lengths), config.tile_m, plan_shape.groups_x[0]);
  const Buffer tiles =
      masked ? bench.buffer(uint64_t{moe_tiles_max_tiles(plan_shape)} * sizeof(MoeTile))
             : bench.upload(list.tiles);
  const Buffer indirect = bench.upload(std::vector(list.indirect.begin(), list.indirect.end()));
  const Fp8GroupedGemm kernel = require(Fp8GroupedGemm::create(bench.device(), config));
  Fp8GroupedGemmArgs args;
  args.a = p.a.address(), args.a_scale = p.a_scale.address(), args.d = p.d.address();
  args.expert_table = w.table.address(), args.tiles = tiles.address();
  args.indirect_buffer = &indirect;
  const auto record = [&](Recorder& recorder) {
    if (masked) {
      const Status planned = plan.record(recorder, plan_shape,
                                         {counts.address(), tiles.address(), indirect.address()});
      if (!planned.ok()) return planned;
      recorder.barrier();
    }
    return kernel.record(recorder, p.shape, args);
  };
  const uint32_t expected =
      ceil_div(p.shape.expected_rows ? p.shape.expected_rows : p.shape.rows, p.shape.experts);
  const std::string path = tuned_path_of(config, TunedKernel::kFp8GroupedGemm, expected, p.shape.n,
                                         p.shape.k, bench.gemm_policy());
  return bench.time(p.work(path), record, [&] { return p.check(bench, config, w); });
}

// One fp8_gemm per expert that has rows, all in one command buffer.
Timing run_dense(Bench& bench, const Weights& w, const Shape& shape) {
  const Problem p(bench, shape, false);
  const uint64_t b_bytes = uint64_t{p.shape.n} * p.shape.b_stride;
  const uint64_t scales = uint64_t{ceil_div(p.shape.n, 128)} * p.shape.b_scale_stride;
  const auto shape_of = [&](uint32_t rows) {
    Fp8GemmShape s = Fp8GemmShape::packed(rows, p.shape.n, p.shape.k);
    s.a_stride = p.shape.a_stride, s.b_stride = p.shape.b_stride;
    return s;
  };
  std::map<uint32_t, Fp8Gemm> kernels;  // by rows
  std::map<uint32_t, Fp8GemmConfig> configs;
  for (uint32_t rows : p.lengths) {
    if (rows == 0 || kernels.contains(rows)) continue;
    configs[rows] = fp8_gemm_choose(shape_of(rows), bench.caps(), bench.gemm_policy());
    kernels.emplace(rows, require(Fp8Gemm::create(bench.device(), configs[rows])));
  }
  const auto record = [&](Recorder& recorder) {
    for (uint32_t e = 0; e < p.shape.experts; ++e) {
      if (p.lengths[e] == 0) continue;
      const uint64_t row = p.begin[e];
      const Fp8GemmArgs args{p.a.address() + row * p.shape.a_stride,
                             p.a_scale.address() + row * p.shape.a_scale_stride * 4,
                             w.b.address() + e * b_bytes, w.b_scale.address() + e * scales * 4,
                             p.d.address() + row * p.shape.d_stride * 4};
      const Status status = kernels.at(p.lengths[e]).record(recorder, shape_of(p.lengths[e]), args);
      if (!status.ok()) return status;
    }
    return Status();
  };
  const auto& [rows, most] = *configs.rbegin();
  const std::string path =
      tuned_path_of(most, TunedKernel::kFp8Gemm, rows, p.shape.n, p.shape.k, bench.gemm_policy());
  return bench.time(p.work(path), record, [&] { return p.check(bench, most, w); });
}

// `grouped_ns`: of the contiguous form that ran last, and which it was.
void run_case(Bench& bench, const Weights& w, const Shape& shape,
              std::pair<std::vector<uint32_t>, double>& grouped_ns) {
  const std::string form = shape.has("form") ? shape.word("form") : "contiguous";
  const std::vector<uint32_t> lengths = rows_per_expert(
      shape.word("routing"), shape["experts"], shape["used"], shape["tokens"], shape["top_k"]);
  if (form != "dense") {
    const Timing timing = run_grouped(bench, w, shape, form == "masked");
    if (form != "masked") grouped_ns = {lengths, timing.median_ns};
    return;
  }
  const Timing dense = run_dense(bench, w, shape);
  if (lengths != grouped_ns.first || grouped_ns.second == 0) return;
  fmt::print("  grouped: {:.3f} of the rate of one fp8_gemm per expert with the same rows\n",
             dense.median_ns / grouped_ns.second);
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
    for (const char* form : {"masked", "dense"}) {
      bench.add({{"experts", 32},
                 {"used", 32},
                 {"n", 4096},
                 {"k", 7168},
                 {"tokens", 128},
                 {"top_k", 8},
                 {"routing", "random"},
                 {"form", form}});
    }
  }
  // Experts of one size are made once.
  bench::Weights weights;
  std::vector<uint32_t> made;
  std::pair<std::vector<uint32_t>, double> grouped_ns;
  return bench.run([&](const bench::Shape& s) {
    const std::vector<uint32_t> wanted = {s["experts"], s["n"], s["k"]};
    if (made != wanted) weights = bench::make_weights(bench, wanted[0], wanted[1], wanted[2]);
    made = wanted;
    bench::run_case(bench, weights, s, grouped_ns);
  });
}
