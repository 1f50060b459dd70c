#include <fmt/format.h>

#include "hadal/model/tokenizer.h"
#include "pipeline/cases.h"
#include "support/bench.h"

namespace hadal::bench {
namespace {

// Drafts are right on text, not on what follows random ids.
constexpr const char* kTexts[] = {
    "Once upon a time there was a king who had",
    "The little girl went into the forest and",
    "\"Dear mother,\" said the fox, \"and",
    "There was once a poor man who lived with his three sons",
};

struct Way {
  const char* name;
  bool speculate, always;
  std::vector<double> rates{}, steps_us{}, tokens_per_step{};
  bool right = true;
};

// All texts, one after the other, by an engine of its own.
void run_texts(ServedModel& model, const std::vector<std::vector<uint32_t>>& texts, Way& way) {
  runtime::EngineOptions options;
  options.speculate = way.speculate, options.always_draft = way.always;
  ServedEngine engine = model.engine(1, options);
  double seconds = 0;
  uint64_t tokens = 0, steps = 0;
  for (const std::vector<uint32_t>& text : texts) {
    const ServedEngine::Run run = engine.run({text}, model.options().text_tokens);
    seconds += run.decode_seconds, tokens += run.decoded_tokens, steps += run.decode_steps;
  }
  way.rates.push_back(double(tokens) / seconds);
  way.steps_us.push_back(1e6 * seconds / double(steps));
  way.tokens_per_step.push_back(double(tokens) / double(steps));
  way.right = way.right && engine.is_right();
}

std::vector<double> ratios(const std::vector<double>& above, const std::vector<double>& below) {
  std::vector<double> result(above.size());
  for (size_t i = 0; i < above.size(); ++i) result[i] = above[i] / below[i];
  return result;
}

}  // namespace

void run_speculation(ServedModel& model, Report& report) {
  const PipelineOptions& options = model.options();
  if (!model.has_mtp()) {
    fmt::print("speculation: the checkpoint has no MTP layer\n");
    return;
  }
  const auto tokenizer = require(model::Tokenizer::load(options.directory));
  std::vector<std::vector<uint32_t>> texts;
  for (const char* text : kTexts) texts.push_back(require(tokenizer.encode(text)));
  Way ways[] = {{"text, plain", false, false},
                {"text, drafts that pay", true, false},
                {"text, always drafts", true, true}};
  for (Way& way : ways) {
    Way warm_up = way;
    run_texts(model, {texts.front()}, warm_up);
  }
  for (uint32_t i = 0; i < options.repetitions; ++i) {
    for (Way& way : ways) run_texts(model, texts, way);
  }
  for (const Way& way : ways) {
    if (!way.right) return report.wrong(way.name);
  }
  const Way &plain = ways[0], &paying = ways[1], &always = ways[2];
  for (const Way& way : ways) report.add({way.name, "tokens/s", way.rates});
  report.add({"drafts that pay / plain", "ratio", ratios(paying.rates, plain.rates)});
  report.add({"always drafts / plain", "ratio", ratios(always.rates, plain.rates)});
  report.add({"verify step", "tokens", always.tokens_per_step});
  report.add({"verify / plain step", "time ratio", ratios(always.steps_us, plain.steps_us)});
}

void run_prefix_reuse(ServedModel& model, Report& report) {
  const PipelineOptions& options = model.options();
  const uint32_t known = options.reuse_prompt * 9 / 10;
  ServedEngine engine = model.engine(1);
  Figure cold{"first token, cold", "ms", {}}, warm{"first token, 90 % known", "ms", {}};
  for (uint32_t i = 0; i <= options.repetitions; ++i) {
    std::vector<uint32_t> prompt = model.random_ids(options.reuse_prompt);
    const double first = engine.run({prompt}, 1).first_token_seconds;
    const std::vector<uint32_t> tail = model.random_ids(options.reuse_prompt - known);
    std::copy(tail.begin(), tail.end(), prompt.begin() + known);
    const double second = engine.run({prompt}, 1).first_token_seconds;
    if (i == 0) continue;  // a warm-up
    cold.samples.push_back(1e3 * first), warm.samples.push_back(1e3 * second);
  }
  if (!engine.is_right()) return report.wrong(cold.name);
  std::vector<double> gain = ratios(cold.samples, warm.samples);
  report.add(std::move(cold));
  report.add(std::move(warm));
  report.add({"cold / 90 % known", "ratio", std::move(gain)});
  const auto reused = engine.engine().stats().scheduler.reused_tokens;
  fmt::print("  {} tokens taken over in {} prompts of {}\n", reused, options.repetitions + 1,
             options.reuse_prompt);
}

}  // namespace hadal::bench
