// hadal-serve MODEL_DIR: an OpenAI-compatible HTTP server over one checkpoint.
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/resource.h>

#include <chrono>
#include <csignal>

#include "common/generation_defaults.h"
#include "common/program.h"
#include "hadal/runtime/engine.h"
#include "hadal/runtime/engine_runner.h"
#include "serve/arguments.h"
#include "serve/server.h"

namespace {

using namespace hadal;

// Of a whole number of pages, for what the flags ask; load_model takes fewer where not all fit.
uint32_t cache_pages(const serve::Arguments& a, uint32_t context) {
  const uint64_t all = uint64_t{a.rows} * context;
  constexpr uint64_t kDefaultTokens = 131072;
  const uint64_t tokens =
      a.cache_tokens ? a.cache_tokens : std::max<uint64_t>(context, std::min(all, kDefaultTokens));
  return uint32_t(std::min<uint64_t>(ceil_div(tokens, uint64_t{runtime::kPageTokens}), 1u << 24));
}

// Every connection is a descriptor: as many as the system lets us have.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);
}

void log_line(std::string_view line) {
  const auto now =
      std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now());
  const auto text = fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z {}\n",
                                fmt::gmtime(std::chrono::system_clock::to_time_t(now)),
                                now.time_since_epoch().count() % 1000, line);
  std::fwrite(text.data(), 1, text.size(), stderr);
}

// Requests before the first, of some lengths, and one with all there is: what is compiled at the
// first use is then compiled.
Status run_some(runtime::Engine& engine, uint32_t context) {
  for (const uint32_t tokens : {1u, 7u, 100u}) {
    runtime::EngineRequest request;
    request.prompt.assign(std::min(tokens, context - 1), 0);
    request.max_new_tokens = 2;
    if (tokens == 1) {
      request.sampling.temperature = 1.0f, request.sampling.top_p = 0.9f;
      request.sampling.presence_penalty = 0.1f;
      request.logprobs = 1;
    }
    HADAL_TRY(engine.add(request).status());
    while (!engine.idle()) HADAL_TRY(engine.step().status());
  }
  return {};
}

// Of generation_config.json: where requests do not say.
void take_defaults(const model::GenerationConfig& generation, serve::Arguments& a) {
  examples::apply_generation_config(generation, a.server.defaults.sampling);
  a.server.defaults.max_tokens = generation.max_new_tokens;
  const std::string text = examples::generation_text(generation);
  if (text.empty() || a.quiet) return;
  fmt::print(stderr, "hadal-serve: defaults from generation_config.json: {}\n", text);
}

Status run(serve::Arguments& a) {
  HADAL_TRY(serve::finish_arguments(a));
  HADAL_ASSIGN(const model::ModelConfig config, examples::load_config(a.model.directory));
  HADAL_ASSIGN(model::Tokenizer tokenizer, model::Tokenizer::load(a.model.directory));
  HADAL_TRY(examples::check_tokenizer(a.model.directory, tokenizer, config));
  Result<std::optional<model::ChatTemplate>> chat = examples::load_chat_template(a.model.directory);
  HADAL_TRY(chat.status());
  model::GenerationConfig generation;
  if (a.generation_config == "auto") {
    HADAL_ASSIGN(generation, model::load_generation_config(a.model.directory, config));
    take_defaults(generation, a);
  }
  HADAL_ASSIGN(const uint32_t context, examples::choose_context(a.model.context, config));

  runtime::EngineOptions options;
  options.max_requests = options.max_rows = a.rows;
  examples::apply_speculation(a.speculation, options, a.model);
  options.swap_bytes = uint64_t{a.swap_mib} << 20;
  a.model.decode_rows = a.model.max_logit_rows = options.max_rows;
  a.model.pages = cache_pages(a, context);
  HADAL_ASSIGN(examples::LoadedModel loaded, examples::load_model(a.model));
  options.max_chunk = loaded.model->options().max_tokens;

  serve::ServedModel::Options served;
  served.name = a.name, served.context = loaded.model->options().max_context;
  served.max_prompt_tokens = a.max_prompt_tokens, served.vocab = config.vocab_size;
  served.end_ids = model::end_ids(config, generation);
  served.created = std::chrono::duration_cast<std::chrono::seconds>(
                       std::chrono::system_clock::now().time_since_epoch())
                       .count();
  const serve::ServedModel model(std::move(tokenizer), std::move(*chat), std::move(served));
  options.tokenizer = &model.tokenizer();
  HADAL_ASSIGN(runtime::Engine engine,
               runtime::Engine::create(*loaded.device, *loaded.model, *loaded.cache, *loaded.pages,
                                       options));
  HADAL_TRY(engine.warm_up(examples::warm_up()));
  HADAL_TRY(run_some(engine, model.options().context));

  HADAL_ASSIGN(const std::unique_ptr<runtime::EngineRunner> runner,
               runtime::EngineRunner::create(engine));
  raise_descriptor_limit();
  if (!a.quiet) a.server.log = log_line;
  HADAL_ASSIGN(const std::unique_ptr<serve::Server> server,
               serve::Server::create(model, *runner, a.server));
  fmt::print("hadal-serve: {} on {}\n", model.options().name, server->url());
  std::fflush(stdout);
  server->run(/*signals=*/true);
  runner->stop(runtime::EngineRunner::Stop::kNow);
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  serve::Arguments arguments;
  CLI::App app("Serves a checkpoint of the DeepSeek-V3 family over HTTP, as OpenAI does.",
               "hadal-serve");
  serve::add_arguments(app, arguments);
  return examples::run_program(app, argc, argv, [&] {
    examples::install_interrupt_handler();
    std::signal(SIGPIPE, SIG_IGN);
    arguments.model.progress = !arguments.quiet;
    return run(arguments);
  });
}
