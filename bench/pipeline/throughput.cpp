#include <fmt/format.h>

#include "pipeline/cases.h"
#include "support/bench.h"

namespace hadal::bench {
namespace {

std::vector<std::vector<uint32_t>> random_prompts(ServedModel& model, uint32_t count,
                                                  uint32_t tokens) {
  std::vector<std::vector<uint32_t>> prompts(count);
  for (auto& prompt : prompts) prompt = model.random_ids(tokens);
  return prompts;
}

// A warm-up, then `once` (tokens per second) for every repetition.
template <class Once>
void repeat(ServedModel& model, ServedEngine& engine, Report& report, std::string name, Once once) {
  Figure figure{std::move(name), "tokens/s", {}};
  (void)once();
  for (uint32_t i = 0; i < model.options().repetitions; ++i) figure.samples.push_back(once());
  if (engine.is_right()) {
    report.add(std::move(figure));
  } else {
    report.wrong(figure.name);
  }
}

void add_ratio(Report& report, const std::string& above, const std::string& below) {
  const Figure *a = report.find(above), *b = report.find(below);
  if (a && b && above != below)
    report.add({above + " / " + below, "ratio", {a->median() / b->median()}});
}

}  // namespace

void run_throughput(ServedModel& model, Report& report) {
  const PipelineOptions& options = model.options();
  ServedEngine single = model.engine(1);
  for (const uint32_t tokens : options.prompts) {
    repeat(model, single, report, fmt::format("pp{}", tokens), [&] {
      return tokens / single.run(random_prompts(model, 1, tokens), 1).first_token_seconds;
    });
  }
  const auto decode = [&](ServedEngine& engine, uint32_t count) {
    const ServedEngine::Run run =
        engine.run(random_prompts(model, count, kShortPrompt), options.generated + 1);
    return double(run.decoded_tokens) / run.decode_seconds;
  };
  const std::string one = fmt::format("tg{}", options.generated);
  repeat(model, single, report, one, [&] { return decode(single, 1); });
  for (const uint32_t count : options.sequences) {
    const std::string name = fmt::format("{}x{}", one, count);
    ServedEngine many = model.engine(count);
    repeat(model, many, report, name, [&] { return decode(many, count); });
    add_ratio(report, name, one);
    for (const uint32_t tokens : options.prompts) {
      add_ratio(report, name, fmt::format("pp{}", tokens));
    }
  }
}

void run_host_share(ServedModel& model, Report& report) {
  const PipelineOptions& options = model.options();
  ServedEngine served = model.engine(1);
  (void)served.run({model.random_ids(kShortPrompt)}, 3);  // what is done once
  Figure share{"host share of a step", "percent", {}}, time{"host time of a step", "us", {}};
  for (uint32_t i = 0; i < options.repetitions; ++i) {
    runtime::Engine& engine = served.engine();
    runtime::EngineRequest request;
    request.prompt = model.random_ids(kShortPrompt), request.max_new_tokens = options.generated + 1;
    (void)require(engine.add(request));
    (void)require(engine.step());  // the prompt
    const runtime::EngineStats before = engine.stats();
    while (!engine.idle()) (void)require(engine.step());
    const runtime::EngineStats after = engine.stats();
    const double all = after.step_seconds - before.step_seconds;
    const double host = all - (after.wait_seconds - before.wait_seconds);
    share.samples.push_back(100 * host / all);
    time.samples.push_back(1e6 * host / double(after.steps - before.steps));
  }
  report.add(std::move(share));
  report.add(std::move(time));
}

}  // namespace hadal::bench
