#include "serve/arguments.h"

#include <fmt/format.h>

#include "common/sampling.h"
#include "serve/http.h"

namespace hadal::serve {
namespace {

void add_engine_flags(CLI::App& app, Arguments& a) {
  app.add_option("--rows", a.rows, "answers that are generated at once")
      ->check(CLI::Range(1u, 1024u))
      ->capture_default_str();
  app.add_option("--context", a.model.context,
                 "positions of a request; 0 is the model's own, or the longest that fits");
  app.add_option("--cache-tokens", a.cache_tokens,
                 "positions that the cache holds, of all requests; 0: rows times context, at most "
                 "131072 beyond one context; fewer where they do not fit");
  app.add_option("--chunk", a.model.max_tokens, "prompt tokens per prefill step")
      ->check(CLI::Range(1u, 65536u))
      ->capture_default_str();
  app.add_option("--swap-mib", a.swap_mib, "host memory for the rows of preempted requests")
      ->capture_default_str();
  examples::add_speculation_options(app, a.speculation);
  examples::add_generation_config_option(app, a.generation_config);
  app.add_option("--device", a.model.device, "index or part of the name (hadal-info lists them)");
  examples::add_cache_option(app, a.model.cache_format);
  app.add_flag("--absorb-bf16", a.model.absorb_bf16, "bfloat16 copy of kv_b_proj for decode");
}

void add_limits(CLI::App& app, Arguments& a) {
  ServerOptions& s = a.server;
  app.add_option("--max-queue", a.max_queue,
                 "answers that wait beside those that are generated; more get 429")
      ->capture_default_str();
  app.add_option("--max-prompt-tokens", a.max_prompt_tokens, "0: the context")
      ->capture_default_str();
  app.add_option("--max-connections", s.max_connections)
      ->check(CLI::Range(1u, 1000000u))
      ->capture_default_str();
  app.add_option("--max-header-bytes", s.max_header_bytes)
      ->check(CLI::Range(512u, 65536u))
      ->capture_default_str();
  app.add_option("--max-body-bytes", s.max_body_bytes)
      ->check(CLI::Range(1024u, 1u << 30))
      ->capture_default_str();
  app.add_option("--max-stream-bytes", s.max_stream_bytes,
                 "of an answer that its client does not read; then the connection is cut")
      ->check(CLI::Range(1024u, 1u << 30))
      ->capture_default_str();
  const auto seconds = [&](const char* name, double& value, const char* what) {
    app.add_option(name, value, what)->check(CLI::Range(0.001, 1e7))->capture_default_str();
  };
  seconds("--idle-seconds", s.idle_seconds, "a connection may wait between requests");
  seconds("--header-seconds", s.header_seconds, "for the whole of a request's header");
  seconds("--body-seconds", s.body_seconds, "for the whole of a request's body");
  seconds("--write-seconds", s.write_seconds, "for a client to take a piece of its answer");
  seconds("--request-seconds", s.request_seconds, "for an answer, waiting included");
  seconds("--grace", s.grace_seconds, "for what is under way after SIGTERM or SIGINT");
}

}  // namespace

void add_arguments(CLI::App& app, Arguments& a) {
  ServerOptions& s = a.server;
  app.add_option("MODEL_DIR", a.model.directory, "config.json, *.safetensors, tokenizer.json")
      ->required();
  app.add_option("--host", s.host, "address to listen on")->capture_default_str();
  app.add_option("--port", s.port, "0: any that is free")->capture_default_str();
  app.add_option("--served-model-name", a.name, "the model's name for clients; the directory's");
  auto* key = app.add_option("--api-key", a.api_key,
                             "clients must send 'Authorization: Bearer KEY' (others can see it in "
                             "the list of processes: --api-key-file)");
  app.add_option("--api-key-file", a.api_key_file, "a key on each line")->excludes(key);
  app.add_option("--cors-origin", s.cors_origins,
                 "other sites whose pages may use the server, as https://example.com; * is all")
      ->allow_extra_args(false);
  app.add_option("--allow-host", s.allowed_hosts,
                 "names by which clients reach a server that listens on loopback")
      ->allow_extra_args(false);
  add_engine_flags(app, a);
  add_limits(app, a);
  app.add_flag("--log-prompts", s.log_prompts, "prompts in the log, too");
  app.add_flag("--quiet", a.quiet, "no log");
}

Status finish_arguments(Arguments& a) {
  if (a.name.empty()) {
    std::filesystem::path directory = std::filesystem::weakly_canonical(a.model.directory);
    a.name = directory.filename().string();
  }
  if (a.name.empty()) a.name = "model";
  // An unset variable in --api-key "$KEY" must not open the server to everyone.
  if (a.api_key && a.api_key->empty()) {
    return {Errc::kInvalidArgument, "--api-key: must be a key, got an empty one"};
  }
  std::string keys = a.api_key.value_or("");
  if (!a.api_key_file.empty()) {
    HADAL_ASSIGN(keys, examples::read_text(a.api_key_file));
  }
  for (size_t begin = 0; begin < keys.size();) {
    const size_t end = std::min(keys.find('\n', begin), keys.size());
    std::string key = keys.substr(begin, end - begin);
    if (key.ends_with('\r')) key.pop_back();
    if (!key.empty()) a.server.api_keys.push_back(key);
    begin = end + 1;
  }
  if (!a.api_key_file.empty() && a.server.api_keys.empty()) {
    return {Errc::kInvalidArgument, "--api-key-file: must have a key, got none"};
  }
  if (!is_loopback(a.server.host) && a.server.api_keys.empty() && !a.quiet) {
    fmt::print(stderr, "hadal-serve: anyone who reaches {} can use it: there is no --api-key\n",
               a.server.host);
  }
  a.server.max_requests = a.rows + a.max_queue;
  return {};
}

}  // namespace hadal::serve
