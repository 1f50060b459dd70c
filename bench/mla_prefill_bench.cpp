// Speed of mla_prefill at DeepSeek-V3's and a small model's heads. FLOP = 2 * (nope + rope + v) per
// query, head and visible key.
#include "hadal/mla_prefill.h"

#include <cmath>

#include "hadal/reference/mla_prefill.h"
#include "hadal/types.h"
#include "support/attention_path.h"
#include "support/bench.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

void run_case(Bench& bench, uint32_t q_begin, uint32_t q_len, uint32_t heads, uint32_t nope,
              uint32_t rope, uint32_t v) {
  MlaPrefillShape s = MlaPrefillShape::packed(q_begin, q_len, heads, nope, rope, v);
  s.scale = 1.0f / std::sqrt(float(nope + rope));
  // As the model lays its rows out.
  s.q_row_stride = float_row_stride(s.q_row_stride);
  s.kv_row_stride = float_row_stride(s.kv_row_stride);
  require(mla_prefill_check(s, bench.caps()));
  const MlaPrefillConfig config =
      mla_prefill_choose(s, bench.caps(), attention_policy(bench.options().attention));
  const Buffer q = bench.floats(uint64_t{q_len} * s.q_row_stride, -1.0f, 1.0f);
  const Buffer kv = bench.floats(uint64_t{s.kv_rows} * s.kv_row_stride, -1.0f, 1.0f);
  const Buffer k_pe = bench.floats(uint64_t{s.kv_rows} * rope, -1.0f, 1.0f);
  const Buffer o = bench.buffer(uint64_t{q_len} * s.o_row_stride * 4);
  const Buffer scratch = bench.buffer(mla_prefill_scratch_bytes(s));
  const MlaPrefill kernel = require(MlaPrefill::create(bench.device(), config));
  const double pairs = double(q_len) * (q_begin + (q_len + 1.0) / 2) * heads;
  bench.time(
      {path_of(config.to_string()), 2.0 * pairs * (nope + rope + v),
       4.0 * (double(s.kv_rows) * (s.kv_row_stride + rope) + double(q_len) * s.q_row_stride)},
      [&](Recorder& recorder) {
        return kernel.record(
            recorder, s,
            {q.address(), kv.address(), k_pe.address(), o.address(), 0, scratch.address()});
      },
      [&] {  // the last query, all heads
        const std::vector<float> qs = bench.read_floats(q, uint64_t{q_len} * s.q_row_stride);
        const std::vector<float> kvs = bench.read_floats(kv, uint64_t{s.kv_rows} * s.kv_row_stride);
        const std::vector<float> pes = bench.read_floats(k_pe, uint64_t{s.kv_rows} * rope);
        const std::vector<float> os = bench.read_floats(o, uint64_t{q_len} * s.o_row_stride);
        Check check;
        MlaPrefillShape one = s;
        one.q_begin = q_begin + q_len - 1, one.q_len = 1;
        const auto r = reference::mla_prefill(
            one, {&qs[size_t(q_len - 1) * s.q_row_stride], kvs.data(), pes.data()});
        for (size_t i = 0; i < r.value.size(); ++i) {
          const double factors = 2.0 + s.kv_rows / 64;
          const double error = test::attention_weight_error(
              nope + rope, s.kv_rows, factors, r.score_magnitude[i / v], r.score_range[i / v]);
          const double bound =
              config.path == AttentionPath::kCoopMat
                  ? coopmat_bound(config.gpu_tile, nope + rope, s.kv_rows, factors, s.scale, r, i,
                                  v)
                  : test::attention_bound(error, s.kv_rows, r.magnitude[i], r.value[i]);
          check.add(os[size_t(q_len - 1) * s.o_row_stride + i], r.value[i], bound);
        }
        return check;
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("mla_prefill", argc, argv);
  const auto add = [&](uint32_t q_begin, uint32_t q_len, uint32_t heads, uint32_t nope,
                       uint32_t rope, uint32_t v) {
    bench.add({{"q_begin", q_begin},
               {"q_len", q_len},
               {"heads", heads},
               {"nope", nope},
               {"rope", rope},
               {"v", v}});
  };
  // DeepSeek-V3's heads, all of them; then a chunk behind cached keys, which are expanded already.
  for (uint32_t q_len : {256u, 2048u}) {
    if (bench.options().quick && q_len > 256) continue;
    add(0, q_len, 128, 128, 64, 128);
  }
  if (!bench.options().quick) add(4096, 256, 128, 128, 64, 128);
  for (uint32_t q_len : {1u, 2u, 4u, 8u, 64u, 512u}) {
    if (bench.options().quick && q_len > 64) continue;
    add(0, q_len, 8, 32, 32, 32);
    add(256, q_len, 16, 128, 64, 128);
  }
  return bench.run([&](const bench::Shape& s) {
    bench::run_case(bench, s["q_begin"], s["q_len"], s["heads"], s["nope"], s["rope"], s["v"]);
  });
}
