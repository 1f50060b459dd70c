#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "pipeline/cases.h"
#include "support/bench.h"

namespace hadal::bench {
namespace {

// Adds what the trace's dispatches of a track took, each kernel's mean over `steps`.
void add_kernels(const runtime::Trace& trace, runtime::TraceTrack track, const std::string& what,
                 uint32_t steps, Report& report) {
  std::map<std::string, KernelTime> kernels;
  double all = 0;
  for (const runtime::TraceEvent& event : trace.events()) {
    if (event.track != track) continue;
    KernelTime& kernel = kernels[std::string(event.name)];
    kernel.dispatches += 1.0 / steps, kernel.microseconds += event.duration_ns * 1e-3 / steps;
    all += event.duration_ns * 1e-3 / steps;
  }
  std::vector<KernelTime> list;
  for (auto& [name, kernel] : kernels) {
    kernel.what = what, kernel.kernel = name, kernel.share = kernel.microseconds / all;
    list.push_back(kernel);
  }
  report.add(std::move(list));
  report.add({what + ", device", "us a step", {all}});
}

}  // namespace

void run_kernels(ServedModel& model, Report& report) {
  const PipelineOptions& options = model.options();
  const auto prompt_of = [&](uint32_t tokens) { return model.random_ids(tokens); };
  for (const uint32_t tokens : options.prompts) {
    runtime::Trace trace;
    runtime::EngineOptions engine_options;
    engine_options.trace = &trace;
    ServedEngine engine = model.engine(1, engine_options);
    (void)engine.run({prompt_of(tokens)}, 1);  // a warm-up
    trace.clear();
    for (uint32_t i = 0; i < options.repetitions; ++i) (void)engine.run({prompt_of(tokens)}, 1);
    add_kernels(trace, runtime::TraceTrack::kPrefill, fmt::format("pp{}", tokens),
                options.repetitions, report);
  }
  std::set<uint32_t> counts(options.sequences.begin(), options.sequences.end());
  counts.insert(1);
  for (const uint32_t count : counts) {
    runtime::Trace trace;
    runtime::EngineOptions engine_options;
    engine_options.trace = &trace;
    ServedEngine engine = model.engine(count, engine_options);
    std::vector<std::vector<uint32_t>> prompts(count);
    for (auto& prompt : prompts) prompt = prompt_of(kShortPrompt);
    (void)engine.run(prompts, 3);  // a warm-up
    trace.clear();
    (void)engine.run(prompts, options.generated + 1);
    add_kernels(trace, runtime::TraceTrack::kDecode,
                fmt::format("tg{}x{}", options.generated, count), options.generated, report);
  }
}

void write_trace(ServedModel& model, const std::string& file) {
  const PipelineOptions& options = model.options();
  runtime::Trace trace;
  runtime::EngineOptions engine_options;
  engine_options.trace = &trace;
  const uint32_t most = *std::max_element(options.sequences.begin(), options.sequences.end());
  ServedEngine served = model.engine(most, engine_options);
  runtime::Engine& engine = served.engine();
  for (uint32_t added = 0; added < most || !engine.idle();) {
    if (added < most) {  // one arrives at every step
      runtime::EngineRequest request;
      request.prompt = model.random_ids(kShortPrompt + options.generated / 2);
      request.max_new_tokens = options.generated / 2;
      (void)require(engine.add(request));
      ++added;
    }
    (void)require(engine.step());
  }
  require(trace.write(file));
  fmt::print("trace of {} requests in {}\n", most, file);
}

}  // namespace hadal::bench
