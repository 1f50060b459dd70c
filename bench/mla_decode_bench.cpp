// Speed of mla_decode at DeepSeek-V3's and a small model's heads. FLOP = 2 * (2 * rank + rope) per
// token, head and key; bytes = every token's cache rows once. At the end: nanoseconds per key of
// cases that differ in kv_len only, which growth of a context should leave as they are.
#include "hadal/mla_decode.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "hadal/reference/formats.h"
#include "hadal/reference/mla_decode.h"
#include "support/attention_path.h"
#include "support/bench.h"
#include "support/cache.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

// The rows that token t's pages hold, and a table of pages within them.
struct TokenRows {
  std::vector<float> values;       // of a float or bfloat16 cache
  std::vector<uint8_t> fp8_bytes;  // of an FP8 one
  std::vector<uint32_t> table;
};

TokenRows read_rows(Bench& bench, const Buffer& cache, const MlaDecodeShape& s,
                    const uint32_t* table, uint32_t pages) {
  TokenRows result;
  const uint32_t first = *std::min_element(table, table + pages);
  for (uint32_t i = 0; i < pages; ++i) result.table.push_back(table[i] - first);
  const uint64_t page_units = uint64_t{64} * s.row_stride;
  const uint64_t begin = first * page_units, count = pages * page_units;
  if (s.cache_format == CacheFormat::kFp8) {
    result.fp8_bytes = bench.read<uint8_t>(cache, begin, count);
  } else if (s.cache_format == CacheFormat::kBf16) {
    for (uint16_t code : bench.read<uint16_t>(cache, begin, count)) {
      result.values.push_back(reference::bf16_decode(code));
    }
  } else {
    result.values = bench.read<float>(cache, begin, count);
  }
  return result;
}

Timing run_case(Bench& bench, uint32_t tokens, uint32_t kv_len, uint32_t heads, uint32_t rank,
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
  const Buffer cache = cache_rows(bench, format, s.cache_rows, rank, rope);
  const Buffer q_latent = bench.floats(uint64_t{tokens} * s.q_latent_row_stride, -1.0f, 1.0f);
  const Buffer q_pe = bench.floats(uint64_t{tokens} * s.q_pe_row_stride, -1.0f, 1.0f);
  const Buffer o = bench.buffer(uint64_t{tokens} * s.o_row_stride * 4);
  const Buffer scratch = bench.buffer(mla_decode_scratch_bytes(s));
  const Buffer table = bench.upload(tables), kv_lens = bench.upload(lens);
  const MlaDecode kernel = require(MlaDecode::create(bench.device(), config));
  const double keys = double(tokens) * kv_len;
  return bench.time(
      {path_of(config.to_string()), 2.0 * keys * heads * (2.0 * rank + rope),
       keys * double(s.row_stride) * cache_stride_unit(format)},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s,
                             {q_latent.address(), q_pe.address(), cache.address(), table.address(),
                              kv_lens.address(), o.address(), 0, scratch.address()});
      },
      [&] {  // the first and last token; of long contexts the first, the last and a few heads
        Check check;
        const std::vector<float> ql =
            bench.read_floats(q_latent, uint64_t{tokens} * s.q_latent_row_stride);
        const std::vector<float> qp = bench.read_floats(q_pe, uint64_t{tokens} * s.q_pe_row_stride);
        const std::vector<float> os = bench.read_floats(o, uint64_t{tokens} * s.o_row_stride);
        const std::vector<uint32_t> checked_heads =
            sample_of(heads, std::max(4u, (1u << 17) / std::max(kv_len, 1u)));
        for (const uint32_t t : sample_of(tokens, 2)) {
          const TokenRows rows = read_rows(bench, cache, s, &tables[size_t(t) * pages], pages);
          MlaDecodeShape one = MlaDecodeShape::packed(1, uint32_t(checked_heads.size()), rank, rope,
                                                      kv_len, pages * 64, format);
          one.scale = s.scale;
          std::vector<float> one_ql, one_qp;
          for (const uint32_t h : checked_heads) {
            const float* l = &ql[size_t(t) * s.q_latent_row_stride + h * s.q_latent_head_stride];
            const float* p = qp.data() + size_t(t) * s.q_pe_row_stride + h * s.q_pe_head_stride;
            one_ql.insert(one_ql.end(), l, l + rank);
            one_qp.insert(one_qp.end(), p, p + rope);
          }
          const auto r =
              reference::mla_decode(one, {one_ql.data(), one_qp.data(), rows.values.data(),
                                          rows.table.data(), lens.data(), rows.fp8_bytes.data()});
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
            check.add(
                os[size_t(t) * s.o_row_stride + checked_heads[row] * s.o_head_stride + i % rank],
                r.value[i], bound);
          }
        }
        return check;
      });
}

// Nanoseconds per key by kv_len, of cases that are equal otherwise.
using Growth = std::map<std::string, std::map<uint32_t, double>>;

void print(const Growth& growth) {
  for (const auto& [what, by_length] : growth) {
    if (by_length.size() < 2) continue;
    double least = INFINITY, most = 0.0;
    std::string line;
    for (const auto& [kv_len, ns] : by_length) {
      line += fmt::format(" {}: {:.0f}", kv_len, ns);
      least = std::min(least, ns), most = std::max(most, ns);
    }
    fmt::print("ns per key, {}:{}; most / least {:.3f}\n", what, line, most / least);
  }
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
  // DeepSeek-V3's heads: a token, a batch, and one context that grows.
  const bool quick = bench.options().quick;
  const auto add_v3 = [&](uint32_t tokens, std::initializer_list<uint32_t> kv_lens) {
    for (const uint32_t kv_len : kv_lens) {
      if (quick && (tokens > 1 || kv_len > 64)) continue;
      for (const char* cache : {"f32", "bf16", "fp8"}) add(tokens, kv_len, 128, 512, 64, cache);
    }
  };
  add_v3(1, {64, 1024, 4096, 16384});
  add_v3(8, {1024, 4096, 16384});
  add_v3(1, {2048, 8192, 32768, 65536, 131072});
  bench::Growth growth;
  const int code = bench.run([&](const bench::Shape& s) {
    const bench::Timing timing =
        bench::run_case(bench, s["tokens"], s["kv_len"], s["heads"], s["rank"], s["rope"],
                        bench::cache_format(s.word("cache")));
    if (timing.samples == 0 || s["kv_len"] < 1024) return;
    growth[fmt::format("{} x {} heads, {}+{}, {}", s["tokens"], s["heads"], s["rank"], s["rope"],
                       s.word("cache"))][s["kv_len"]] =
        timing.median_ns / (double(s["tokens"]) * s["kv_len"]);
  });
  bench::print(growth);
  return code;
}
