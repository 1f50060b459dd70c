// Answers that have to be calls: what the masks of tool_choice allow, for each template's form.
#include "serve/call_form.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <random>

#include "serve/answer.h"
#include "serve/served_model.h"
#include "serve/tool_forms.h"
#include "support/fuzz.h"
#include "support/safetensors_writer.h"

namespace hadal::serve {
namespace {

const std::string kSource = HADAL_SOURCE_DIR;
constexpr uint32_t kEndId = 1;

const model::Tokenizer& tokenizer() {
  static const model::Tokenizer loaded = [] {
    auto tokenizer = model::Tokenizer::load(kSource + "/examples/models/fables");
    EXPECT_TRUE(tokenizer.ok());
    return std::move(*tokenizer);
  }();
  return loaded;
}

model::ChatTemplate template_of(const std::string& source) {
  auto chat = model::ChatTemplate::parse(source, "t", "<b>", "<e>");
  EXPECT_TRUE(chat.ok());
  return std::move(*chat);
}

std::string file(const std::string& name) {
  return hadal::testing::read_file(kSource + "/tests/chat_templates/" + name);
}

Result<CallForm> form_of(const std::string& source) {
  return CallForm::create(template_of(source), tokenizer(), std::array{kEndId});
}

using Call = std::string (*)(const std::string& name, const std::string& arguments);

// How the three test templates write calls, from the models' documentation (tool_forms.h).
struct Form {
  const char* template_file;
  Call call;
  const char* between;
};
const Form kForms[] = {{"v31.jinja", v31, ""}, {"v3.jinja", v3, "\n"}, {"r1.jinja", v3, "\n"}};

const std::vector<CallableTool> kTools = {
    {"get_weather",
     R"({"type":"object","properties":{"city":{"enum":["Paris","Rome"]},"days":{"type":"integer",
         "minimum":1,"maximum":9}},"required":["city"]})",
     "a"},
    {"get", R"({"type":"object","properties":{"deep":{"type":"boolean"}}})", "b"},
    {"stop-all", R"({"type":"object","properties":{}})", "c"}};

std::vector<uint32_t> allowed_by(runtime::TokenMask& mask, const std::vector<uint32_t>& tokens) {
  std::vector<uint32_t> bits(tokenizer().vocab_size() / 32 + 1), ids;
  EXPECT_TRUE(mask(tokens, bits));
  for (uint32_t word = 0; word < bits.size(); ++word) {
    for (uint32_t rest = bits[word]; rest != 0; rest &= rest - 1) {
      ids.push_back(word * 32 + uint32_t(std::countr_zero(rest)));
    }
  }
  return ids;
}

bool takes(runtime::TokenMask& mask, const std::vector<std::string>& parts) {
  std::vector<uint32_t> tokens;
  for (const std::string& part : parts) {
    const std::vector<uint32_t> ids = *tokenizer().encode(part, false);
    for (const uint32_t id : ids) {
      const std::vector<uint32_t> allowed = allowed_by(mask, tokens);
      if (std::find(allowed.begin(), allowed.end(), id) == allowed.end()) return false;
      tokens.push_back(id);
    }
  }
  return allowed_by(mask, tokens) == std::vector<uint32_t>{kEndId};
}

TEST(ServeCallFormHost, AllowsWhatTheTemplateWrites) {
  for (const Form& form : kForms) {
    SCOPED_TRACE(form.template_file);
    const Result<CallForm> made = form_of(file(form.template_file));
    ASSERT_TRUE(made.ok()) << made.status().message();
    const Result<MaskMaker> one = made->masks(tokenizer(), kTools, false);
    const Result<MaskMaker> many = made->masks(tokenizer(), kTools, true);
    ASSERT_TRUE(one.ok() && many.ok());
    // In the parts that are tokens of their own: what is fixed, and arguments.
    const auto parts = [&](const std::vector<std::pair<std::string, std::string>>& calls) {
      std::vector<std::string> all;
      std::string fixed = kBegin;
      for (const auto& [name, arguments] : calls) {
        const std::string text = form.call(name, "*");
        const size_t star = text.find('*');
        all.insert(all.end(), {fixed + text.substr(0, star), arguments, text.substr(star + 1)});
        fixed = form.between;
      }
      all.push_back(kEnd);
      return all;
    };
    const std::pair<std::string, std::string> paris{"get_weather", R"({"city": "Paris"})"};
    const auto taken = [&](const Result<MaskMaker>& masks, const auto& calls) {
      runtime::TokenMask mask = (*masks)();
      return takes(mask, parts(calls));
    };
    using Calls = std::vector<std::pair<std::string, std::string>>;
    EXPECT_TRUE(taken(one, Calls{paris}));
    EXPECT_TRUE(taken(one, Calls{{"get", "{}"}}));
    EXPECT_TRUE(taken(many, Calls{paris, {"get", R"({"deep":true})"}, {"stop-all", "{}"}}));
    EXPECT_FALSE(taken(one, Calls{paris, paris}));
    EXPECT_FALSE(taken(one, Calls{{"get_weather", "{}"}}));
    EXPECT_FALSE(taken(one, Calls{{"get", paris.second}}));
    EXPECT_FALSE(taken(one, Calls{{"other", "{}"}}));
    EXPECT_FALSE(taken(many, Calls{}));
  }
}

// Any way through a mask is calls of the tools and nothing else, whatever was asked before.
TEST(ServeCallFormHost, RandomWalksAreCalls) {
  std::mt19937 random(3);
  std::vector<CallForm> forms;
  for (const Form& form : kForms) forms.push_back(*form_of(file(form.template_file)));
  size_t most = 0;
  for (hadal::testing::FuzzRounds rounds(60); rounds.next();) {
    const bool many = random() % 2;
    const auto masks = forms[random() % forms.size()].masks(tokenizer(), kTools, many);
    ASSERT_TRUE(masks.ok());
    runtime::TokenMask mask = (*masks)(), fresh = (*masks)();
    std::vector<uint32_t> tokens;
    while (tokens.empty() || tokens.back() != kEndId) {
      ASSERT_LT(tokens.size(), 3000u);
      const std::vector<uint32_t> allowed = allowed_by(mask, tokens);
      ASSERT_FALSE(allowed.empty());
      if (random() % 8 == 0) {  // a guess that is taken back
        tokens.push_back(allowed[random() % allowed.size()]);
        (void)allowed_by(mask, tokens);
        tokens.pop_back();
      }
      tokens.push_back(allowed[random() % allowed.size()]);
    }
    std::vector<uint32_t> again(tokens.begin(), tokens.end() - 1);
    EXPECT_EQ(allowed_by(fresh, again), std::vector<uint32_t>{kEndId});
    ToolCallSplitter splitter;
    TextAndCalls read;
    splitter.push(*tokenizer().decode(tokens), read);
    splitter.flush(read);
    EXPECT_EQ(read.text, "");
    ASSERT_GE(read.calls.size(), 1u);
    EXPECT_TRUE(many || read.calls.size() == 1);
    most = std::max(most, read.calls.size());
    for (const ToolCall& call : read.calls) {
      const auto json = parse_body(call.arguments);
      ASSERT_TRUE(json.ok()) << call.arguments;
      if (call.name == "get_weather") {
        EXPECT_TRUE((*json)["city"] == "Paris" || (*json)["city"] == "Rome");
      } else if (call.name == "get") {
        EXPECT_TRUE(json->empty() || (*json)["deep"].is_boolean());
      } else {
        EXPECT_EQ(call.name, "stop-all");
        EXPECT_TRUE(json->empty());
      }
    }
  }
  EXPECT_GT(most, 1u);
}

// Fables' tokenizer with the marks as tokens, in place of its last ones.
model::Tokenizer with_marks(bool special) {
  Json json =
      Json::parse(hadal::testing::read_file(kSource + "/examples/models/fables/tokenizer.json"));
  const std::vector<std::string> marks = {kBegin, kEnd, kCall, kDone, kSep};
  Json vocab = Json::object();
  for (const auto& [token, id] : json["model"]["vocab"].items()) {
    if (id < 2039 || id >= 2044) vocab[token] = id;
  }
  json["model"]["vocab"] = std::move(vocab);
  Json& added = json["added_tokens"];  // ordered by id: the marks come behind begin, end and pad
  for (size_t i = 0; i < marks.size(); ++i) {
    json["model"]["merges"].erase(json["model"]["merges"].size() - 1);
    Json token = added[0];
    token["id"] = 2039 + i, token["content"] = marks[i], token["special"] = special;
    added.insert(added.begin() + 3 + int(i), std::move(token));
  }
  auto tokenizer = model::Tokenizer::parse(json.dump(), "", "fables");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  return std::move(*tokenizer);
}

TEST(ServeCallFormHost, MarksThatAreTokens) {
  for (const bool special : {false, true}) {
    const ServedModel model(with_marks(special), template_of(file("v31.jinja")),
                            {.name = "m", .context = 512, .vocab = 2048, .end_ids = {kEndId}});
    EXPECT_EQ(model.silent_marks().size(), special ? 5u : 0u);
    auto asked = parse_chat_request(R"({"messages":[{"role":"user","content":"a"}],"tools":[
        {"function":{"name":"f"}},{"function":{"name":"g"}}],"tool_choice":"required"})");
    const auto job = model.prepare(std::move(*asked), 1);
    ASSERT_TRUE(job.ok()) << job.error().message;
    // Most of such an answer is not left to the model: which call, and whether there are more.
    runtime::TokenMask mask = job->requests[0].mask;
    std::vector<uint32_t> tokens;
    Answer answer({.most_calls = 9, .silent_marks = model.silent_marks()});
    const std::vector<uint32_t> ids = *model.tokenizer().encode(
        kBegin + v31("g", "{}") + v31("f", "{}") + kEnd + "<｜end▁of▁sentence｜>", false);
    for (const uint32_t id : ids) {
      const std::vector<uint32_t> allowed = allowed_by(mask, tokens);
      EXPECT_NE(std::find(allowed.begin(), allowed.end(), id), allowed.end()) << id;
      tokens.push_back(id);
      runtime::EngineToken token;
      token.id = id, token.text = *model.tokenizer().decode({&id, 1});
      if (id == kEndId) token.finish = runtime::FinishReason::kStop;
      answer.take(token);
    }
    const AnswerDelta all = answer.take_delta();
    EXPECT_EQ(all.text, "");
    ASSERT_EQ(all.calls.size(), 2u);
    EXPECT_EQ(all.calls[0].name + all.calls[1].name, "gf");
    EXPECT_EQ(all.calls[1].arguments, "{}");
  }
}

// A guess of another tool's call leaves nothing behind.
TEST(ServeCallFormHost, GuessesAreForgotten) {
  const auto masks = form_of(file("v31.jinja"))->masks(tokenizer(), kTools, true);
  ASSERT_TRUE(masks.ok());
  const auto head = [](const std::string& name) {
    return *tokenizer().encode(kBegin + kCall + name + kSep, false);
  };
  runtime::TokenMask mask = (*masks)(), fresh = (*masks)();
  std::vector<uint32_t> guess = head("get_weather"), drawn = head("get");
  for (std::vector<uint32_t>* tokens : {&guess, &drawn}) {
    const std::vector<uint32_t> brace = *tokenizer().encode("{\"", false);
    tokens->insert(tokens->end(), brace.begin(), brace.end());
  }
  const std::vector<uint32_t> guessed = allowed_by(mask, guess), allowed = allowed_by(mask, drawn);
  EXPECT_EQ(allowed, allowed_by(fresh, drawn));
  EXPECT_NE(allowed, guessed);
}

TEST(ServeCallFormHost, TemplatesThatItDoesNotKnow) {
  const std::string message = "the chat template writes calls in no form known here";
  EXPECT_EQ(form_of("{{ messages[0].content }}").status().message(), message);
  EXPECT_EQ(form_of("{{ messages[1].tool_calls }}").status().message(), message);
  EXPECT_EQ(form_of("{{ raise_exception('no tools') }}").status().code(), Errc::kUnsupported);
  std::string kimi = file("v31.jinja");
  for (size_t at; (at = kimi.find(kSep)) != kimi.npos;) kimi.replace(at, kSep.size(), "<|sep|>");
  EXPECT_EQ(form_of(kimi).status().message(), message);
}

// Some templates want arguments as objects and write them as JSON, as vLLM's for V3 does.
TEST(ServeCallFormHost, ArgumentsAsTheTemplateTakesThem) {
  std::string source = file("v31.jinja");
  const std::string plain = "tool['function']['arguments']";
  for (size_t at = 0; (at = source.find(plain, at)) != source.npos; at += plain.size() + 9) {
    source.insert(at + plain.size(), " | tojson");
  }
  const Result<CallForm> objects = form_of(source);
  ASSERT_TRUE(objects.ok()) << objects.status().message();
  const auto messages = [](const std::string& arguments) {
    return R"([{"role":"user","content":"a"},{"role":"assistant","content":null,"tool_calls":[)"
           R"({"type":"function","function":{"name":"f","arguments":)" +
           arguments + "}}]}]";
  };
  EXPECT_EQ(objects->messages(messages(R"("{\"b\": [1, 2.50]}")")), messages(R"({"b":[1,2.5]})"));
  EXPECT_EQ(objects->messages(messages(R"("{\"b")")), messages(R"("{\"b")"));
  EXPECT_EQ(objects->messages(R"([{"role":"user","content":"a"}])"),
            R"([{"role":"user","content":"a"}])");
  const std::string as_text = messages(R"("{\"b\": 1}")");
  EXPECT_EQ(form_of(file("v31.jinja"))->messages(as_text), as_text);
}

TEST(ServeCallFormHost, RequestsThatDemandCalls) {
  const auto ask = [](const std::string& more) {
    return parse_chat_request(
        R"({"messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":
            {"name":"f","parameters":{"type":"object"}}},{"type":"function","function":
            {"name":"g"}},{"function":{"name":"h","parameters":{}}}],)" +
        more + "}");
  };
  const auto required = ask(R"("tool_choice":"required")");
  ASSERT_TRUE(required.ok()) << required.error().message;
  ASSERT_EQ(required->must_call.size(), 3u);
  EXPECT_EQ(required->must_call[0].schema, R"({"type":"object"})");
  EXPECT_EQ(required->must_call[1].schema, R"({"type":"object","properties":{}})");
  EXPECT_EQ(required->must_call[2].schema, "");
  EXPECT_TRUE(required->parallel_tool_calls);
  const auto named = ask(R"("tool_choice":{"type":"function","function":{"name":"g"}})");
  ASSERT_TRUE(named.ok()) << named.error().message;
  ASSERT_EQ(named->must_call.size(), 1u);
  EXPECT_EQ(named->must_call[0].name, "g");
  EXPECT_FALSE(named->parallel_tool_calls);
  for (const char* free : {R"("tool_choice":"auto")", R"("tool_choice":"none")", R"("n":1)"}) {
    EXPECT_TRUE(ask(free)->must_call.empty());
  }
  const auto message = [&](const std::string& more) { return ask(more).error().message; };
  EXPECT_EQ(message(R"("tool_choice":"any")"),
            "tool_choice: must be auto, none, required or a function, got \"any\"");
  EXPECT_EQ(message(R"("tool_choice":{"type":"allowed_tools"})"),
            "tool_choice.type: must be function, got \"allowed_tools\"");
  EXPECT_EQ(message(R"("tool_choice":{"type":"function"})"),
            "tool_choice.function: must be an object, got null");
  EXPECT_EQ(message(R"("tool_choice":{"function":{"name":"x"}})"),
            "tool_choice: must be auto or none, or of a tool in tools, got an "
            "object");
  const auto tools = [](const std::string& tool) {
    return parse_chat_request(R"({"messages":[{"role":"user","content":"a"}],"tool_choice":)"
                              R"("required","tools":[)" +
                              tool + "]}")
        .error()
        .message;
  };
  EXPECT_EQ(tools(""),
            "tool_choice: must be auto or none, or of a tool in tools, got \"required\"");
  EXPECT_EQ(tools(R"({"function":{"name":"a<b"}})"),
            "tools[0].function.name: must be 1 to 256 bytes without control characters and <, got "
            "\"a<b\"");
  EXPECT_EQ(tools(R"({"function":{"name":"a","parameters":3}})"),
            "tools[0].function.parameters: must be a JSON Schema, got 3");
}

TEST(ServeCallFormHost, ModelsMakeMasks) {
  const auto prepare = [](const std::string& source, const std::string& more,
                          const std::string& parameters = "{}") {
    auto own = model::Tokenizer::load(kSource + "/examples/models/fables");
    EXPECT_TRUE(own.ok());
    const ServedModel model(std::move(*own), template_of(source),
                            {.name = "m", .context = 512, .vocab = 2048, .end_ids = {kEndId}});
    auto asked = parse_chat_request(R"({"messages":[{"role":"user","content":"a"}],"tools":[)"
                                    R"({"function":{"name":"f","parameters":)" +
                                    parameters + "}}]," + more + "}");
    EXPECT_TRUE(asked.ok());
    return model.prepare(std::move(*asked), 1);
  };
  const std::string required = R"("tool_choice":"required")";
  const auto made = prepare(file("v31.jinja"), required);
  ASSERT_TRUE(made.ok()) << made.error().message;
  ASSERT_TRUE(made->requests[0].mask);
  EXPECT_EQ(made->reasoning, examples::Reasoning::kNever);
  EXPECT_FALSE(prepare(file("v31.jinja"), R"("tool_choice":"auto")")->requests[0].mask);
  // Behind a thought.
  auto thinks =
      prepare(file("v31.jinja"), R"("chat_template_kwargs":{"thinking":true},)" + required);
  ASSERT_TRUE(thinks.ok()) << thinks.error().message;
  std::vector<uint32_t> bits(64);
  EXPECT_FALSE(thinks->requests[0].mask(std::vector<uint32_t>{300}, bits));
  EXPECT_TRUE(thinks->requests[0].mask(
      std::vector<uint32_t>{300, *tokenizer().token_to_id("</think>")}, bits));
  const auto plain = prepare("{{ messages[0].content }}", required);
  EXPECT_EQ(plain.error().message,
            "tool_choice: must be auto or none: the chat template writes calls in no form known "
            "here");
  EXPECT_EQ(plain.error().http, 400u);
  const auto schema = prepare(file("v31.jinja"), required, R"({"not":{}})");
  EXPECT_TRUE(schema.error().message.starts_with("tools[0].function.parameters: json_schema: #"))
      << schema.error().message;
  EXPECT_EQ(schema.error().param, "tools");
}

}  // namespace
}  // namespace hadal::serve
