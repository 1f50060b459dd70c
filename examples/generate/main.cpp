// hadal-generate MODEL_DIR [PROMPT]: streams text from a checkpoint, token by token; with
// --prompts, many prompts at once (batch.h).
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <optional>

#include "common/program.h"
#include "common/sampling.h"
#include "generate/batch.h"
#include "hadal/runtime/generator.h"
#include "hadal/runtime/text_stream.h"

namespace {

using namespace hadal;
constexpr const char* kProgram = "hadal-generate";

struct Arguments {
  examples::ModelRequest model;
  std::string prompt = "Once upon a time";
  std::optional<std::string> prompt_file, ids, prompts;
  uint32_t rows = 32;
  examples::SpeculationFlags speculation;
  std::optional<uint32_t> logprobs;
  runtime::GenerateOptions generate;
  std::vector<std::string> stop;
  bool ignore_eos = false, print_ids = false, quiet = false, profile = false;
  std::optional<std::string> trace;
};

Result<std::vector<uint32_t>> prompt_ids(const Arguments& a,
                                         const std::optional<model::Tokenizer>& tokenizer,
                                         const model::ModelConfig& config) {
  HADAL_ASSIGN(const uint32_t context, examples::choose_context(a.model.context, config));
  std::vector<uint32_t> ids;
  if (a.ids) {
    HADAL_ASSIGN(ids, examples::parse_ids(*a.ids));
  } else {
    std::string text = a.prompt;
    if (a.prompt_file) {
      HADAL_ASSIGN(text, examples::read_text(*a.prompt_file));
    }
    HADAL_ASSIGN(ids, tokenizer->encode(text));
  }
  HADAL_TRY(examples::check_ids(ids, config));
  if (ids.size() >= context) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("the prompt must be shorter than the context of {} tokens, got {}",
                              context, ids.size()));
  }
  return ids;
}

// Sums the device time of each kernel over all steps.
class Profile {
 public:
  void add(const std::vector<DispatchTiming>& timings) {
    ++steps_;
    for (const DispatchTiming& t : timings) {
      auto& [count, ns] = kernels_[t.label];
      ++count;
      ns += t.ns;
    }
  }
  void print(const char* name) const {
    if (steps_ == 0) return;
    fmt::print(stderr, "{} ({} submissions), device time per submission:\n", name, steps_);
    double total = 0;
    for (const auto& [label, entry] : kernels_) {
      total += entry.second;
      fmt::print(stderr, "  {:<22} {:>6.1f} dispatches {:>10.1f} us\n", label,
                 double(entry.first) / steps_, entry.second * 1e-3 / steps_);
    }
    fmt::print(stderr, "  {:<22} {:>17} {:>10.1f} us\n", "all", "", total * 1e-3 / steps_);
  }

 private:
  uint32_t steps_ = 0;
  std::map<std::string, std::pair<uint64_t, double>> kernels_;
};

void print_summary(const examples::LoadedModel& loaded, double warm_up_seconds,
                   const runtime::GenerateResult& r) {
  const Caps& caps = loaded.device->caps();
  const size_t decoded = r.ids.empty() ? 0 : r.ids.size() - 1;  // the first comes from prefill
  fmt::print(stderr, "device   {} ({} {})\n", caps.device_name, caps.driver_name, caps.driver_info);
  fmt::print(stderr, "load     {:.2f} s ({})\n", loaded.load_seconds,
             examples::bytes_text(loaded.checkpoint_bytes));
  fmt::print(stderr, "warm up  {:.2f} s (shaders compile once and stay in the driver's cache)\n",
             warm_up_seconds);
  fmt::print(stderr, "prefill  {} tokens in {:.3f} s, {:.1f} tokens/s\n", r.prompt_tokens,
             r.prefill_seconds, r.prompt_tokens / std::max(r.prefill_seconds, 1e-9));
  fmt::print(stderr, "decode   {} tokens in {:.3f} s, {:.1f} tokens/s\n", decoded, r.decode_seconds,
             double(decoded) / std::max(r.decode_seconds, 1e-9));
  fmt::print(stderr, "memory   {} on the device, {} resident at most\n",
             examples::bytes_text(loaded.device->peak_allocated_bytes()),
             examples::bytes_text(examples::peak_resident_bytes()));
}

Status run(Arguments& a) {
  HADAL_TRY(runtime::check_sampling(a.generate.sampling));
  HADAL_ASSIGN(const model::ModelConfig config, examples::load_config(a.model.directory));
  HADAL_TRY(runtime::check_sampling(a.generate.sampling, config.vocab_size));
  std::optional<model::Tokenizer> tokenizer;  // not needed from ids to ids
  if (!a.ids || !a.print_ids) {
    HADAL_ASSIGN(tokenizer, model::Tokenizer::load(a.model.directory));
    HADAL_TRY(examples::check_tokenizer(a.model.directory, *tokenizer, config));
  }
  if (tokenizer) HADAL_TRY(runtime::check_stop_strings(*tokenizer, a.stop));
  HADAL_ASSIGN(const std::vector<uint32_t> prompt, prompt_ids(a, tokenizer, config));
  if (a.trace) HADAL_TRY(examples::check_writable("--trace", *a.trace));
  if (!a.ignore_eos) {
    HADAL_ASSIGN(a.generate.stop_ids, examples::load_end_ids(a.model.directory, config));
  }
  HADAL_ASSIGN(examples::LoadedModel loaded, examples::load_model(a.model));
  RecorderOptions recorder_options;
  recorder_options.timestamps = a.profile || a.trace;
  HADAL_ASSIGN(runtime::Generator generator,
               runtime::Generator::create(*loaded.device, *loaded.model, *loaded.cache,
                                          *loaded.pages, recorder_options));
  const auto warm_up_start = std::chrono::steady_clock::now();
  HADAL_TRY(generator.warm_up(uint32_t(prompt.size()), examples::warm_up()));
  const double warm_up_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - warm_up_start).count();
  std::optional<runtime::Trace> trace;
  if (a.trace) {
    trace.emplace();
    generator.prefill().set_trace(&*trace);
    generator.decode().set_trace(&*trace);
  }
  Profile prefill, decode;
  if (a.profile) {
    generator.prefill().set_profile([&](const auto& t) { prefill.add(t); });
    generator.decode().set_profile([&](const auto& t) { decode.add(t); });
  }
  std::optional<runtime::TextStream> stream;
  if (!a.print_ids) {
    HADAL_ASSIGN(stream, runtime::TextStream::create(*tokenizer, a.stop));
  }
  Status stream_status;
  a.generate.on_token = [&](uint32_t id) {
    if (a.print_ids) {
      fmt::print("{} ", id);
    } else {
      Result<std::string> text = stream->push(id);
      if (!text.ok())
        stream_status = text.status();
      else
        fmt::print("{}", *text);
    }
    std::fflush(stdout);
    return stream_status.ok() && !(stream && stream->stopped());
  };
  a.generate.cancelled = [] { return examples::interrupted(); };
  if (!a.print_ids && !a.quiet && !a.ids) fmt::print("{}", a.prompt);
  const Result<runtime::GenerateResult> generated = generator.generate(prompt, a.generate);
  // Also when it ended early: what follows on standard error begins a line.
  fmt::print("{}\n", a.print_ids ? "" : stream->flush());
  std::fflush(stdout);
  HADAL_ASSIGN(const runtime::GenerateResult result, generated);
  HADAL_TRY(stream_status);
  if (!a.quiet) print_summary(loaded, warm_up_seconds, result);
  prefill.print("prefill");
  decode.print("decode");
  if (trace) HADAL_TRY(trace->write(*a.trace));
  return {};
}

Status run_batch(const Arguments& a) {
  examples::BatchRequest batch;
  batch.model = a.model, batch.prompts_file = *a.prompts, batch.rows = a.rows;
  batch.max_new_tokens = a.generate.max_new_tokens, batch.sampling = a.generate.sampling;
  batch.stop = a.stop;
  batch.logprobs = a.logprobs;
  batch.trace_file = a.trace;
  batch.ignore_eos = a.ignore_eos, batch.quiet = a.quiet;
  batch.speculation = a.speculation;
  return examples::generate_batch(batch);
}

}  // namespace

int main(int argc, char** argv) {
  Arguments a;
  CLI::App app("Streams text from a checkpoint of the DeepSeek-V3 family.", kProgram);
  app.add_option("MODEL_DIR", a.model.directory, "config.json, *.safetensors, tokenizer.json")
      ->required();
  auto* prompt = app.add_option("PROMPT", a.prompt, "text to continue")->capture_default_str();
  auto* file = app.add_option("--prompt-file", a.prompt_file,
                              "read the prompt from a file ('-': standard input)")
                   ->excludes(prompt);
  auto* ids = app.add_option("--ids", a.ids, "prompt as token ids, e.g. 5,17,3")
                  ->excludes(prompt)
                  ->excludes(file);
  auto* prompts =
      app.add_option("--prompts", a.prompts,
                     "many prompts, one per line of a file ('-': standard input), generated "
                     "together; prints one JSON object per prompt")
          ->excludes(prompt)
          ->excludes(file)
          ->excludes(ids);
  app.add_option("--rows", a.rows, "prompts that generate together")
      ->check(CLI::Range(1u, 1024u))
      ->needs(prompts)
      ->capture_default_str();
  examples::add_speculation_options(app, a.speculation)->needs(prompts);
  app.add_option("--logprobs", a.logprobs,
                 "print log-probabilities: of each token, and of that many of the most probable "
                 "ones")
      ->check(CLI::Range(0u, kMaxTopLogprobs))
      ->needs(prompts);
  app.add_option("-n,--max-new-tokens", a.generate.max_new_tokens)->capture_default_str();
  examples::add_sampling_options(app, a.generate.sampling);
  app.add_option("--context", a.model.context,
                 "positions to plan for; 0 is the model's own, or the longest that fits");
  app.add_option("--chunk", a.model.max_tokens, "prompt tokens per prefill step")
      ->check(CLI::Range(1u, 65536u))
      ->capture_default_str();
  app.add_option("--device", a.model.device, "index or part of the name (hadal-info lists them)");
  examples::add_cache_option(app, a.model.cache_format);
  app.add_flag("--absorb-bf16", a.model.absorb_bf16, "bfloat16 copy of kv_b_proj for decode");
  auto* stop = app.add_option("--stop", a.stop, "end the text in front of this string; repeatable")
                   ->type_name("STRING")
                   ->allow_extra_args(false);
  app.add_flag("--ignore-eos", a.ignore_eos, "go on behind the end-of-text token");
  app.add_flag("--print-ids", a.print_ids, "print token ids instead of text")
      ->excludes(prompts)
      ->excludes(stop);
  app.add_flag("--quiet", a.quiet, "print the generated text only");
  app.add_flag("--profile", a.profile, "device time by kernel, on standard error")
      ->excludes(prompts);
  app.add_option("--trace", a.trace,
                 "what ran when, on the host and the device, for ui.perfetto.dev (a JSON file)");
  return examples::run_program(app, argc, argv, [&] {
    examples::install_interrupt_handler();
    a.model.progress = !a.quiet;
    return a.prompts ? run_batch(a) : run(a);
  });
}
