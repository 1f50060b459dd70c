// Speed of mla_decode at DeepSeek-V3's and a small model's heads. FLOP = 2 * (2 * rank + rope) per
// token, head and key; bytes = every token's cache rows once.
#include "hadal/mla_decode.h"

#include <fmt/format.h>

#include <cmath>

#include "hadal/reference/mla_decode.h"
#include "support/bench.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

void run_case(Bench& bench, uint32_t tokens, uint32_t kv_len, uint32_t heads, uint32_t rank,
              uint32_t rope, ElementType type) {
  const uint32_t pages = ceil_div(kv_len, 64);
  MlaDecodeShape s = MlaDecodeShape::packed(tokens, heads, rank, rope, kv_len, tokens * pages * 64);
  s.scale = 1.0f / std::sqrt(float(rank)), s.cache_type = type;
  const MlaDecodeConfig config = mla_decode_choose(s, bench.device().caps());
  const bool bf16 = type == ElementType::kBf16;
  const std::string name =
      fmt::format("mla_decode {}x{} heads={} {}+{}{} tile {}x{}", tokens, kv_len, heads, rank, rope,
                  bf16 ? " bf16" : "", config.tile, config.workgroup_size);
  if (!bench.selected(name)) return;
  std::vector<uint32_t> tables(size_t(tokens) * pages), lens(tokens, kv_len);
  for (size_t i = 0; i < tables.size(); ++i) tables[i] = uint32_t(tables.size() - 1 - i);
  const uint64_t elements = uint64_t{s.cache_rows} * s.row_stride;
  const Buffer cache =
      bf16 ? bench.bf16(elements, -1.0f, 1.0f) : bench.floats(elements, -1.0f, 1.0f);
  const Buffer q_latent = bench.floats(uint64_t{tokens} * s.q_latent_row_stride, -1.0f, 1.0f);
  const Buffer q_pe = bench.floats(uint64_t{tokens} * s.q_pe_row_stride, -1.0f, 1.0f);
  const Buffer o = bench.buffer(uint64_t{tokens} * s.o_row_stride * 4);
  const Buffer scratch = bench.buffer(mla_decode_scratch_bytes(s));
  const Buffer table = bench.buffer(tables.size() * 4), kv_lens = bench.buffer(tokens * 4);
  require(bench.device().upload(table, 0, std::as_bytes(std::span(tables))));
  require(bench.device().upload(kv_lens, 0, std::as_bytes(std::span(lens))));
  const MlaDecode kernel = require(MlaDecode::create(bench.device(), config));
  const double keys = double(tokens) * kv_len;
  bench.time(
      {name, 2.0 * keys * heads * (2.0 * rank + rope), keys * (rank + rope) * element_bytes(type)},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s,
                             {q_latent.address(), q_pe.address(), cache.address(), table.address(),
                              kv_lens.address(), o.address(), 0, scratch.address()});
      },
      [&] {  // the last token; bfloat16 is checked by the tests
        if (bf16) return true;
        const std::vector<float> ql =
            bench.read_floats(q_latent, uint64_t{tokens} * s.q_latent_row_stride);
        const std::vector<float> qp = bench.read_floats(q_pe, uint64_t{tokens} * s.q_pe_row_stride);
        const std::vector<float> rows = bench.read_floats(cache, elements);
        const std::vector<float> os = bench.read_floats(o, uint64_t{tokens} * s.o_row_stride);
        MlaDecodeShape one = s;
        one.tokens = 1;
        const size_t t = tokens - 1;
        const auto r = reference::mla_decode(
            one, {&ql[t * s.q_latent_row_stride], qp.data() + t * s.q_pe_row_stride, rows.data(),
                  &tables[t * pages], lens.data()});
        for (size_t i = 0; i < r.value.size(); ++i) {
          const double error =
              test::attention_weight_error(rank + rope, kv_len, 18.0 + kv_len / 1024,
                                           r.score_magnitude[i / rank], r.score_range[i / rank]);
          const double bound = test::attention_bound(error, kv_len, r.magnitude[i], r.value[i]);
          if (!(std::fabs(os[t * s.o_row_stride + i] - r.value[i]) <= bound)) return false;
        }
        return true;
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  const bench::Options options = bench::parse_options(argc, argv);
  bench::Bench bench("mla_decode", options);
  for (uint32_t kv_len : {8u, 64u, 1024u, 4096u}) {
    bench::run_case(bench, 1, kv_len, 8, 64, 16, ElementType::kF32);
  }
  bench::run_case(bench, 8, 256, 8, 64, 16, ElementType::kF32);
  for (uint32_t kv_len : {64u, 1024u, 4096u}) {
    bench::run_case(bench, 1, kv_len, 128, 512, 64, ElementType::kF32);
    bench::run_case(bench, 1, kv_len, 128, 512, 64, ElementType::kBf16);
  }
  return 0;
}
