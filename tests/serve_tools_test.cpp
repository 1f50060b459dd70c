// Calls of tools in hadal-serve's answers: as OpenAI writes them, and back in a prompt as the model
// wrote them.
#include <gtest/gtest.h>

#include <random>

#include "hadal/model/chat_template.h"
#include "serve/answer_json.h"
#include "serve/tool_forms.h"
#include "support/fuzz.h"
#include "support/safetensors_writer.h"

namespace hadal::serve {
namespace {

using runtime::FinishReason;

const ServedModel& model() {
  static const ServedModel served = [] {
    auto tokenizer = model::Tokenizer::load(HADAL_SOURCE_DIR "/examples/models/fables");
    EXPECT_TRUE(tokenizer.ok());
    return ServedModel(std::move(*tokenizer), {},
                       {.name = "m", .context = 64, .vocab = 2048, .end_ids = {1}});
  }();
  return served;
}

// A chat's answer: whole, and its events joined as clients do.
struct Written {
  Json message;
  std::string finish, streamed_finish;
  Json streamed;  // content, reasoning_content, tool_calls
  size_t events = 0;
};

Written write(const std::vector<runtime::EngineToken>& tokens, Answer::Options options,
              std::mt19937* random = nullptr) {
  GenerateRequest asked;
  asked.kind = AnswerKind::kChat;
  const AnswerWriter writer(model(), asked, "chatcmpl-0123456789abcdef0123456789abcdef", 9);
  std::vector<Answer> whole, streamed;
  whole.emplace_back(options), streamed.emplace_back(options);
  std::string out;
  writer.append_begin(out, 0);
  for (const runtime::EngineToken& token : tokens) {
    whole[0].take(token), streamed[0].take(token);
    const bool waits = random != nullptr && (*random)() % 2 && !streamed[0].ended();
    if (streamed[0].news() && !waits) writer.append_news(out, 0, streamed[0]);
  }
  Written written;
  const Usage usage{1, 1, 0, false};
  const Json body = *parse_body(writer.body(whole, usage));
  written.message = body["choices"][0]["message"];
  written.finish = body["choices"][0]["finish_reason"];
  written.streamed = {{"content", ""}, {"reasoning_content", ""}, {"tool_calls", Json::array()}};
  for (size_t begin = 0; begin < out.size(); ++written.events) {
    const size_t end = out.find("\n\n", begin);
    const auto event = parse_body(out.substr(begin + 6, end - begin - 6));
    EXPECT_TRUE(event.ok()) << out.substr(begin, end - begin);
    begin = end + 2;
    const Json& choice = (*event)["choices"][0];
    for (const char* text : {"content", "reasoning_content"}) {
      const std::string piece = choice["delta"].value(text, "");
      written.streamed[text] = written.streamed[text].get<std::string>() + piece;
    }
    for (const Json& call : choice["delta"].value("tool_calls", Json::array())) {
      Json& calls = written.streamed["tool_calls"];
      Json own = call;
      own.erase("index");
      if (call.contains("id")) {
        EXPECT_EQ(call["index"], calls.size());
        calls.push_back(own);
        continue;
      }
      EXPECT_EQ(call["index"], calls.size() - 1);
      Json& arguments = calls.back()["function"]["arguments"];
      arguments = arguments.get<std::string>() + own["function"]["arguments"].get<std::string>();
    }
    if (!choice["finish_reason"].is_null()) written.streamed_finish = choice["finish_reason"];
  }
  return written;
}

std::vector<runtime::EngineToken> tokens_of(const std::vector<std::string>& pieces,
                                            FinishReason finish = FinishReason::kStop) {
  std::vector<runtime::EngineToken> tokens;
  for (const std::string& piece : pieces) {
    tokens.emplace_back();
    tokens.back().id = 300, tokens.back().text = piece;
  }
  tokens.emplace_back();
  tokens.back().id = 1, tokens.back().finish = finish;
  return tokens;
}

TEST(ServeToolsHost, AnswersAsOpenAiWritesThem) {
  const std::vector<std::string> pieces = {"See: ", kBegin, kCall,        "get_", "x",
                                           kSep,    "{\"a", "\": \"é\"}", kDone,  kCall,
                                           "y",     kSep,   "{}",         kDone,  kEnd};
  const Written w = write(tokens_of(pieces), {.most_calls = 9});
  EXPECT_EQ(w.message, Json::parse(R"({"role": "assistant", "content": "See: ", "tool_calls": [
      {"id": "call_0123456789abcdef01234567_0_0", "type": "function",
       "function": {"name": "get_x", "arguments": "{\"a\": \"é\"}"}},
      {"id": "call_0123456789abcdef01234567_0_1", "type": "function",
       "function": {"name": "y", "arguments": "{}"}}]})"));
  EXPECT_EQ(w.finish, "tool_calls");
  // The beginning, "See: ", a name, two pieces of arguments, a name, arguments, the end.
  EXPECT_EQ(w.events, 8u);

  EXPECT_EQ(write(tokens_of(pieces, FinishReason::kLength), {.most_calls = 9}).finish, "length");
  const Written none = write(tokens_of({"a ", "b"}), {.most_calls = 9});
  EXPECT_EQ(none.message, Json::parse(R"({"role": "assistant", "content": "a b"})"));
  EXPECT_EQ(none.finish, "stop");
  const Written cut = write(tokens_of({"a ", kBegin, "<｜tool"}), {.most_calls = 9});
  EXPECT_EQ(cut.message["content"], "a " + kBegin + "<｜tool");
  const Written text = write(tokens_of(pieces), {});
  std::string all;
  for (const std::string& piece : pieces) all += piece;
  EXPECT_EQ(text.message["content"], all) << "no tools were asked for";
  EXPECT_EQ(text.finish, "stop");
  const Written one = write(tokens_of(pieces), {.most_calls = 1});
  EXPECT_EQ(one.message["tool_calls"].size(), 1u);
  EXPECT_EQ(one.streamed["tool_calls"], one.message["tool_calls"]);
  const Written bare = write(tokens_of({kBegin + v31("f", "{}") + kEnd}), {.most_calls = 9});
  EXPECT_TRUE(bare.message["content"].is_null());
  EXPECT_EQ(bare.message["tool_calls"][0]["function"]["name"], "f");
}

TEST(ServeToolsHost, CallsWithinReasoningAreReasoning) {
  const std::string call = kBegin + v31("f", "{}") + kEnd;
  const Written w = write(tokens_of(characters_of("so " + call + "</think>\n" + call)),
                          {.reasoning = Reasoning::kOpen, .most_calls = 9});
  EXPECT_EQ(w.message["reasoning_content"], "so " + call);
  EXPECT_EQ(w.message["content"], "\n");
  EXPECT_EQ(w.message["tool_calls"].size(), 1u);
  const Written open = write(tokens_of({call}), {.reasoning = Reasoning::kOpen, .most_calls = 9});
  EXPECT_FALSE(open.message.contains("tool_calls"));
  EXPECT_EQ(open.finish, "stop");
}

// Marks may be special tokens, which have no text.
TEST(ServeToolsHost, MarksWithoutText) {
  const std::vector<SilentMark> marks = {
      {11, kBegin}, {12, kEnd}, {13, kCall}, {14, kDone}, {15, kSep}};
  std::vector<runtime::EngineToken> tokens =
      tokens_of({"a", kBegin, kCall, "f", kSep, "{", "}", kDone, kEnd});
  const Written spoken = write(tokens, {.most_calls = 9});
  for (runtime::EngineToken& token : tokens) {
    for (const SilentMark& mark : marks) {
      if (token.text == mark.text) token.id = mark.id, token.text.clear();
    }
  }
  const Written silent = write(tokens, {.most_calls = 9, .silent_marks = marks});
  EXPECT_EQ(silent.message, spoken.message);
  EXPECT_EQ(silent.finish, "tool_calls");
  EXPECT_EQ(write(tokens, {.silent_marks = marks}).message["content"], "af{}");
}

TEST(ServeToolsHost, EventsAndBodiesSayTheSame) {
  std::mt19937 random(7);
  const std::vector<std::string> marks = {kBegin, kEnd,       kCall,         kDone,
                                          kSep,   "function", "\n```json\n", "\n```",
                                          "\n",   "x",        "{\"é\":\"",   "</think>"};
  int with_calls = 0;
  for (hadal::testing::FuzzRounds rounds(1000); rounds.next();) {
    std::vector<std::string> pieces;
    for (size_t n = random() % 20; n > 0; --n) {
      pieces.push_back(random() % 3 ? marks[random() % marks.size()] : kBegin + kCall + "n" + kSep);
    }
    const FinishReason finish = random() % 2 ? FinishReason::kStop : FinishReason::kLength;
    const Answer::Options options{.reasoning = Reasoning(random() % 3),
                                  .most_calls = random() % 4 ? UINT32_MAX : uint32_t(random() % 3)};
    const Written w = write(tokens_of(pieces, finish), options, &random);
    Json message = w.message;
    const bool calls = message.contains("tool_calls");
    with_calls += calls;
    if (message["content"].is_null()) message["content"] = "";
    EXPECT_EQ(w.streamed["content"], message["content"]);
    EXPECT_EQ(w.streamed["reasoning_content"], message.value("reasoning_content", ""));
    EXPECT_EQ(w.streamed["tool_calls"], message.value("tool_calls", Json::array()));
    EXPECT_EQ(w.streamed_finish, w.finish);
    EXPECT_EQ(w.finish, finish == FinishReason::kLength ? "length" : calls ? "tool_calls" : "stop");
  }
  EXPECT_GT(with_calls, 300);
}

// What was told apart and comes back as a message is in the prompt as the model wrote it.
TEST(ServeToolsHost, CallsComeBackAsTheyWereWritten) {
  const std::string arguments = R"({"city": "Paris é <x>", "days":[1, 2.50]})";
  const std::string end = "<｜end▁of▁sentence｜>";
  const auto returns = [&](const char* file, const std::string& written) {
    const std::string source =
        hadal::testing::read_file(std::string(HADAL_SOURCE_DIR "/tests/chat_templates/") + file);
    const auto chat = model::ChatTemplate::parse(source, file, "<B>", "<E>");
    ASSERT_TRUE(chat.ok());
    model::ChatInput input;
    input.messages = R"([{"role":"user","content":"Q"}])";
    const std::string asked = *chat->render(input);
    const Written w = write(tokens_of(characters_of(written)), {.most_calls = 9});
    const std::string request = R"({"messages":[{"role":"user","content":"Q"},)" +
                                w.message.dump() +
                                R"(,{"role":"tool","tool_call_id":"x","content":"ANSWER"}]})";
    const auto parsed = parse_chat_request(request);
    ASSERT_TRUE(parsed.ok()) << parsed.error().message;
    input.messages = parsed->messages;
    const std::string all = *chat->render(input);
    ASSERT_EQ(all.substr(0, asked.size() + written.size() + end.size()), asked + written + end)
        << file;
    EXPECT_NE(all.find("ANSWER"), all.npos) << all;
  };
  for (const std::string& content : {std::string(), std::string("I look.\n\n")}) {
    returns("v31.jinja", content + kBegin + v31("weather", arguments) + kEnd);
    returns("v31.jinja", content + kBegin + v31("a", "{}") + v31("b", arguments) + kEnd);
  }
  returns("v3.jinja", kBegin + v3("weather", arguments) + kEnd);
  returns("v3.jinja", kBegin + v3("a", "{}") + "\n" + v3("b", arguments) + kEnd);
}

}  // namespace
}  // namespace hadal::serve
