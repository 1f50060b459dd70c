// Speed of sample: greedy, plain, and with every rule. Bytes = the logits once.
#include "hadal/sample.h"

#include <cmath>

#include "hadal/reference/sample.h"
#include "support/bench.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

SampleParams params_of(const std::string& rule) {
  SampleParams params;
  if (rule == "greedy") return params;
  params.temperature = 0.7f;
  if (rule == "top_p") params.top_p = 0.95f;
  if (rule == "top_k+top_p") params.top_k = 50, params.top_p = 0.9f;
  return params;
}

// How far the decision for a wrong id was from going that way, over what it can be off by.
double decision_ratio(const reference::SampleRow& row) {
  if (row.greedy) return INFINITY;
  double error = 0.0, kept_mass = 0.0;
  for (size_t i = 0; i < row.weights.size(); ++i) {
    error += test::sample_weight_error(row.weights[i]);
    if (row.probabilities[i] > 0.0) kept_mass += row.weights[i];
  }
  return std::fmin(row.draw_margin, row.top_p_margin) / (2.0 * error / kept_mass + 0x1p-32);
}

void run_case(Bench& bench, uint32_t rows, uint32_t vocab, const SampleParams& params) {
  const SampleShape s = SampleShape::packed(rows, vocab);
  require(sample_check(s, bench.caps()));
  const Buffer logits = bench.floats(uint64_t{rows} * vocab, -8.0f, 8.0f);
  std::vector<SampleParams> all(rows, params);
  for (uint32_t r = 0; r < rows; ++r) all[r].position = r;
  const Buffer device_params = bench.upload(all);
  const Buffer ids = bench.buffer(uint64_t{rows} * 4);
  const SampleConfig config = sample_choose(s, bench.caps());
  const Sample kernel = require(Sample::create(bench.device(), config));
  bench.time(
      {path_of(config.to_string()), 0.0, 4.0 * rows * vocab},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s,
                             {logits.address(), device_params.address(), ids.address()});
      },
      [&] {
        const auto x = bench.read_floats(logits, uint64_t{rows} * vocab);
        const auto got = bench.read<uint32_t>(ids, 0, rows);
        Check check;
        for (uint32_t r = 0; r < rows; ++r) {
          const auto row = reference::sample(&x[size_t(r) * vocab], vocab, all[r]);
          if (got[r] != row.id) check.add(decision_ratio(row), 0.0, 1.0);
        }
        return check;
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("sample", argc, argv);
  for (uint32_t vocab : {512u, 129280u}) {
    for (uint32_t rows : {1u, 16u}) {
      for (const char* rule : {"greedy", "temperature", "top_p", "top_k+top_p"}) {
        bench.add({{"rows", rows}, {"vocab", vocab}, {"rule", rule}});
      }
    }
  }
  return bench.run([&](const bench::Shape& s) {
    bench::run_case(bench, s["rows"], s["vocab"], bench::params_of(s.word("rule")));
  });
}
