// Chat templates: the same text as jinja2 (tests/tools/render_templates.py), files of a checkpoint,
// and templates that mean harm.
#include "hadal/model/chat_template.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "support/damaged_model.h"
#include "support/fuzz.h"
#include "support/golden.h"

namespace hadal::model {
namespace {

using hadal::testing::FuzzRounds;
using hadal::testing::read_file;
using hadal::testing::TempDir;
using hadal::testing::write_file;
using Json = nlohmann::ordered_json;

const Json& golden() {
  static const Json json = Json::parse(read_file(test::golden_dir() / "chat_templates.json"));
  return json;
}

Result<std::string> render(std::string_view source, const ChatInput& input = {}) {
  HADAL_ASSIGN(const ChatTemplate chat, ChatTemplate::parse(source, "t", "<bos>", "<eos>"));
  return chat.render(input);
}

// What a template without a text in the golden file must do.
void expect(const Result<std::string>& got, const Json& text, const std::string& what) {
  if (text.is_null()) {
    EXPECT_FALSE(got.ok()) << what << "\n" << (got.ok() ? *got : "");
    return;
  }
  ASSERT_TRUE(got.ok()) << what << "\n" << got.status().message();
  EXPECT_EQ(*got, text.get<std::string>()) << what;
}

TEST(ChatTemplate, TheLanguageIsJinjas) {
  ChatInput input;
  input.variables = golden()["values"].dump();
  ASSERT_GT(golden()["cases"].size(), 400u);
  for (const Json& c : golden()["cases"]) {
    const std::string source = c["template"];
    expect(render(source, input), c["text"], source);
  }
}

TEST(ChatTemplate, ConversationsInTheFormsOfV3R1AndV31) {
  ASSERT_EQ(golden()["chats"].size(), 100u);
  for (const Json& c : golden()["chats"]) {
    const std::string file = c["template"];
    const auto chat = ChatTemplate::parse(
        read_file(std::filesystem::path(HADAL_SOURCE_DIR) / "tests/chat_templates" / file), file,
        "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>");
    ASSERT_TRUE(chat.ok()) << chat.status().message();
    ChatInput input;
    input.messages = c["messages"].dump(), input.variables = c["variables"].dump();
    if (!c["tools"].is_null()) input.tools = c["tools"].dump();
    input.add_generation_prompt = c["add_generation_prompt"];
    expect(chat->render(input), c["text"], file + " " + input.messages);
  }
}

// The forms themselves, from the models' documentation, so that a wrong golden cannot agree with a
// wrong template.
TEST(ChatTemplate, TheThinkingSwitchOfV31) {
  const auto chat = ChatTemplate::parse(
      read_file(std::filesystem::path(HADAL_SOURCE_DIR) / "tests/chat_templates" / "v31.jinja"),
      "v31", "<B>", "<E>");
  ASSERT_TRUE(chat.ok());
  ChatInput input;
  input.messages = R"([{"role":"system","content":"S"},{"role":"user","content":"Q"},
      {"role":"assistant","content":"hm</think>A"},{"role":"user","content":"R"}])";
  EXPECT_EQ(*chat->render(input),
            "<B>S<｜User｜>Q<｜Assistant｜></"
            "think>A<｜end▁of▁sentence｜><｜User｜>R<｜Assistant｜></think>");
  input.variables = R"({"thinking": true})";
  EXPECT_EQ(*chat->render(input),
            "<B>S<｜User｜>Q<｜Assistant｜></"
            "think>A<｜end▁of▁sentence｜><｜User｜>R<｜Assistant｜><think>");
  input.add_generation_prompt = false;
  EXPECT_EQ(*chat->render(input),
            "<B>S<｜User｜>Q<｜Assistant｜></think>A<｜end▁of▁sentence｜><｜User｜>R");
}

TEST(ChatTemplate, ErrorsNameTheLine) {
  const auto message = [](std::string_view source, const ChatInput& input = {}) {
    const auto got = render(source, input);
    return got.ok() ? "ok: " + *got : got.status().message();
  };
  EXPECT_EQ(message("a\n{{ x"), "t: line 2: a tag does not end");
  EXPECT_EQ(message("\n\n{% include 'x' %}"),
            "t: line 3: the tag 'include' is not implemented here");
  EXPECT_EQ(message("{{ 1 | shout }}"), "t: line 1: the filter 'shout' is not implemented here");
  EXPECT_EQ(message("{{ 1 is loud }}"), "t: line 1: the test 'loud' is not implemented here");
  EXPECT_EQ(message("{% if true %}"), "t: line 1: the block 'if' does not end");
  EXPECT_EQ(message("\n{{ raise_exception('roles must alternate') }}"),
            "t: line 2: roles must alternate");
  EXPECT_EQ(message("{{ a.b }}"), "t: line 1: 'a' is undefined, so it has no 'b'");
  EXPECT_EQ(message("{{ 'a' + 1 }}"), "t: line 1: '+' is not for values of type str and int");
  ChatInput input;
  input.messages = "{}";
  EXPECT_EQ(message("x", input), "chat: messages must be an array, got object");
  input.messages = "[1]";
  EXPECT_EQ(message("x", input), "chat: messages must be objects");
  input.messages = "[", input.tools = "";
  EXPECT_EQ(render("x", input).status().code(), Errc::kInvalidArgument);
  input = {}, input.tools = "{}";
  EXPECT_EQ(message("x", input), "chat: tools must be an array, got object");
  input = {}, input.variables = "[]";
  EXPECT_EQ(message("x", input), "chat: variables must be an object, got array");
}

// Nothing runs forever, overflows the stack or eats the memory.
TEST(ChatTemplate, HostileTemplatesEnd) {
  const auto refused = [](const std::string& source, std::string_view why) {
    const auto got = render(source);
    ASSERT_FALSE(got.ok()) << source.substr(0, 100);
    EXPECT_NE(got.status().message().find(why), std::string::npos) << got.status().message();
  };
  const auto times = [](std::string_view text, size_t count) {
    std::string all;
    for (size_t i = 0; i < count; ++i) all += text;
    return all;
  };
  const std::string m = "{% for i in range(20000) %}";
  refused(m + m + "{% endfor %}{% endfor %}", "runs too long");
  refused("{{ range(10000000) }}", "more than a million");
  refused("{% set ns = namespace(s='ab') %}" + m + "{% set ns.s = ns.s + ns.s %}{% endfor %}",
          "longer than 64 MiB");
  refused("{% set ns = namespace(s=[1]) %}" + m + "{% set ns.s = ns.s + ns.s %}{% endfor %}",
          "more than a million");
  refused("{% set ns = namespace(s=[1]) %}" + m + "{% set ns.s = [ns.s] %}{% endfor %}",
          "nested too deeply");
  refused(
      "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}"
      "{% endfor %}{{ ns.s }}",
      "longer than 64 MiB");
  refused("{% set ns = namespace() %}{% set ns.x = ns %}", "cannot hold a namespace");
  refused("{% set ns = namespace() %}{% set ns.x = [{'a': ns}] %}", "cannot hold a namespace");
  refused("{{ 'abcdefgh' * 100000000 }}", "longer than 64 MiB");
  refused("{{ 'a' | indent(100000) }}", "width must be");
  refused("{{ 9223372036854775807 + 1 }}", "too large");
  refused("{{ 99999999999999999999 }}", "too large");
  refused("{{ 3 ** 400 }}", "too large");
  refused("{{ 1 % 0 }}{{ 1 // 0 }}", "division by zero");
  refused("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "too deeply");
  refused("{{ " + times("(", 100000) + "1" + times(")", 100000) + " }}", "nested too deeply");
  refused("{{ " + times("-", 100000) + "1 }}", "nested too deeply");
  refused("{{ " + times("not ", 100000) + "1 }}", "nested too deeply");
  refused("{{ 1" + times(" + 1", 100000) + " }}", "too long");
  refused("{{ a" + times(".b", 100000) + " }}", "too long");
  refused("{{ a" + times("|trim", 100000) + " }}", "too long");
  refused(times("{% if a %}", 100000), "nested too deeply");
  EXPECT_EQ(*render("{{ -9223372036854775807 - 1 }}"), "-9223372036854775808");
}

TEST(ChatTemplate, TheFilesOfACheckpoint) {
  TempDir dir;
  EXPECT_EQ(ChatTemplate::load(dir.path()).status().code(), Errc::kUnsupported);
  ChatInput input;
  input.messages = R"([{"role":"user","content":"hey"}])";
  const auto loaded = [&] {
    const auto chat = ChatTemplate::load(dir.path());
    if (!chat.ok()) return chat.status().message().substr(dir.path().string().size());
    const auto text = chat->render(input);
    return text.ok() ? *text : text.status().message();
  };
  write_file(dir / "tokenizer_config.json",
             R"({"bos_token": {"content": "<b>"}, "eos_token": "<e>",
                 "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"})");
  EXPECT_EQ(loaded(), "<b>hey<e>");
  write_file(dir / "chat_template.jinja", "J{{ bos_token }}\n");
  EXPECT_EQ(loaded(), "J<b>");
  std::filesystem::remove(dir / "chat_template.jinja");
  write_file(dir / "tokenizer_config.json",
             R"({"bos_token": null, "chat_template": [{"name": "default", "template": "D"},
                 {"name": "tool_use", "template": "T{{ tools|length }}"}]})");
  EXPECT_EQ(loaded(), "D");
  input.tools = "[{}, {}]";
  EXPECT_EQ(loaded(), "T2");
  write_file(dir / "tokenizer_config.json",
             R"({"chat_template": [{"name": "x", "template": "D"}]})");
  EXPECT_EQ(loaded(),
            "/tokenizer_config.json: chat_template must be a text or have one named 'default'");
  write_file(dir / "tokenizer_config.json", R"({"chat_template": [1]})");
  EXPECT_EQ(loaded(),
            "/tokenizer_config.json: chat_template must hold objects of name and template");
  write_file(dir / "tokenizer_config.json", R"({"chat_template": "{% x %}"})");
  EXPECT_EQ(loaded(),
            "/tokenizer_config.json: chat_template: line 1: the tag 'x' is not implemented here");
  write_file(dir / "chat_template.jinja", std::string((1u << 20) + 1, ' '));
  EXPECT_EQ(loaded(), "/chat_template.jinja: must have at most 1048576 bytes, got 1048577");
  EXPECT_EQ(ChatTemplate::load(test::fables_dir()).status().code(), Errc::kUnsupported);
}

// Pieces of templates in any order: text or an error, never a crash.
TEST(ChatTemplate, FuzzMixedUpTemplates) {
  std::vector<std::string> sources;
  for (const Json& c : golden()["cases"]) sources.push_back(c["template"]);
  ChatInput input;
  input.variables = golden()["values"].dump();
  std::mt19937 random(11);
  int rendered = 0;
  for (FuzzRounds rounds(3000); rounds.next();) {
    std::string source = sources[random() % sources.size()];
    for (size_t n = random() % 4; n > 0 && !source.empty(); --n) {
      const std::string& other = sources[random() % sources.size()];
      const size_t at = random() % source.size(), from = random() % (other.size() + 1);
      switch (random() % 3) {
        case 0: source.insert(at, other.substr(from, random() % 20)); break;
        case 1: source.erase(at, 1 + random() % 5); break;
        default: source[at] = "{}%|.()[]'\"-+*~ \nifx10"[random() % 22]; break;
      }
    }
    const auto got = render(source, input);
    rendered += got.ok();
    ASSERT_EQ(got.ok(), got.status().message().empty());
  }
  EXPECT_GT(rendered, 300);
}

}  // namespace
}  // namespace hadal::model
