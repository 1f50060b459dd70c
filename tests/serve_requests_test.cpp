// What hadal-serve reads: bodies of clients to requests, and those to requests of the engine.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "fuzz/seeds.h"
#include "serve/fables.h"
#include "serve/request_fuzz.h"
#include "support/fuzz.h"

namespace hadal::serve {
namespace {

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
  EXPECT_EQ(job->reasoning, examples::Reasoning::kNever);  // a completion's
  EXPECT_EQ(chat("")->reasoning, examples::Reasoning::kPossible);
  EXPECT_EQ(chat(R"(,"chat_template_kwargs":{"thinking":true})")->reasoning,
            examples::Reasoning::kOpen);
  EXPECT_EQ(chat(R"(,"response_format":{"type":"json_object"})")->reasoning,
            examples::Reasoning::kNever);
  EXPECT_EQ(chat("")->requests[0].max_new_tokens, 2048u);  // the engine ends at the context
  auto ids = parse_completion_request(R"({"prompt":[2048]})");
  EXPECT_EQ(model.prepare(std::move(*ids), 1).error().param, "prompt");
  auto named = parse_completion_request(R"({"prompt":"a","model":"other"})");
  EXPECT_EQ(model.prepare(std::move(*named), 1).error().http, 404u);
  auto plain = parse_chat_request(R"({"messages":[{"role":"user","content":"Hi"}]})");
  EXPECT_EQ(fables(false).prepare(std::move(*plain), 1).error().code, "no_chat_template");
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
