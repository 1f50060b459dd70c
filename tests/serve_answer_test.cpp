// How hadal-serve writes answers: events and whole bodies.
#include <gtest/gtest.h>

#include <random>

#include "serve/answer_json.h"
#include "serve/fables.h"
#include "serve/json.h"

namespace hadal::serve {
namespace {

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

}  // namespace
}  // namespace hadal::serve
