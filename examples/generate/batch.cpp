#include "generate/batch.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>

#include "hadal/runtime/engine.h"

namespace hadal::examples {
namespace {

using Json = nlohmann::ordered_json;

// A line of the file, and what became of it.
struct Prompt {
  std::string text, generated_text;
  std::vector<uint32_t> ids, generated;
  std::vector<runtime::TokenLogprobs> logprobs;  // of generated, with --logprobs
  runtime::FinishReason finish = runtime::FinishReason::kNone;
  Status status;  // not ok when it failed
};

Result<std::vector<Prompt>> read_prompts(const BatchRequest& request,
                                         const model::Tokenizer& tokenizer, uint32_t context) {
  HADAL_ASSIGN(const std::string text, read_text(request.prompts_file));
  std::vector<Prompt> prompts;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    Prompt prompt;
    prompt.text = text.substr(begin, end - begin);
    begin = end + 1;
    if (prompt.text.ends_with('\r')) prompt.text.pop_back();
    if (prompt.text.empty()) continue;
    HADAL_ASSIGN(prompt.ids, tokenizer.encode(prompt.text));
    if (prompt.ids.size() >= context) {
      return Status(Errc::kInvalidArgument,
                    fmt::format("--prompts: prompt {} must be shorter than the context of {} "
                                "tokens, got {}",
                                prompts.size() + 1, context, prompt.ids.size()));
    }
    prompts.push_back(std::move(prompt));
  }
  if (prompts.empty()) {
    return Status(Errc::kInvalidArgument, "--prompts: the file has no line with a prompt");
  }
  return prompts;
}

// Pages for the `rows` longest prompts at once.
uint32_t pages_for(const std::vector<Prompt>& prompts, const BatchRequest& request,
                   uint32_t context) {
  std::vector<uint32_t> pages;
  for (const Prompt& p : prompts) {
    const uint64_t tokens = p.ids.size() + uint64_t{request.max_new_tokens};
    pages.push_back(ceil_div(uint32_t(std::min<uint64_t>(tokens, context)), runtime::kPageTokens));
  }
  std::sort(pages.rbegin(), pages.rend());
  uint64_t sum = 0;
  for (size_t i = 0; i < std::min<size_t>(pages.size(), request.rows); ++i) sum += pages[i];
  return uint32_t(std::min<uint64_t>(sum, 1u << 24));
}

// Of the prompts that begin together.
uint32_t first_pass_tokens(const std::vector<Prompt>& prompts,
                           const runtime::EngineOptions& options) {
  uint64_t tokens = 0;
  for (size_t i = 0; i < std::min<size_t>(prompts.size(), options.max_requests); ++i) {
    tokens += prompts[i].ids.size();
  }
  return uint32_t(std::min<uint64_t>(tokens, options.max_chunk));
}

const char* finish_name(runtime::FinishReason finish) {
  switch (finish) {
    case runtime::FinishReason::kStop: return "stop";
    case runtime::FinishReason::kDeadline: return "deadline";
    case runtime::FinishReason::kFailed: return "failed";
    default: return "length";
  }
}

// Of each token: id, logprob and the most probable ones. null stands for -infinity.
Json logprobs_json(const Prompt& prompt) {
  Json tokens = Json::array();
  for (size_t i = 0; i < prompt.logprobs.size(); ++i) {
    Json token{{"id", prompt.generated[i]}, {"logprob", prompt.logprobs[i].chosen}};
    token["top"] = Json::array();
    for (const runtime::TokenLogprob& t : prompt.logprobs[i].top) {
      token["top"].push_back({{"id", t.id}, {"logprob", t.logprob}});
    }
    tokens.push_back(std::move(token));
  }
  return tokens;
}

void print_result(size_t index, const Prompt& prompt) {
  Json line;
  line["index"] = index, line["prompt"] = prompt.text, line["text"] = prompt.generated_text;
  line["prompt_tokens"] = prompt.ids.size(), line["generated_tokens"] = prompt.generated.size();
  line["finish"] = finish_name(prompt.finish);
  if (!prompt.status.ok()) line["error"] = prompt.status.message();
  if (!prompt.logprobs.empty()) line["logprobs"] = logprobs_json(prompt);
  fmt::print("{}\n", line.dump(-1, ' ', false, Json::error_handler_t::replace));
  std::fflush(stdout);
}

void print_statistics(const LoadedModel& loaded, const runtime::EngineStats& s,
                      double warm_up_seconds, double seconds) {
  const Caps& caps = loaded.device->caps();
  fmt::print(stderr, "device   {} ({} {})\n", caps.device_name, caps.driver_name, caps.driver_info);
  fmt::print(stderr, "load     {:.2f} s ({})\n", loaded.load_seconds,
             bytes_text(loaded.checkpoint_bytes));
  fmt::print(stderr, "warm up  {:.2f} s (shaders compile once and stay in the driver's cache)\n",
             warm_up_seconds);
  fmt::print(stderr, "prefill  {} tokens in {:.3f} s, {:.1f} tokens/s; {} more taken over\n",
             s.prefilled_tokens, s.prefill_seconds,
             double(s.prefilled_tokens) / std::max(s.prefill_seconds, 1e-9),
             s.scheduler.reused_tokens);
  fmt::print(stderr, "decode   {} tokens in {:.3f} s, {:.1f} tokens/s\n", s.decoded_tokens,
             s.decode_seconds, double(s.decoded_tokens) / std::max(s.decode_seconds, 1e-9));
  if (s.verified_drafts) {
    fmt::print(stderr, "drafts   {} of {} right, {:.3f} tokens of a prompt a step\n",
               s.accepted_drafts, s.verified_drafts,
               double(s.decoded_tokens) / double(s.decoded_requests));
  }
  fmt::print(stderr, "all      {} steps, {} preemptions, {:.3f} s\n", s.steps,
             s.scheduler.preemptions, seconds);
  fmt::print(stderr, "memory   {} on the device, {} resident at most\n",
             bytes_text(loaded.device->peak_allocated_bytes()), bytes_text(peak_resident_bytes()));
}

}  // namespace

Status generate_batch(const BatchRequest& request) {
  HADAL_TRY(runtime::check_sampling(request.sampling));
  if (request.max_new_tokens == 0) {
    return {Errc::kInvalidArgument, "--max-new-tokens: must be at least 1 with --prompts, got 0"};
  }
  HADAL_ASSIGN(const model::ModelConfig config, load_config(request.model.directory));
  HADAL_TRY(runtime::check_sampling(request.sampling, config.vocab_size));
  HADAL_ASSIGN(const model::Tokenizer tokenizer, model::Tokenizer::load(request.model.directory));
  HADAL_TRY(check_tokenizer(request.model.directory, tokenizer, config));
  HADAL_TRY(runtime::check_stop_strings(tokenizer, request.stop));
  HADAL_ASSIGN(const uint32_t context, choose_context(request.model.context, config));
  std::vector<uint32_t> end_ids;
  if (!request.ignore_eos) {
    HADAL_ASSIGN(end_ids, load_end_ids(request.model.directory, config));
  }
  HADAL_ASSIGN(std::vector<Prompt> prompts, read_prompts(request, tokenizer, context));

  runtime::EngineOptions options;
  options.tokenizer = &tokenizer;
  runtime::Trace trace;
  if (request.trace_file) {
    HADAL_TRY(check_writable("--trace", *request.trace_file));
    options.trace = &trace;
  }
  options.max_rows = uint32_t(std::min<size_t>(prompts.size(), request.rows));
  options.max_requests = options.max_rows;
  ModelRequest model = request.model;
  model.context = context;
  apply_speculation(request.speculation, options, model);
  model.decode_rows = model.max_logit_rows = options.max_rows;
  model.max_tokens = std::max(model.max_tokens, options.max_rows);
  model.pages = pages_for(prompts, request, context);
  HADAL_ASSIGN(LoadedModel loaded, load_model(model));
  options.max_chunk = loaded.model->options().max_tokens;
  HADAL_ASSIGN(runtime::Engine engine,
               runtime::Engine::create(*loaded.device, *loaded.model, *loaded.cache, *loaded.pages,
                                       options));
  const auto warm_up_start = std::chrono::steady_clock::now();
  runtime::WarmUp passes = warm_up();
  passes.prefill_tokens = first_pass_tokens(prompts, options);
  HADAL_TRY(engine.warm_up(passes));
  const double warm_up_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - warm_up_start).count();

  const auto start = std::chrono::steady_clock::now();
  std::map<runtime::RequestId, size_t> index;
  for (size_t i = 0; i < prompts.size(); ++i) {
    runtime::EngineRequest r;
    r.prompt = prompts[i].ids, r.max_new_tokens = request.max_new_tokens;
    r.sampling = request.sampling, r.stop = request.stop, r.logprobs = request.logprobs;
    r.stop_ids = end_ids;
    HADAL_ASSIGN(const runtime::RequestId id, engine.add(r));
    index[id] = i;
  }
  size_t printed = 0;
  while (!engine.idle()) {
    if (interrupted()) return {Errc::kCancelled, "generate: cancelled"};
    HADAL_ASSIGN(const std::vector<runtime::EngineToken> tokens, engine.step());
    for (const runtime::EngineToken& token : tokens) {
      Prompt& prompt = prompts[index.at(token.request)];
      if (token.has_token) prompt.generated.push_back(token.id);
      if (token.logprobs) prompt.logprobs.push_back(*token.logprobs);
      prompt.generated_text += token.text;
      prompt.finish = token.finish, prompt.status = token.status;
    }
    for (; printed < prompts.size() && prompts[printed].finish != runtime::FinishReason::kNone;
         ++printed) {
      print_result(printed, prompts[printed]);
    }
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (request.trace_file) HADAL_TRY(trace.write(*request.trace_file));
  if (!request.quiet) print_statistics(loaded, engine.stats(), warm_up_seconds, seconds);
  for (const Prompt& prompt : prompts) HADAL_TRY(prompt.status);
  return {};
}

}  // namespace hadal::examples
