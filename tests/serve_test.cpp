// hadal-serve without its sockets: bodies, errors, access, metrics, how answers are written.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "fuzz/seeds.h"
#include "serve/answer_json.h"
#include "serve/http.h"
#include "serve/metrics.h"
#include "serve/request_fuzz.h"
#include "serve/served_model.h"
#include "support/fuzz.h"
#include "support/safetensors_writer.h"

namespace hadal::serve {
namespace {

const std::string kFables = HADAL_SOURCE_DIR "/examples/models/fables";

ServedModel fables(bool with_template) {
  Result<model::Tokenizer> tokenizer = model::Tokenizer::load(kFables);
  EXPECT_TRUE(tokenizer.ok());
  std::optional<model::ChatTemplate> chat;
  if (with_template) {
    const std::string source =
        hadal::testing::read_file(HADAL_SOURCE_DIR "/tests/chat_templates/v31.jinja");
    Result<model::ChatTemplate> parsed = model::ChatTemplate::parse(source, "v31", "<b>", "<e>");
    EXPECT_TRUE(parsed.ok());
    chat.emplace(std::move(*parsed));
  }
  return {std::move(*tokenizer),
          std::move(chat),
          {.name = "fables", .context = 2048, .vocab = 2048, .end_ids = {1}, .created = 7}};
}

std::string refusal(std::string_view body) {
  const auto request = parse_completion_request(body);
  return request.ok() ? "taken" : request.error().message;
}

TEST(ServeJsonHost, IsStrictAndBounded) {
  for (const char* good : {"{}", " [1, -2.5e3, true, null, \"\\u00e9\\ud83d\\ude00\"] ", "3"}) {
    EXPECT_TRUE(parse_body(good).ok()) << good;
  }
  for (const char* bad : {"", "{", "[1,]", "{\"a\":1,}", "NaN", "-Infinity", "01", "+1", ".5", "1.",
                          "'a'", "\"\n\"", "\"\\x\"", "\"\\ud800\"", "[1] 2", "tru", "1e999"}) {
    const auto got = parse_body(bad);
    ASSERT_FALSE(got.ok()) << bad;
    EXPECT_EQ(got.error().code, "invalid_json");
  }
  EXPECT_NE(parse_body("\"\xc0\xaf\"").error().message.find("UTF-8"), std::string::npos);
  EXPECT_NE(parse_body("{\"a\":1,\"a\":1}").error().message.find("\"a\" twice"), std::string::npos);
  const auto nested = [](size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_TRUE(parse_body(nested(64)).ok());
  EXPECT_FALSE(parse_body(nested(65)).ok());
  EXPECT_FALSE(parse_body("[1,2,3]", {.depth = 9, .values = 3}).ok());
  EXPECT_TRUE(parse_body("[1,2,3]", {.depth = 9, .values = 4}).ok());
  // Members keep their order, which schemas and templates see.
  EXPECT_EQ(dump(*parse_body(R"({"z":1,"a":{"y":[],"b":2}})")), R"({"z":1,"a":{"y":[],"b":2}})");
}

TEST(ServeJsonHost, QuotesAsTheLibraryDoes) {
  std::mt19937 random(3);
  const std::vector<std::string> pieces = {"a",  "\"", "\\", "\n",   "\r", "\t",           "\x01",
                                           "\b", "\f", "/",  "\x7f", "é",  "\xe2\x80\xa8", "😀"};
  for (int round = 0; round < 500; ++round) {
    std::string text, quoted;
    for (size_t n = random() % 12; n > 0; --n) text += pieces[random() % pieces.size()];
    append_quoted(quoted, text);
    const auto back = parse_body(quoted);
    ASSERT_TRUE(back.ok()) << quoted;
    EXPECT_EQ(back->get<std::string>(), text);
  }
}

TEST(ServeRequestHost, EveryFieldIsRead) {
  const auto r = parse_completion_request(R"({"model":"m","prompt":["a","b"],"n":2,"max_tokens":7,
      "temperature":0.5,"top_p":0.25,"top_k":-1,"min_p":0.125,"seed":-1,"stop":["x","y"],
      "stop_token_ids":[3],"presence_penalty":1,"frequency_penalty":-1,"repetition_penalty":1.5,
      "logit_bias":{"5":-100,"7":2.5},"logprobs":4,"stream":true,
      "stream_options":{"include_usage":true},"ignore_eos":true,"return_token_ids":true,
      "add_special_tokens":false,"best_of":2,"suffix":null,"user":"ignored","foo":{"bar":1},
      "response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"z":1,"a":2}}}})");
  ASSERT_TRUE(r.ok()) << r.error().message;
  EXPECT_EQ(r->model, "m");
  EXPECT_EQ(r->prompts, (std::vector<Prompt>{"a", "b"}));
  EXPECT_EQ(r->n, 2u);
  EXPECT_EQ(r->max_tokens, 7u);
  const runtime::SamplingOptions& s = r->sampling;
  EXPECT_EQ(s.temperature, 0.5f);
  EXPECT_EQ(s.top_p, 0.25f);
  EXPECT_EQ(s.top_k, 0u);
  EXPECT_EQ(s.min_p, 0.125f);
  EXPECT_EQ(s.presence_penalty, 1.0f);
  EXPECT_EQ(s.frequency_penalty, -1.0f);
  EXPECT_EQ(s.repetition_penalty, 1.5f);
  ASSERT_EQ(s.logit_bias.size(), 2u);
  EXPECT_EQ(s.logit_bias[0].id, 5u);
  EXPECT_EQ(s.logit_bias[1].value, 2.5f);
  EXPECT_EQ(r->seed, UINT64_MAX);
  EXPECT_EQ(r->stop, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(r->stop_token_ids, std::vector<uint32_t>{3});
  EXPECT_EQ(r->logprobs, 4u);
  EXPECT_TRUE(r->stream && r->include_usage && r->ignore_eos && r->return_token_ids);
  EXPECT_FALSE(r->add_special_tokens);
  EXPECT_EQ(r->format.schema, R"({"z":1,"a":2})");

  const auto plain = parse_completion_request(R"({"prompt":[[1,2],[3]],"n":null,"stop":null,
      "temperature":null,"max_tokens":null,"seed":null,"logprobs":null,"logit_bias":null})");
  ASSERT_TRUE(plain.ok()) << plain.error().message;
  EXPECT_EQ(plain->prompts,
            (std::vector<Prompt>{std::vector<uint32_t>{1, 2}, std::vector<uint32_t>{3}}));
  EXPECT_EQ(plain->sampling.temperature, 1.0f);  // OpenAI's
  EXPECT_FALSE(plain->max_tokens || plain->seed || plain->logprobs || plain->stream);
}

TEST(ServeRequestHost, RefusalsNameFieldRuleAndValue) {
  EXPECT_EQ(refusal(R"({"prompt":"a","max_tokens":"7"})"),
            "max_tokens: must be a whole number of at least 1, got \"7\"");
  EXPECT_EQ(refusal(R"({"prompt":"a","temperature":2.5})"),
            "temperature: must be a number from 0 to 2, got 2.5");
  EXPECT_EQ(refusal(R"({"prompt":"a","n":129})"),
            "n: must be a whole number from 1 to 128, got 129");
  EXPECT_EQ(refusal(R"({"prompt":["a","b"],"n":128})"),
            "prompt: must give at most 128 answers in all, got 256");
  EXPECT_EQ(refusal(R"({"prompt":"a","logit_bias":{"5":101}})"),
            "logit_bias.5: must be a number from -100 to 100, got 101");
  EXPECT_EQ(refusal(R"({"prompt":"a","logit_bias":{"05":1}})"),
            "logit_bias: must have token ids for keys, got \"05\"");
  EXPECT_EQ(refusal(R"({"prompt":"a","top_p":0})"), "top_p: must be above 0, got 0");
  EXPECT_EQ(refusal(R"({"prompt":"a","echo":true,"logprobs":1})"),
            "echo: must be false with logprobs, which prompts have none of, got true");
  EXPECT_EQ(refusal(R"({"prompt":"a","logprobs":21})"),
            "logprobs: must be a whole number from 0 to 20, got 21");
  EXPECT_EQ(refusal(R"({"prompt":"a","response_format":{"type":"json_schema","json_schema":{}}})"),
            "response_format.json_schema.schema: must be a JSON Schema, got null");
  const std::string quoted = refusal("{\"prompt\":\"a\",\"n\":\"" + std::string(500, 'x') + "\"}");
  EXPECT_LT(quoted.size(), 120u);
}

TEST(ServeRequestHost, Chats) {
  const auto r = parse_chat_request(R"({"messages":[{"role":"user","name":"x","content":
      [{"type":"text","text":"a"},{"type":"text","text":"b"}]},
      {"role":"assistant","tool_calls":[{"id":"1"}]}],"max_tokens":5,"max_completion_tokens":6,
      "tools":[{"type":"function"}],"tool_choice":"auto","logprobs":true,"top_logprobs":3,
      "chat_template_kwargs":{"thinking":true}})");
  ASSERT_TRUE(r.ok()) << r.error().message;
  EXPECT_EQ(r->messages, R"([{"role":"user","name":"x","content":"a\nb"},)"
                         R"({"role":"assistant","tool_calls":[{"id":"1"}],"content":null}])");
  EXPECT_EQ(r->max_tokens, 6u);
  EXPECT_EQ(r->tools, R"([{"type":"function"}])");
  EXPECT_EQ(r->template_variables, R"({"thinking":true})");
  EXPECT_EQ(r->logprobs, 3u);
  const auto chat = [](const std::string& more) {
    return parse_chat_request(R"({"messages":[{"role":"user","content":"a"}],)" + more + "}");
  };
  EXPECT_EQ(chat(R"("tools":[{}],"tool_choice":"none")")->tools, "");
  EXPECT_TRUE(r->parallel_tool_calls);
  EXPECT_FALSE(chat(R"("tools":[{}],"parallel_tool_calls":false)")->parallel_tool_calls);
  EXPECT_EQ(chat(R"("parallel_tool_calls":1)").error().param, "parallel_tool_calls");
  EXPECT_EQ(chat(R"("top_logprobs":3)").error().param, "top_logprobs");
  EXPECT_EQ(chat(R"("tools":[3])").error().param, "tools[0]");
  // Clients join streams of calls to an empty content, which templates take for one.
  EXPECT_EQ(parse_chat_request(R"({"messages":[{"role":"assistant","content":"",
                "tool_calls":[{}]},{"role":"assistant","content":"","tool_calls":[]}]})")
                ->messages,
            R"([{"role":"assistant","content":null,"tool_calls":[{}]},)"
            R"({"role":"assistant","content":"","tool_calls":[]}])");
  EXPECT_EQ(parse_chat_request(R"({"messages":[{"role":"user"}]})").error().message,
            "messages[0].content: must be there, got null");
  EXPECT_EQ(parse_chat_request(R"({"messages":[{"content":"a"}]})").error().param,
            "messages[0].role");
}

TEST(ServeRequestHost, DefaultsHoldWhereNothingIsSaid) {
  RequestDefaults defaults;
  EXPECT_EQ(parse_completion_request(R"({"prompt":"a"})")->sampling.temperature, 1.0f);
  defaults.sampling.temperature = 0.25f, defaults.sampling.top_p = 0.5f;
  defaults.sampling.top_k = 40, defaults.sampling.repetition_penalty = 1.5f;
  defaults.max_tokens = 12;
  const auto plain = parse_completion_request(R"({"prompt":"a","top_k":null})", {}, defaults);
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->sampling.temperature, 0.25f);
  EXPECT_EQ(plain->sampling.top_p, 0.5f);
  EXPECT_EQ(plain->sampling.top_k, 40u);
  EXPECT_EQ(plain->sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(plain->max_tokens, 12u);
  const auto said = parse_chat_request(
      R"({"messages":[{"role":"user","content":"a"}],"temperature":1,"top_p":1,"top_k":-1,
          "repetition_penalty":1,"max_completion_tokens":3})",
      {}, defaults);
  ASSERT_TRUE(said.ok());
  EXPECT_EQ(said->sampling.temperature, 1.0f);
  EXPECT_EQ(said->sampling.top_p, 1.0f);
  EXPECT_EQ(said->sampling.top_k, 0u);
  EXPECT_EQ(said->sampling.repetition_penalty, 1.0f);
  EXPECT_EQ(said->max_tokens, 3u);
}

TEST(ServeModelHost, PreparesRequests) {
  const ServedModel model = fables(true);
  auto asked =
      parse_completion_request(R"({"prompt":["Once upon a time","The king"],"n":2,"echo":true})");
  Outcome<Job> job = model.prepare(std::move(*asked), 11);
  ASSERT_TRUE(job.ok()) << job.error().message;
  ASSERT_EQ(job->requests.size(), 4u);
  EXPECT_EQ(job->requests[0].prompt, *model.tokenizer().encode("Once upon a time"));
  EXPECT_EQ(job->requests[2].prompt, *model.tokenizer().encode("The king"));
  EXPECT_EQ(job->requests[0].max_new_tokens, 16u);  // OpenAI's
  EXPECT_EQ(job->requests[0].stop_ids, std::vector<uint32_t>{1});
  EXPECT_EQ(job->prompt_tokens, job->requests[0].prompt.size() + job->requests[2].prompt.size());
  EXPECT_EQ(job->requests[0].sampling.seed, 11u);
  EXPECT_NE(job->requests[1].sampling.seed, 11u);
  EXPECT_EQ(job->requests[1].sampling.seed, seed_of_answer(11, 1));
  EXPECT_EQ(job->echoes.at(0), "Once upon a time");

  const auto chat = [&](const char* more) {
    auto r = parse_chat_request(std::string(R"({"messages":[{"role":"user","content":"Hi"}])") +
                                more + "}");
    return model.prepare(std::move(*r), 1);
  };
  EXPECT_EQ(job->reasoning, Reasoning::kNever);  // a completion's
  EXPECT_EQ(chat("")->reasoning, Reasoning::kPossible);
  EXPECT_EQ(chat(R"(,"chat_template_kwargs":{"thinking":true})")->reasoning, Reasoning::kOpen);
  EXPECT_EQ(chat(R"(,"response_format":{"type":"json_object"})")->reasoning, Reasoning::kNever);
  EXPECT_EQ(chat("")->requests[0].max_new_tokens, 2048u);  // the engine ends at the context
  auto ids = parse_completion_request(R"({"prompt":[2048]})");
  EXPECT_EQ(model.prepare(std::move(*ids), 1).error().param, "prompt");
  auto named = parse_completion_request(R"({"prompt":"a","model":"other"})");
  EXPECT_EQ(model.prepare(std::move(*named), 1).error().http, 404u);
  auto plain = parse_chat_request(R"({"messages":[{"role":"user","content":"Hi"}]})");
  EXPECT_EQ(fables(false).prepare(std::move(*plain), 1).error().code, "no_chat_template");
}

runtime::EngineToken token(uint32_t id, std::string text) {
  runtime::EngineToken t;
  t.id = id, t.text = std::move(text);
  return t;
}

// What a chat's client gets, whole and in events, of tokens that a model may open reasoning with.
TEST(ServeAnswerHost, ReasoningThatTheModelOpens) {
  const ServedModel model = fables(false);
  GenerateRequest asked;
  asked.kind = AnswerKind::kChat;
  const AnswerWriter writer(model, asked, "id-1", 99);
  struct Case {
    std::vector<std::string> pieces;
    std::optional<std::string> reasoning;
    std::string text;
    uint64_t reasoning_tokens;
  };
  const Case cases[] = {{{"\n", "<thi", "nk>", "\nh", "m", "</think>", "Hi"}, "hm", "Hi", 6},
                        {{"<think>hm</think>Hi", "x"}, "hm", "Hix", 1},
                        {{"<think>", "</think>", "Hi"}, "", "Hi", 2},
                        {{"\n", "<th", "x", "<think>"}, {}, "\n<thx<think>", 0},
                        {{"\n", "<think"}, {}, "\n<think", 0}};
  for (const Case& c : cases) {
    SCOPED_TRACE(c.text);
    Answer streamed({.reasoning = Reasoning::kPossible}),
        whole({.reasoning = Reasoning::kPossible});
    std::string out;
    for (size_t i = 0; i < c.pieces.size(); ++i) {
      runtime::EngineToken t = token(300 + uint32_t(i), c.pieces[i]);
      if (i + 1 == c.pieces.size()) t.finish = runtime::FinishReason::kStop;
      streamed.take(t), whole.take(t);
      if (streamed.news()) writer.append_news(out, 0, streamed);
    }
    EXPECT_EQ(whole.reasoning_tokens(), c.reasoning_tokens);
    EXPECT_EQ(whole.reasons(), c.reasoning.has_value());
    const auto body = parse_body(writer.body({&whole, 1}, {}));
    ASSERT_TRUE(body.ok());
    const Json& message = (*body)["choices"][0]["message"];
    EXPECT_EQ(message["content"], c.text);
    EXPECT_EQ(message.contains("reasoning_content"), c.reasoning.has_value());
    EXPECT_EQ(message.value("reasoning_content", ""), c.reasoning.value_or(""));
    std::string text, reasoning;
    for (size_t begin = 0; begin < out.size();) {
      const size_t end = out.find("\n\n", begin);
      const auto event = parse_body(out.substr(begin + 6, end - begin - 6));
      ASSERT_TRUE(event.ok());
      begin = end + 2;
      const Json& delta = (*event)["choices"][0]["delta"];
      text += delta.value("content", ""), reasoning += delta.value("reasoning_content", "");
    }
    EXPECT_EQ(text, c.text);
    EXPECT_EQ(reasoning, c.reasoning.value_or(""));
  }
}

TEST(ServeAnswerHost, EventsAndBodiesSayTheSame) {
  const ServedModel model = fables(false);
  GenerateRequest asked;
  asked.include_usage = true, asked.return_token_ids = true, asked.logprobs = 1;
  for (const AnswerKind kind : {AnswerKind::kCompletion, AnswerKind::kChat}) {
    asked.kind = kind;
    const bool chat = kind == AnswerKind::kChat;
    const AnswerWriter writer(model, asked, "id-1", 99);
    std::vector<Answer> streamed, whole;
    for (auto* answers : {&streamed, &whole})
      answers->emplace_back(Answer::Options{
          .reasoning = chat ? Reasoning::kOpen : Reasoning::kNever, .keep_ids = true});
    std::string out;
    writer.append_begin(out, 0);
    for (uint32_t i = 0; i < 4; ++i) {
      runtime::EngineToken t = token(300 + i, i == 1 ? "\"q\"\n</think>" : "x");
      t.logprobs = runtime::TokenLogprobs{i == 2 ? -INFINITY : -0.5f, {{300 + i, -0.5f}}};
      if (i == 3) t.finish = runtime::FinishReason::kStop;
      streamed[0].take(t), whole[0].take(t);
      ASSERT_TRUE(streamed[0].news());
      writer.append_news(out, 0, streamed[0]);
      EXPECT_FALSE(streamed[0].news());
    }
    const Usage usage{5, 4, 2, chat};
    writer.append_usage(out, usage);
    const auto body = parse_body(writer.body(whole, usage));
    ASSERT_TRUE(body.ok());
    EXPECT_EQ((*body)["usage"]["total_tokens"], 9);
    const Json& choice = (*body)["choices"][0];
    EXPECT_EQ(choice["finish_reason"], "stop");
    EXPECT_EQ(choice["token_ids"], Json({300, 301, 302, 303}));

    std::string text, reasoning;
    std::vector<Json> values;
    Json last;
    for (size_t begin = 0; begin < out.size();) {
      const size_t end = out.find("\n\n", begin);
      ASSERT_EQ(out.substr(begin, 6), "data: ");
      const auto event = parse_body(out.substr(begin + 6, end - begin - 6));
      ASSERT_TRUE(event.ok()) << out.substr(begin, end - begin);
      begin = end + 2;
      last = *event;
      EXPECT_EQ(last["id"], "id-1");
      EXPECT_EQ(last["created"], 99);
      if (last["choices"].empty()) break;
      EXPECT_TRUE(last["usage"].is_null());
      const Json& piece = last["choices"][0];
      const Json& delta = chat ? piece["delta"] : piece;
      text += delta.value(chat ? "content" : "text", "");
      reasoning += delta.value("reasoning_content", "");
      if (piece["logprobs"].is_null()) continue;
      const Json& list = piece["logprobs"][chat ? "content" : "token_logprobs"];
      for (const Json& value : list) values.push_back(chat ? value["logprob"] : value);
    }
    EXPECT_EQ(last["usage"]["completion_tokens"], 4);
    EXPECT_EQ(last["usage"].contains("completion_tokens_details"), chat);
    EXPECT_EQ(values, (std::vector<Json>{-0.5f, -0.5f, -9999.0f, -0.5f}));
    const Json& message = chat ? choice["message"] : choice;
    EXPECT_EQ(message[chat ? "content" : "text"], text);
    EXPECT_EQ(text, chat ? "xx" : "x\"q\"\n</think>xx");
    EXPECT_EQ(reasoning, chat ? "x\"q\"\n" : "");
    EXPECT_EQ(message.value("reasoning_content", ""), reasoning);
  }
}

TEST(ServeHttpHost, RoutesAndMethods) {
  EXPECT_EQ(find_route("GET", "/health?x=1")->endpoint, Endpoint::kHealth);
  EXPECT_EQ(find_route("HEAD", "/")->endpoint, Endpoint::kPage);
  EXPECT_EQ(find_route("POST", "/v1/chat/completions")->endpoint, Endpoint::kChat);
  EXPECT_EQ(find_route("GET", "/v1/models/a%2Fb%")->model_id, "a/b%");
  EXPECT_EQ(find_route("GET", "/v1/models/").error().http, 404u);
  EXPECT_EQ(find_route("GET", "/v1/completions").error().http, 405u);
  EXPECT_EQ(find_route("get", "/health").error().http, 405u);
  EXPECT_EQ(find_route("GET", "//health").error().http, 404u);
  EXPECT_EQ(allowed_methods("/tokenize"), "POST, OPTIONS");
  EXPECT_EQ(ResponseHead(200).field("A", "b").text(), "HTTP/1.1 200 OK\r\nA: b\r\n\r\n");
  EXPECT_EQ(printable("a\r\n%s\x80", 4), "a??%...");
  EXPECT_EQ(*parse_priority("-100"), -100);
  for (const char* bad : {"", "101", "1x", " 1", "1.5"})
    EXPECT_FALSE(parse_priority(bad).ok()) << bad;
}

TEST(ServeHttpHost, Access) {
  ServerOptions options;
  options.api_keys = {"one", "another key"};
  options.cors_origins = {"https://good.example"};
  options.allowed_hosts = {"box.local"};
  const auto status = [&](RequestHead head, Endpoint endpoint = Endpoint::kModels) {
    const auto error = check_access(head, endpoint, options);
    return error ? error->http : 200u;
  };
  RequestHead head{"GET", "/v1/models", "Bearer one", "", "127.0.0.1:8000"};
  EXPECT_EQ(status(head), 200u);
  for (const char* key :
       {"", "one", "Bearer on", "Bearer onee", "Bearer ", "Bearer  one", "Basic one"}) {
    RequestHead other = head;
    other.authorization = key;
    EXPECT_EQ(status(other), 401u) << key;
    EXPECT_EQ(status(other, Endpoint::kHealth), 200u);
    EXPECT_EQ(status(other, Endpoint::kMetrics), 401u);
  }
  for (const char* host : {"localhost", "[::1]:80", "10.0.0.7", "box.local:8000"}) {
    head.host = host;
    EXPECT_EQ(status(head), 200u) << host;
  }
  head.host = "evil.example";
  EXPECT_EQ(status(head), 403u);
  options.host = "0.0.0.0";  // who listens to the world has many names
  EXPECT_EQ(status(head), 200u);
  for (const auto& [origin, code] :
       std::vector<std::pair<std::string, uint32_t>>{{"https://good.example", 200},
                                                     {"http://evil.example", 200},
                                                     {"https://evil.example", 200},
                                                     {"http://evil.example.org", 403},
                                                     {"null", 403},
                                                     {"http://good.example", 403}}) {
    head.origin = origin;
    EXPECT_EQ(status(head), code) << origin;
  }
}

TEST(ServeHttpHost, ErrorsHaveOpenAisShape) {
  for (const auto& [http, type] :
       std::vector<std::pair<uint32_t, std::string>>{{400, "invalid_request_error"},
                                                     {401, "authentication_error"},
                                                     {404, "invalid_request_error"},
                                                     {429, "rate_limit_error"},
                                                     {500, "server_error"},
                                                     {503, "server_error"},
                                                     {504, "timeout_error"}}) {
    const ApiError error{http, "a \"message\"", http == 400 ? "n" : "", "", 0};
    EXPECT_EQ(error.body(), R"({"error":{"message":"a \"message\"","type":")" + type +
                                R"(","param":)" + (http == 400 ? "\"n\"" : "null") +
                                R"(,"code":null}})");
  }
  EXPECT_EQ(error_of({Errc::kInvalidArgument, "x"}).http, 400u);
  EXPECT_EQ(error_of({Errc::kCancelled, "x"}).http, 503u);
  EXPECT_EQ(error_of({Errc::kInternal, "x"}).http, 500u);
}

TEST(ServeMetricsHost, TextAsPrometheusReadsIt) {
  Histogram histogram({0.5, 1, 2});
  for (const double value : {0.25, 0.5, 0.75, 2.0, 3.0}) histogram.add(value);
  std::string out;
  histogram.append(out, "h", "Help.");
  EXPECT_EQ(out,
            "# HELP h Help.\n# TYPE h histogram\nh_bucket{le=\"0.5\"} 2\nh_bucket{le=\"1\"} 3\n"
            "h_bucket{le=\"2\"} 4\nh_bucket{le=\"+Inf\"} 5\nh_sum 6.5\nh_count 5\n");
  Metrics metrics;
  metrics.finished["stop"] = 3;
  metrics.responses[200] = 4;
  Metrics::Now now;
  now.engine.pages.total = 9, now.connections = 2;
  const std::string text = metrics.text(now);
  for (const char* line : {"hadal_cache_pages 9\n", "hadal_connections 2\n",
                           "hadal_requests_total{finish=\"stop\"} 3\n",
                           "hadal_http_responses_total{code=\"200\"} 4\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line;
  }
}

TEST(ServeMetricsHost, TheRateIsOfWholeSeconds) {
  using std::chrono::seconds;
  TokenRate rate;
  const TokenRate::Time begin{seconds(1000)};
  for (int i = 0; i < 10; ++i) rate.add(begin + seconds(i), 20);
  EXPECT_EQ(rate.per_second(begin + seconds(9)), 20.0);   // seconds 4 to 8
  EXPECT_EQ(rate.per_second(begin + seconds(12)), 12.0);  // 7 to 11: three of five
  EXPECT_EQ(rate.per_second(begin + seconds(100000)), 0.0);
}

TEST(ServeRequestHost, BytesOfAnyKindAreTakenOrRefused) {
  std::vector<std::string> seeds;
  for (const hadal::fuzz::Seed& seed : hadal::fuzz::seeds_of("serve_request")) {
    seeds.emplace_back(seed.bytes.begin(), seed.bytes.end());
  }
  ASSERT_FALSE(seeds.empty());
  const auto taken_by = [&](auto parse) {
    return std::count_if(seeds.begin(), seeds.end(),
                         [&](const std::string& seed) { return parse(seed).ok(); });
  };
  // completion.json and ids.json; chat.json, demanded.json and schema.json
  EXPECT_EQ(taken_by([](const auto& body) { return parse_completion_request(body); }), 2);
  EXPECT_EQ(taken_by([](const auto& body) { return parse_chat_request(body); }), 3);
  EXPECT_EQ(taken_by([](const auto& body) { return parse_detokenize_request(body); }), 1);
  std::mt19937 random(17);
  hadal::testing::FuzzRounds rounds(3000);
  while (rounds.next()) {
    std::string body = seeds[random() % seeds.size()];
    for (size_t n = rounds.done() <= int(seeds.size()) ? 0 : random() % 4; n > 0 && !body.empty();
         --n) {
      const size_t at = random() % body.size();
      switch (random() % 4) {
        case 0: body[at] = char(random()); break;
        case 1: body[at] = "0123456789{}[],:\"-e.ntf\\"[random() % 23]; break;
        case 2: body.erase(at, 1 + random() % 8); break;
        default: body.insert(at, body.substr(random() % body.size(), 1 + random() % 40)); break;
      }
    }
    ASSERT_EQ(hadal_fuzz_serve_request(reinterpret_cast<const uint8_t*>(body.data()), body.size()),
              0);
  }
}

}  // namespace
}  // namespace hadal::serve
