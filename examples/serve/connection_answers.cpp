// What a connection answers to each endpoint.
#include <fmt/format.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "serve/connection.h"
#include "serve/page.h"

namespace hadal::serve {
namespace {

// Bodies beyond this are prepared on the worker: tokenizing 100 KB takes milliseconds, in which
// nobody's tokens would be sent.
constexpr size_t kQuickBytes = 16 << 10;
constexpr std::string_view kJsonType = "application/json";

void append_chunk(std::string& out, std::string_view data, bool chunks) {
  if (chunks) fmt::format_to(std::back_inserter(out), "{:x}\r\n", data.size());
  out += data;
  if (chunks) out += "\r\n";
}

Json model_json(const ServedModel::Options& model) {
  Json json;
  json["id"] = model.name, json["object"] = "model", json["created"] = model.created;
  json["owned_by"] = "hadal", json["max_model_len"] = model.context;
  return json;
}

std::string log_words(const Generation& generation, const ServerOptions& options) {
  const Usage usage = generation.usage();
  std::string words = fmt::format(" prompt={} completion={} finish={}", usage.prompt_tokens,
                                  usage.completion_tokens, generation.finish_words());
  if (const auto first = generation.first_token_seconds()) {
    words += fmt::format(" first={:.1f}ms", *first * 1e3);
  }
  if (!options.log_prompts) return words;
  const GenerateRequest& asked = generation.asked();
  if (asked.kind == AnswerKind::kChat) return words + " messages=" + asked.messages;
  for (const Prompt& prompt : asked.prompts) {
    words += " prompt=";
    if (const auto* text = std::get_if<std::string>(&prompt)) {
      append_quoted(words, *text);
    } else {
      words += dump(Json(std::get<std::vector<uint32_t>>(prompt)));
    }
  }
  return words;
}

}  // namespace

ResponseHead Connection::begin_head(const HttpRequest& request, uint32_t status) const {
  ResponseHead head(status);
  const std::string_view origin = allowed_origin(request.head, core_.options);
  if (!origin.empty()) head.field("Access-Control-Allow-Origin", origin);
  if (!core_.options.cors_origins.empty()) head.field("Vary", "Origin");
  head.field("X-Content-Type-Options", "nosniff");
  const bool keep = request.keep_alive && !core_.stopping;
  if (!keep) head.field("Connection", "close");
  if (keep && !request.chunks) head.field("Connection", "keep-alive");  // HTTP/1.0 has to be told
  return head;
}

asio::awaitable<bool> Connection::answer_text(HttpRequest& request, uint32_t status,
                                              std::string_view content_type,
                                              std::string_view text) {
  std::string out = begin_head(request, status)
                        .field("Content-Type", content_type)
                        .field("Content-Length", fmt::to_string(text.size()))
                        .text();
  if (request.head.method != "HEAD") out += text;
  const bool written = co_await write(out);
  co_return written&& request.keep_alive;
}

asio::awaitable<bool> Connection::answer_error(HttpRequest& request, const ApiError& error) {
  const std::string body = error.body();
  ResponseHead head = begin_head(request, error.http);
  head.field("Content-Type", kJsonType).field("Content-Length", fmt::to_string(body.size()));
  if (error.retry_after_seconds) {
    head.field("Retry-After", fmt::to_string(error.retry_after_seconds));
  }
  if (error.http == 401) head.field("WWW-Authenticate", "Bearer");
  if (error.http == 405) head.field("Allow", allowed_methods(request.head.target));
  log(request, error.http, error.code.empty() ? "" : " " + error.code);
  std::string out = head.text();
  if (request.head.method != "HEAD") out += body;
  const bool written = co_await write(out);
  co_return written&& request.keep_alive;
}

asio::awaitable<bool> Connection::answer_preflight(HttpRequest& request) {
  const std::string_view methods = allowed_methods(request.head.target);
  const bool allowed = !allowed_origin(request.head, core_.options).empty();
  ResponseHead head = begin_head(request, 204);
  head.field("Allow", methods.empty() ? "GET, HEAD, POST, OPTIONS" : methods);
  if (allowed) {
    head.field("Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS")
        .field("Access-Control-Allow-Headers", "Authorization, *")
        .field("Access-Control-Max-Age", "600");
  }
  log(request, 204);
  const bool written = co_await write(head.text());
  co_return written&& request.keep_alive;
}

asio::awaitable<bool> Connection::answer_page(HttpRequest& request) {
  const Page page = page_with_nonce(core_.new_id("n"));
  std::string out = begin_head(request, 200)
                        .field("Content-Type", "text/html; charset=utf-8")
                        .field("Content-Security-Policy", page.policy)
                        .field("Referrer-Policy", "no-referrer")
                        .field("Cache-Control", "no-cache")
                        .field("Content-Length", fmt::to_string(page.html.size()))
                        .text();
  if (request.head.method != "HEAD") out += page.html;
  log(request, 200);
  const bool written = co_await write(out);
  co_return written&& request.keep_alive;
}

asio::awaitable<bool> Connection::answer(HttpRequest& request) {
  if (request.preflight) co_return co_await answer_preflight(request);
  if (request.refused) co_return co_await answer_error(request, *request.refused);
  const ServedModel::Options& model = core_.model.options();
  std::string text;
  std::string_view type = kJsonType;
  uint32_t status = 200;
  switch (request.route.endpoint) {
    case Endpoint::kPage: co_return co_await answer_page(request);
    case Endpoint::kCompletions:
    case Endpoint::kChat: co_return co_await answer_generation(request);
    case Endpoint::kTokenize:
    case Endpoint::kDetokenize: co_return co_await answer_tokens(request);
    case Endpoint::kHealth: {
      const bool well = !core_.device_lost && !core_.stopping;
      status = well ? 200 : 503;
      Json json{{"status", well ? "ok" : core_.stopping ? "stopping" : "device_lost"}};
      // What the page has to know before it has a key.
      const bool needs_key = !core_.options.api_keys.empty();
      if (!needs_key) json["model"] = model.name;
      json["chat"] = core_.model.has_chat_template(), json["needs_key"] = needs_key;
      text = dump(json);
      break;
    }
    case Endpoint::kMetrics:
      text = core_.metrics.text({core_.runner.stats(), core_.connections.size(), core_.requests});
      type = "text/plain; version=0.0.4; charset=utf-8";
      break;
    case Endpoint::kModels: {
      Json list{{"object", "list"}};
      list["data"] = Json::array({model_json(model)});
      text = dump(list);
      break;
    }
    case Endpoint::kModel:
      if (request.route.model_id != model.name) {
        const ApiError error{404, "model: no such model", "model", "model_not_found", 0};
        co_return co_await answer_error(request, error);
      }
      text = dump(model_json(model));
      break;
  }
  log(request, status);
  co_return co_await answer_text(request, status, type, text);
}

template <class Prepare>
asio::awaitable<void> Connection::run_prepared(const HttpRequest& request, bool long_work,
                                               Prepare prepare) {
  if (!long_work && request.body.size() <= kQuickBytes) {
    prepare();
    co_return;
  }
  co_await asio::co_spawn(
      core_.worker,
      [&prepare]() -> asio::awaitable<void> {
        prepare();
        co_return;
      },
      asio::use_awaitable);
}

asio::awaitable<bool> Connection::answer_tokens(HttpRequest& request) {
  const ServedModel& model = core_.model;
  std::string text;
  std::optional<ApiError> error;
  const auto tokenize = [&] {
    const Outcome<GenerateRequest> asked =
        parse_tokenize_request(request.body, core_.options.request);
    if (!asked.ok()) return void(error = asked.error());
    const Outcome<std::vector<uint32_t>> ids = model.tokenize(*asked);
    if (!ids.ok()) return void(error = ids.error());
    Json json;
    json["count"] = ids->size(), json["max_model_len"] = model.options().context;
    json["tokens"] = *ids;
    text = dump(json);
  };
  const auto detokenize = [&] {
    const auto ids = parse_detokenize_request(request.body, core_.options.request);
    if (!ids.ok()) return void(error = ids.error());
    const Result<std::string> decoded = model.tokenizer().decode(*ids, /*skip_special=*/false);
    if (!decoded.ok()) return void(error = error_of(decoded.status(), "tokens"));
    text = dump(Json{{"prompt", *decoded}});
  };
  if (request.route.endpoint == Endpoint::kTokenize) {
    co_await run_prepared(request, false, tokenize);
  } else {
    co_await run_prepared(request, false, detokenize);
  }
  if (error) co_return co_await answer_error(request, *error);
  log(request, 200);
  co_return co_await answer_text(request, 200, kJsonType, text);
}

asio::awaitable<bool> Connection::answer_generation(HttpRequest& request) {
  int32_t priority = 0;
  if (!request.priority.empty()) {
    const Outcome<int32_t> parsed = parse_priority(request.priority);
    if (!parsed.ok()) co_return co_await answer_error(request, parsed.error());
    priority = *parsed;
  }
  const bool chat = request.route.endpoint == Endpoint::kChat;
  std::optional<ApiError> error;
  std::optional<Job> job;
  const uint64_t seed = core_.random();
  const auto prepare = [&] {
    Outcome<GenerateRequest> asked =
        chat
            ? parse_chat_request(request.body, core_.options.request, core_.options.defaults)
            : parse_completion_request(request.body, core_.options.request, core_.options.defaults);
    if (!asked.ok()) return void(error = asked.error());
    Outcome<Job> made = core_.model.prepare(std::move(*asked), seed);
    if (!made.ok()) return void(error = made.error());
    job = std::move(*made);
  };
  // A schema may be small and its grammar large.
  const bool grammar = request.body.find("response_format") != request.body.npos ||
                       request.body.find("tool_choice") != request.body.npos;
  co_await run_prepared(request, grammar, prepare);
  request.body = std::string();
  core_.buffered_bytes -= std::exchange(buffered_, 0);
  if (error) co_return co_await answer_error(request, *error);

  const auto created = std::chrono::duration_cast<std::chrono::seconds>(
                           std::chrono::system_clock::now().time_since_epoch())
                           .count();
  const AnswerWriter writer(core_.model, job->asked, core_.new_id(chat ? "chatcmpl" : "cmpl"),
                            created);
  const auto generation =
      std::make_shared<Generation>(core_, std::move(*job), request.arrived, signal_);
  error = generation->submit(priority);
  if (error) co_return co_await answer_error(request, *error);
  generation_ = generation;
  bool goes_on = false;
  if (generation->asked().stream) {
    goes_on = co_await answer_stream(request, *generation, writer);
  } else {
    goes_on = co_await answer_whole(request, *generation, writer);
  }
  generation->abandon();
  generation_.reset();
  co_return goes_on;
}

asio::awaitable<bool> Connection::answer_whole(HttpRequest& request, Generation& generation,
                                               const AnswerWriter& writer) {
  while (!generation.ended() && !generation.failure() && !gone()) co_await signal_.wait();
  if (const std::optional<ApiError> error = generation.failure()) {
    co_return co_await answer_error(request, *error);
  }
  if (!generation.ended()) {
    ++core_.metrics.clients_gone;
    log(request, 499, " client_gone" + log_words(generation, core_.options));
    co_return false;
  }
  const std::string body = writer.body(generation.answers(), generation.usage());
  log(request, 200, log_words(generation, core_.options));
  co_return co_await answer_text(request, 200, kJsonType, body);
}

asio::awaitable<bool> Connection::answer_stream(HttpRequest& request, Generation& generation,
                                                const AnswerWriter& writer) {
  // What fails before its first token has an HTTP status of its own.
  while (!generation.has_news() && !gone()) co_await signal_.wait();
  if (const std::optional<ApiError> error = generation.failure()) {
    co_return co_await answer_error(request, *error);
  }
  ResponseHead head = begin_head(request, 200);
  head.field("Content-Type", "text/event-stream; charset=utf-8").field("Cache-Control", "no-cache");
  if (request.chunks) head.field("Transfer-Encoding", "chunked");
  if (!request.chunks) request.keep_alive = false;  // HTTP/1.0: the end of the answer is a close
  std::string out = head.text(), events;
  std::vector<Answer>& answers = generation.answers();
  for (uint32_t i = 0; i < answers.size(); ++i) writer.append_begin(events, i);
  bool done = false;
  while (!done && !gone()) {
    const std::optional<ApiError> error = generation.failure();
    for (uint32_t i = 0; i < answers.size() && !error; ++i) {
      if (answers[i].news()) writer.append_news(events, i, answers[i]);
    }
    done = error || generation.ended();
    if (error) append_event(events, error->body());
    if (done && !error && generation.asked().include_usage) {
      writer.append_usage(events, generation.usage());
    }
    if (done) events += kDoneEvent;
    if (!events.empty()) append_chunk(out, events, request.chunks);
    if (done && request.chunks) out += "0\r\n\r\n";
    co_await write(out);
    out.clear(), events.clear();
    while (!done && !generation.has_news() && !gone()) co_await signal_.wait();
  }
  const bool whole = done && !broken_;
  if (!whole) ++core_.metrics.clients_gone;
  log(request, whole ? 200 : 499,
      (whole ? "" : " client_gone") + log_words(generation, core_.options));
  co_return whole&& request.keep_alive;
}

}  // namespace hadal::serve
