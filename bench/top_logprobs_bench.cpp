// Speed of top_logprobs. Bytes = the logits once.
#include "hadal/top_logprobs.h"

#include "hadal/reference/top_logprobs.h"
#include "support/bench.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

void check_row(Check& check, const reference::LogprobRow& row, uint32_t id, float logprob) {
  double mass_error = 0.0;
  for (double z : row.distances) mass_error += test::logprob_weight_error(z);
  check.add(logprob, row.logprobs[id],
            test::logprob_bound(row.distances[id], row.mass, mass_error));
}

void run_case(Bench& bench, const TopLogprobsShape& s) {
  require(top_logprobs_check(s, bench.caps()));
  const Buffer logits = bench.floats(uint64_t{s.rows} * s.vocab, -8.0f, 8.0f);
  std::vector<uint32_t> chosen(s.rows);
  for (uint32_t r = 0; r < s.rows; ++r) chosen[r] = (r * 7919u + 13u) % s.vocab;
  const Buffer ids = bench.upload(chosen);
  const uint64_t tops = uint64_t{s.rows} * s.top;
  const Buffer logprobs = bench.buffer(uint64_t{s.rows} * 4);
  const Buffer top_ids = bench.buffer(std::max<uint64_t>(tops, 1) * 4);
  const Buffer top_logprobs = bench.buffer(std::max<uint64_t>(tops, 1) * 4);
  const TopLogprobsConfig config = top_logprobs_choose(s, bench.caps());
  const TopLogprobs kernel = require(TopLogprobs::create(bench.device(), config));
  bench.time(
      {path_of(config.to_string()), 0.0, 4.0 * s.rows * s.vocab},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s,
                             {logits.address(), 0, ids.address(), logprobs.address(),
                              top_ids.address(), top_logprobs.address()});
      },
      [&] {
        const auto x = bench.read_floats(logits, uint64_t{s.rows} * s.vocab);
        const auto got = bench.read_floats(logprobs, s.rows);
        const auto got_ids = bench.read<uint32_t>(top_ids, 0, tops);
        const auto got_top = bench.read_floats(top_logprobs, tops);
        Check check;
        for (uint32_t r = 0; r < s.rows; ++r) {
          const auto row =
              reference::logprobs(std::span(x).subspan(size_t{r} * s.vocab, s.vocab), s.top);
          check_row(check, row, chosen[r], got[r]);
          for (uint32_t n = 0; n < s.top; ++n) {
            check.exact(got_ids[r * s.top + n] == row.top_ids[n]);
            check_row(check, row, row.top_ids[n], got_top[r * s.top + n]);
          }
        }
        return check;
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("top_logprobs", argc, argv);
  for (uint32_t vocab : {512u, 129280u}) {
    for (uint32_t rows : {1u, 16u}) {
      for (uint32_t top : {0u, 5u, 20u})
        bench.add({{"rows", rows}, {"vocab", vocab}, {"top", top}});
    }
  }
  return bench.run([&](const bench::Shape& s) {
    bench::run_case(bench, TopLogprobsShape::packed(s["rows"], s["vocab"], s["top"]));
  });
}
