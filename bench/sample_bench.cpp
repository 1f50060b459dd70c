// Speed of sample: greedy, plain, and with every rule. Bytes = the logits once.
#include "hadal/sample.h"

#include <fmt/format.h>

#include <cstring>

#include "hadal/reference/sample.h"
#include "support/bench.h"

namespace hadal::bench {
namespace {

void run_case(Bench& bench, uint32_t rows, uint32_t vocab, const char* rule,
              const SampleParams& params) {
  const SampleShape s = SampleShape::packed(rows, vocab);
  const std::string name = fmt::format("sample rows={} vocab={} {}", rows, vocab, rule);
  if (!bench.selected(name)) return;
  const Buffer logits = bench.floats(uint64_t{rows} * vocab, -8.0f, 8.0f);
  std::vector<SampleParams> all(rows, params);
  for (uint32_t r = 0; r < rows; ++r) all[r].position = r;
  const Buffer device_params = bench.buffer(rows * sizeof(SampleParams));
  require(bench.device().upload(device_params, 0, std::as_bytes(std::span(all))));
  const Buffer ids = bench.buffer(uint64_t{rows} * 4);
  const Sample kernel =
      require(Sample::create(bench.device(), sample_choose(s, bench.device().caps())));
  bench.time(
      {name, 0.0, 4.0 * rows * vocab},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s,
                             {logits.address(), device_params.address(), ids.address()});
      },
      [&] {
        const auto x = bench.read_floats(logits, uint64_t{rows} * vocab);
        const auto got = bench.read_floats(ids, rows);
        uint32_t differ = 0;
        for (uint32_t r = 0; r < rows; ++r) {
          uint32_t id = 0;
          std::memcpy(&id, &got[r], 4);
          differ += id != reference::sample(&x[size_t(r) * vocab], vocab, all[r]).id;
        }
        return differ <= rows / 50;  // the test knows which are too close to call
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Options options = bench::parse_options(argc, argv);
  bench::Bench bench("sample", options);
  SampleParams plain, ruled;
  plain.temperature = ruled.temperature = 0.7f;
  ruled.top_k = 50, ruled.top_p = 0.9f;
  SampleParams top_p = plain;
  top_p.top_p = 0.95f;
  for (uint32_t vocab : {512u, 129280u}) {
    for (uint32_t rows : {1u, 16u}) {
      bench::run_case(bench, rows, vocab, "greedy", {});
      bench::run_case(bench, rows, vocab, "temperature", plain);
      bench::run_case(bench, rows, vocab, "top_p", top_p);
      bench::run_case(bench, rows, vocab, "top_k+top_p", ruled);
    }
  }
  return 0;
}
