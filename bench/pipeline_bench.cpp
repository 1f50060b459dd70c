// Speed of the whole model through the engine, as llama-bench counts it: ppN is a prompt of N
// tokens to the draw behind its last one, tgN is N tokens decoded one by one behind a short prompt,
// greedily, tgNxS the same by S sequences together. Further cases: pipeline/cases.h.
#include <CLI/CLI.hpp>

#include "pipeline/cases.h"

namespace hadal::bench {
namespace {

int run(const PipelineOptions& options, Clock::time_point process_start) {
  ServedModel model(options);
  Report report;
  {
    ServedEngine engine = model.engine(1);
    const double first = engine.run({model.random_ids(kShortPrompt)}, 1).first_token_seconds;
    report.print_head(model, first, seconds_since(process_start));
  }
  run_throughput(model, report);
  run_host_share(model, report);
  if (options.text_tokens) run_speculation(model, report);
  if (options.reuse_prompt) run_prefix_reuse(model, report);
  if (options.kernels) run_kernels(model, report);
  if (!options.trace.empty()) write_trace(model, options.trace);
  report.write_json(options.json, model);
  return report.right() ? 0 : 1;
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  const auto start = hadal::bench::Clock::now();
  hadal::bench::PipelineOptions options;
  CLI::App app("hadal pipeline bench: prompt and decode speed of a whole model");
  app.add_option("MODEL_DIR", options.directory, "config.json and *.safetensors")->required();
  app.add_option("-p,--prompt", options.prompts, "prompt lengths")
      ->check(CLI::Range(1u, 1u << 20))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("-n,--generate", options.generated, "tokens to decode")
      ->check(CLI::Range(2u, 1u << 20))
      ->capture_default_str();
  app.add_option("-s,--sequences", options.sequences, "sequences that decode together")
      ->check(CLI::Range(1u, 1024u))
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--speculate", options.text_tokens,
                 "also continue texts by so many tokens, plainly and with the MTP layer's drafts")
      ->check(CLI::Range(2u, 1u << 20));
  app.add_option("--reuse", options.reuse_prompt,
                 "also the time to the first token of a prompt of so many tokens, 90 % of it known")
      ->check(CLI::Range(10u, 1u << 20));
  app.add_flag("--kernels", options.kernels,
               "also device time by kernel, from runs with timestamps of their own");
  app.add_option("--trace", options.trace,
                 "also serve requests that arrive one by one, and write what both pipelines did as "
                 "a trace for Perfetto");
  app.add_option("--chunk", options.chunk, "prompt tokens per prefill step")
      ->check(CLI::Range(1u, 65536u))
      ->capture_default_str();
  app.add_option("-r,--repetitions", options.repetitions)
      ->check(CLI::Range(1u, 100000u))
      ->capture_default_str();
  app.add_option("--device", options.device, "device index or part of its name");
  app.add_option("--cache-dir", options.cache_dir, "keep the pipeline cache there between runs");
  app.add_option("--json", options.json, "also write all figures to this file as JSON");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  return hadal::bench::run(options, start);
}
