// Speed of mla_decode at DeepSeek-V3's and a small model's heads. FLOP = 2 * (2 * rank + rope) per
// token, head and key; bytes = every token's cache rows once.
#include "hadal/mla_decode.h"

#include <cmath>

#include "hadal/reference/formats.h"
#include "hadal/reference/mla_decode.h"
#include "support/attention_path.h"
#include "support/bench.h"
#include "support/cache.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

void run_case(Bench& bench, uint32_t tokens, uint32_t kv_len, uint32_t heads, uint32_t rank,
              uint32_t rope, CacheFormat format) {
  const uint32_t pages = ceil_div(kv_len, 64);
  MlaDecodeShape s =
      MlaDecodeShape::packed(tokens, heads, rank, rope, kv_len, tokens * pages * 64, format);
  s.scale = 1.0f / std::sqrt(float(rank));
  require(mla_decode_check(s, bench.caps()));
  const MlaDecodeConfig config =
      mla_decode_choose(s, bench.caps(), attention_policy(bench.options().attention));
  std::vector<uint32_t> tables(size_t(tokens) * pages), lens(tokens, kv_len);
  for (size_t i = 0; i < tables.size(); ++i) tables[i] = uint32_t(tables.size() - 1 - i);
  const uint64_t units = uint64_t{s.cache_rows} * s.row_stride;
  const Buffer cache = cache_rows(bench, format, s.cache_rows, rank, rope);
  const Buffer q_latent = bench.floats(uint64_t{tokens} * s.q_latent_row_stride, -1.0f, 1.0f);
  const Buffer q_pe = bench.floats(uint64_t{tokens} * s.q_pe_row_stride, -1.0f, 1.0f);
  const Buffer o = bench.buffer(uint64_t{tokens} * s.o_row_stride * 4);
  const Buffer scratch = bench.buffer(mla_decode_scratch_bytes(s));
  const Buffer table = bench.upload(tables), kv_lens = bench.upload(lens);
  const MlaDecode kernel = require(MlaDecode::create(bench.device(), config));
  const double keys = double(tokens) * kv_len;
  bench.time(
      {path_of(config.to_string()), 2.0 * keys * heads * (2.0 * rank + rope),
       keys * double(s.row_stride) * cache_stride_unit(format)},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s,
                             {q_latent.address(), q_pe.address(), cache.address(), table.address(),
                              kv_lens.address(), o.address(), 0, scratch.address()});
      },
      [&] {  // the last token
        Check check;
        const std::vector<float> ql =
            bench.read_floats(q_latent, uint64_t{tokens} * s.q_latent_row_stride);
        const std::vector<float> qp = bench.read_floats(q_pe, uint64_t{tokens} * s.q_pe_row_stride);
        std::vector<float> rows;
        std::vector<uint8_t> fp8_rows;
        if (format == CacheFormat::kFp8) {
          fp8_rows = bench.read<uint8_t>(cache, 0, units);
        } else if (format == CacheFormat::kBf16) {
          for (uint16_t code : bench.read<uint16_t>(cache, 0, units)) {
            rows.push_back(reference::bf16_decode(code));
          }
        } else {
          rows = bench.read_floats(cache, units);
        }
        const std::vector<float> os = bench.read_floats(o, uint64_t{tokens} * s.o_row_stride);
        MlaDecodeShape one = s;
        one.tokens = 1;
        const size_t t = tokens - 1;
        const auto r = reference::mla_decode(
            one, {&ql[t * s.q_latent_row_stride], qp.data() + t * s.q_pe_row_stride, rows.data(),
                  &tables[t * pages], lens.data(), fp8_rows.data()});
        for (size_t i = 0; i < r.value.size(); ++i) {
          const size_t row = i / rank;
          const double factors = 18.0 + kv_len / 1024;
          double bound = 0.0;
          if (config.path == AttentionPath::kCoopMat) {
            bound =
                coopmat_bound(config.gpu_tile, rank + rope, kv_len, factors, s.scale, r, i, rank);
          } else if (format == CacheFormat::kFp8) {
            const double error = test::attention_fp8_weight_error(
                rank, rope, kv_len, factors, r.score_magnitude[row], r.score_range[row], s.scale);
            bound = test::attention_fp8_bound(error, kv_len, r.magnitude[i], r.value[i]);
          } else {
            const double error = test::attention_weight_error(
                rank + rope, kv_len, factors, r.score_magnitude[row], r.score_range[row]);
            bound = test::attention_bound(error, kv_len, r.magnitude[i], r.value[i]);
          }
          check.add(os[t * s.o_row_stride + i], r.value[i], bound);
        }
        return check;
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("mla_decode", argc, argv);
  const auto add = [&](uint32_t tokens, uint32_t kv_len, uint32_t heads, uint32_t rank,
                       uint32_t rope, const char* cache) {
    bench.add({{"tokens", tokens},
               {"kv_len", kv_len},
               {"heads", heads},
               {"rank", rank},
               {"rope", rope},
               {"cache", cache}});
  };
  for (uint32_t kv_len : {8u, 64u, 1024u, 4096u}) add(1, kv_len, 8, 64, 16, "f32");
  add(8, 256, 8, 64, 16, "f32");
  for (uint32_t kv_len : {64u, 1024u, 4096u}) {
    if (bench.options().quick && kv_len > 64) continue;
    add(1, kv_len, 128, 512, 64, "f32");
    add(1, kv_len, 128, 512, 64, "bf16");
    add(1, kv_len, 128, 512, 64, "fp8");
  }
  return bench.run([&](const bench::Shape& s) {
    bench::run_case(bench, s["tokens"], s["kv_len"], s["heads"], s["rank"], s["rope"],
                    bench::cache_format(s.word("cache")));
  });
}
