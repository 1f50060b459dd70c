// Speed of the whole model, as llama-bench counts it: ppN is a prompt of N tokens with the logits
// of its last token, tgN is N tokens decoded one by one behind a short prompt, greedily. Every case
// is checked (all logits finite, ids in range) before its speed is printed.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <random>

#include "hadal/runtime/decode_pipeline.h"
#include "hadal/runtime/engine.h"
#include "hadal/runtime/prefill_pipeline.h"
#include "hadal/runtime/sampler.h"
#include "support/bench.h"

namespace hadal::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr uint32_t kShortPrompt = 8;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[size_t(q * double(values.size() - 1) + 0.5)];
}

struct PipelineOptions {
  std::string directory, device, json, cache_dir;
  std::vector<uint32_t> prompts{128, 512}, sequences{32};
  uint32_t generated = 64, chunk = 512, repetitions = 10;
  bool device_time = false, speculate = false;
};

// A loaded model with both pipelines, and the one sequence that the cases run on.
class Session {
 public:
  explicit Session(const PipelineOptions& options) : options_(options) {
    DeviceOptions device_options;
    device_options.select = options.device;
    device_options.cache_dir = options.cache_dir;
    model::ModelConfig config = require(model::load_config(options.directory));
    const model::Checkpoint checkpoint = require(model::Checkpoint::open(options.directory));
    device_ = require(Device::create(device_options));
    const uint32_t longest = *std::max_element(options.prompts.begin(), options.prompts.end());
    model::ModelOptions model_options;
    model_options.max_context = std::max(longest, kShortPrompt + options.generated);
    model_options.max_tokens = std::min(options.chunk, model_options.max_context);
    const uint32_t most = *std::max_element(options.sequences.begin(), options.sequences.end()) *
                          (options.speculate ? 2 : 1);
    model_options.max_decode_rows = model_options.max_logit_rows = most;
    model_options.max_tokens = std::max(model_options.max_tokens, most);
    const uint32_t pages =
        std::max(ceil_div(model_options.max_context, runtime::kPageTokens),
                 most * ceil_div(kShortPrompt + options.generated, runtime::kPageTokens));
    const auto start = Clock::now();
    model::Weights weights = require(model::Weights::load(*device_, checkpoint, config, {}));
    cache_ = std::make_unique<runtime::KvCache>(
        require(runtime::KvCache::create(*device_, config, pages, CacheFormat::kF32)));
    pages_ = std::make_unique<runtime::PagePool>(pages);
    model_ = require(
        model::Model::create(*device_, std::move(config), std::move(weights), model_options));
    load_seconds_ = seconds_since(start);
    open_pipelines({});
  }

  // Pipelines with (or without) a timestamp around every dispatch, which costs a little itself.
  void open_pipelines(const RecorderOptions& options) {
    prefill_.emplace(
        require(runtime::PrefillPipeline::create(*device_, *model_, *cache_, options)));
    decode_.emplace(
        require(runtime::DecodePipeline::create(*device_, *model_, *cache_, 1, options)));
    sampler_.emplace(require(runtime::Sampler::create(*device_, 1, vocab())));
    const auto add = [this](const std::vector<DispatchTiming>& timings) {
      for (const DispatchTiming& t : timings) device_seconds_ += t.ns * 1e-9;
    };
    if (!options.timestamps) return;
    prefill_->set_profile(add);
    decode_->set_profile(add);
  }

  [[nodiscard]] const Caps& caps() const { return device_->caps(); }
  [[nodiscard]] double load_seconds() const { return load_seconds_; }

  // Seconds of a prompt of `tokens`; its last token's draw becomes id().
  [[nodiscard]] double prompt(uint32_t tokens) {
    std::mt19937 engine(7);
    std::vector<uint32_t> ids(tokens);
    for (uint32_t& id : ids) id = uint32_t(engine() % vocab());
    sequence_.emplace(*pages_);
    sampler_->set_row(0, {}, tokens);
    device_seconds_ = 0;
    const auto start = Clock::now();
    require(prefill_->run(*sequence_, 0, ids,
                          [&](Recorder& recorder, const runtime::PrefillChunk& chunk) -> Status {
                            return chunk.last ? draw(recorder, chunk.tokens - 1) : Status();
                          }));
    const double seconds = seconds_since(start);
    position_ = tokens;
    read_id();
    return seconds;
  }

  // Seconds of decoding `tokens` behind a short prompt.
  [[nodiscard]] double generate(uint32_t tokens) {
    (void)prompt(kShortPrompt);
    device_seconds_ = 0;
    const auto start = Clock::now();
    for (uint32_t i = 0; i < tokens; ++i) {
      const runtime::DecodeRow row{&*sequence_, id_, position_++};
      sampler_->set_row(0, {}, position_);
      require(decode_->step({&row, 1}, [&](Recorder& recorder, const model::DecodeBatch&) {
        return draw(recorder, 0);
      }));
      read_id();
    }
    return seconds_since(start);
  }

  // Seconds of the decode steps of `count` short prompts that generate `tokens` each, together.
  [[nodiscard]] double generate_together(uint32_t count, uint32_t tokens, bool speculate) {
    sequence_.reset();
    runtime::EngineOptions options;
    options.speculate = options.always_draft = speculate;
    options.max_rows = speculate ? 2 * count : count,
    options.max_chunk = model_->options().max_tokens;
    runtime::Engine engine =
        require(runtime::Engine::create(*device_, *model_, *cache_, *pages_, options));
    std::mt19937 random(7);
    for (uint32_t i = 0; i < count; ++i) {
      runtime::EngineRequest request;
      for (uint32_t t = 0; t < kShortPrompt; ++t) {
        request.prompt.push_back(uint32_t(random() % vocab()));
      }
      request.max_new_tokens = tokens + 1;  // the first is prefill's
      (void)require(engine.add(request));
    }
    while (!engine.idle()) {
      for (const runtime::EngineToken& token : require(engine.step())) {
        ids_in_range_ = ids_in_range_ && token.has_token && token.id < vocab();
      }
    }
    device_seconds_ = 0;
    stats_ = engine.stats();
    return stats_.decode_seconds;
  }

  // Of the last generate_together().
  [[nodiscard]] const runtime::EngineStats& stats() const { return stats_; }
  // Of the last prompt() or generate(), with timestamps.
  [[nodiscard]] double device_seconds() const { return device_seconds_; }

  // Whether the logits of the last token are finite and all drawn ids were in range.
  [[nodiscard]] bool is_right() {
    std::vector<float> logits(vocab());
    require(device_->download(model_->logits(), 0, std::as_writable_bytes(std::span(logits))));
    return ids_in_range_ && std::all_of(logits.begin(), logits.end(),
                                        [](float value) { return std::isfinite(value); });
  }

 private:
  [[nodiscard]] uint32_t vocab() const { return model_->config().vocab_size; }
  [[nodiscard]] Status draw(Recorder& recorder, uint32_t row) {
    HADAL_TRY(model_->record_head(recorder, row, 1));
    return sampler_->record(recorder, model_->logits().address(), 1);
  }
  void read_id() {
    id_ = sampler_->id(0);
    ids_in_range_ = ids_in_range_ && id_ < vocab();
  }

  const PipelineOptions& options_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<runtime::KvCache> cache_;
  std::unique_ptr<runtime::PagePool> pages_;
  std::unique_ptr<model::Model> model_;
  std::optional<runtime::PrefillPipeline> prefill_;
  std::optional<runtime::DecodePipeline> decode_;
  std::optional<runtime::Sampler> sampler_;
  std::optional<runtime::SequencePages> sequence_;
  runtime::EngineStats stats_;
  double load_seconds_ = 0, device_seconds_ = 0;
  uint32_t id_ = 0, position_ = 0;
  bool ids_in_range_ = true;
};

struct Line {
  std::string name;
  uint32_t tokens = 0;
  std::vector<double> rates;  // tokens per second, one per repetition
  double device_seconds = 0;  // median, 0 when not asked for
};

// One case: a warm-up that is checked, then repetitions. False when the result was wrong.
bool run_case(Session& session, const PipelineOptions& options, Line& line,
              const std::function<double()>& once) {
  (void)once();
  if (!session.is_right()) {
    fmt::print("{:<8} WRONG RESULT, not timed\n", line.name);
    return false;
  }
  std::vector<double> device;
  for (uint32_t i = 0; i < options.repetitions; ++i) {
    line.rates.push_back(line.tokens / once());
    device.push_back(session.device_seconds());
  }
  if (options.device_time) line.device_seconds = quantile(device, 0.5);
  if (!session.is_right()) {
    fmt::print("{:<8} WRONG RESULT, speed not printed\n", line.name);
    return false;
  }
  const double median = quantile(line.rates, 0.5);
  fmt::print("{:<8} {:>10.1f} {:>10.1f} {:>10.1f} {:>10.3f}", line.name, median,
             quantile(line.rates, 0.1), quantile(line.rates, 0.9), 1e3 * line.tokens / median);
  if (options.device_time) fmt::print(" {:>10.3f}", 1e3 * line.device_seconds);
  fmt::print("\n");
  std::fflush(stdout);
  return true;
}

void write_json(const PipelineOptions& options, const Session& session, double first_token_seconds,
                const std::vector<Line>& lines) {
  if (options.json.empty()) return;
  const char* threads = std::getenv("LP_NUM_THREADS");
  std::ofstream out(options.json);
  for (const Line& line : lines) {
    out << fmt::format(
        R"({{"case":"{}","tokens":{},"repetitions":{},"median_tokens_per_s":{:.3f},"p10":{:.3f},"p90":{:.3f},"device_s":{:.6f},"load_s":{:.3f},"first_token_s":{:.3f},"device":"{}","driver":"{} {}","lp_num_threads":"{}"}})"
        "\n",
        line.name, line.tokens, line.rates.size(), quantile(line.rates, 0.5),
        quantile(line.rates, 0.1), quantile(line.rates, 0.9), line.device_seconds,
        session.load_seconds(), first_token_seconds, session.caps().device_name,
        session.caps().driver_name, session.caps().driver_info, threads ? threads : "");
  }
}

int run(const PipelineOptions& options, Clock::time_point process_start) {
  Session session(options);
  const Caps& caps = session.caps();
  const char* threads = std::getenv("LP_NUM_THREADS");
  fmt::print("pipeline: {} ({} {}), subgroup {}, LP_NUM_THREADS {}\n", caps.device_name,
             caps.driver_name, caps.driver_info, caps.subgroup_size, threads ? threads : "unset");
  const double first_token = session.prompt(kShortPrompt);
  fmt::print("load {:.3f} s, first token {:.3f} s ({:.3f} s after the program's start)\n",
             session.load_seconds(), first_token, seconds_since(process_start));
  if (options.device_time) {
    RecorderOptions recorder;
    recorder.timestamps = true;
    session.open_pipelines(recorder);
  }
  fmt::print("{:<8} {:>10} {:>10} {:>10} {:>10}{}\n", "case", "tokens/s", "p10", "p90", "ms",
             options.device_time ? "  device ms" : "");
  std::vector<Line> lines;
  bool right = true;
  for (uint32_t tokens : options.prompts) {
    Line line{fmt::format("pp{}", tokens), tokens, {}, 0};
    if (!run_case(session, options, line, [&] { return session.prompt(tokens); }))
      right = false;
    else
      lines.push_back(line);
  }
  Line line{fmt::format("tg{}", options.generated), options.generated, {}, 0};
  if (!run_case(session, options, line, [&] { return session.generate(options.generated); })) {
    right = false;
  } else {
    lines.push_back(line);
  }
  for (uint32_t count : options.sequences) {
    Line together{
        fmt::format("tg{}x{}", options.generated, count), options.generated * count, {}, 0};
    if (!run_case(session, options, together,
                  [&] { return session.generate_together(count, options.generated, false); })) {
      right = false;
    } else {
      lines.push_back(together);
    }
    if (!options.speculate) continue;
    Line drafted = together;
    drafted.name += "+mtp", drafted.rates.clear();
    if (!run_case(session, options, drafted,
                  [&] { return session.generate_together(count, options.generated, true); })) {
      right = false;
      continue;
    }
    lines.push_back(drafted);
    const runtime::EngineStats& stats = session.stats();
    fmt::print("{:<8} {} of {} drafts right, {:.2f} tokens of a sequence a step\n", "",
               stats.accepted_drafts, stats.verified_drafts,
               double(stats.decoded_tokens) / double(stats.decoded_rows - stats.verified_drafts));
  }
  write_json(options, session, first_token, lines);
  return right ? 0 : 1;
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
      ->check(CLI::Range(1u, 1u << 20))
      ->capture_default_str();
  app.add_option("-s,--sequences", options.sequences, "sequences that decode together")
      ->check(CLI::Range(1u, 1024u))
      ->delimiter(',')
      ->capture_default_str();
  app.add_flag("--speculate", options.speculate, "also with the MTP layer's drafts");
  app.add_option("--chunk", options.chunk, "prompt tokens per prefill step")
      ->check(CLI::Range(1u, 65536u))
      ->capture_default_str();
  app.add_option("-r,--repetitions", options.repetitions)
      ->check(CLI::Range(1u, 100000u))
      ->capture_default_str();
  app.add_option("--device", options.device, "device index or part of its name");
  app.add_option("--cache-dir", options.cache_dir, "keep the pipeline cache there between runs");
  app.add_option("--json", options.json, "also write the lines to this file as JSON");
  app.add_flag("--device-time", options.device_time,
               "a column of device time, from timestamps that cost a little themselves");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  return hadal::bench::run(options, start);
}
