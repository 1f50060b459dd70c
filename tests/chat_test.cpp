// Parts of hadal-chat: inputs, commands, what is printed, and the conversation with templates of
// the forms of V3, R1 and V3.1.
#include <gtest/gtest.h>

#include <map>

#include "chat/command.h"
#include "chat/printer.h"
#include "support/chat.h"

namespace hadal::chat {
namespace {

using examples::Reasoning;
using nlohmann::json;

std::string prompt_of(const Conversation& c) {
  const Result<Prompt> prompt = c.prompt();
  EXPECT_TRUE(prompt.ok()) << prompt.status().message();
  return prompt.ok() ? prompt->text : "";
}

// The inputs that these lines make, "L:" in front of literal ones, and what is left open.
std::vector<std::string> inputs_of(const std::vector<std::string>& lines) {
  InputAssembler assembler;
  std::vector<std::string> inputs;
  const auto add = [&](const std::optional<Input>& input) {
    if (input) inputs.push_back((input->literal ? "L:" : "") + input->text);
  };
  for (const std::string& line : lines) add(assembler.push(line));
  if (assembler.in_block()) inputs.emplace_back("(open)");
  add(assembler.finish());
  return inputs;
}

using Texts = std::vector<std::string>;

TEST(ChatInputHost, LinesBackslashesAndBlocks) {
  EXPECT_EQ(inputs_of({"one", "", "  \t", "two\r"}), (Texts{"one", "two"}));
  EXPECT_EQ(inputs_of({"a\\", "b\\", "c", "d"}), (Texts{"a\nb\nc", "d"}));
  EXPECT_EQ(inputs_of({"a\\", "", "b"}), (Texts{"a\n", "b"}));
  EXPECT_EQ(inputs_of({"\\", "a"}), (Texts{"\na"}));
  EXPECT_EQ(inputs_of({"last\\"}), (Texts{"last"}));
  EXPECT_EQ(inputs_of({"\"\"\"", "a\\", "", "/b", "\"\"\"", "c"}), (Texts{"L:a\\\n\n/b", "c"}));
  EXPECT_EQ(inputs_of({"\"\"\"a", "b\"\"\""}), (Texts{"L:a\nb"}));
  EXPECT_EQ(inputs_of({"\"\"\"", "", "a\"\"\""}), (Texts{"L:\na"}));
  EXPECT_EQ(inputs_of({"\"\"\"/one line\"\"\""}), (Texts{"L:/one line"}));
  EXPECT_EQ(inputs_of({"\"\"\"\"\"\"", "\"\"\"", "\"\"\"", "a"}), (Texts{"a"}));
  EXPECT_EQ(inputs_of({"say \"\"\"x\"\"\" now"}), (Texts{"say \"\"\"x\"\"\" now"}));
  EXPECT_EQ(inputs_of({"/system \"\"\"", "a", "b\"\"\""}), (Texts{"/system a\nb"}));
  EXPECT_EQ(inputs_of({"//system \"\"\"x"}), (Texts{"//system \"\"\"x"}));
  EXPECT_EQ(inputs_of({"\"\"\"", "a"}), (Texts{"(open)"}));
  InputAssembler assembler;
  EXPECT_FALSE(assembler.push("\"\"\"a"));
  EXPECT_TRUE(assembler.pending());
  assembler.clear();
  EXPECT_FALSE(assembler.pending());
  EXPECT_EQ(assembler.push("b")->text, "b");
}

TEST(ChatCommandHost, WordsArgumentsAndSlashes) {
  const auto parse = [](const std::string& text, bool literal = false) {
    return parse_command({text, literal});
  };
  const std::map<std::string, CommandKind> words = {
      {"/help", CommandKind::kHelp},   {"/?", CommandKind::kHelp},
      {"/reset", CommandKind::kReset}, {"/clear", CommandKind::kReset},
      {"/undo", CommandKind::kUndo},   {"/regenerate", CommandKind::kRegenerate},
      {"/quit", CommandKind::kQuit},   {"/exit", CommandKind::kQuit},
      {"/set", CommandKind::kSet},     {"/stats", CommandKind::kStats},
      {"/save", CommandKind::kSave},   {"/load", CommandKind::kLoad},
      {"/think", CommandKind::kThink}, {"/system", CommandKind::kSystem},
      {"/", CommandKind::kUnknown},    {"/helpx", CommandKind::kUnknown},
      {"/Help", CommandKind::kUnknown}};
  for (const auto& [word, kind] : words) EXPECT_EQ(parse(word).kind, kind) << word;
  EXPECT_EQ(parse("/system  You are\nbrief. \n").argument, "You are\nbrief.");
  EXPECT_EQ(parse("/usr/bin/env what").argument, "/usr/bin/env");
  EXPECT_EQ(parse("//etc").argument, "/etc");
  EXPECT_EQ(parse("//etc").kind, CommandKind::kMessage);
  EXPECT_EQ(parse(" /help").kind, CommandKind::kMessage);
  EXPECT_EQ(parse("/help", true).argument, "/help");
  EXPECT_EQ(parse("/help", true).kind, CommandKind::kMessage);
  for (const auto& [word, kind] : words) {
    const bool said = kind == CommandKind::kUnknown || word == "/?" || word == "/clear" ||
                      word == "/exit" || help_text().find("  " + word + " ") != std::string::npos;
    EXPECT_TRUE(said) << word;
  }
  EXPECT_EQ(complete_command("/re"), (Texts{"/regenerate", "/retry", "/reset"}));
  EXPECT_EQ(complete_command("/he"), (Texts{"/help"}));
  EXPECT_TRUE(complete_command("he").empty());
}

std::string printed(PrinterOptions options,
                    const std::vector<std::pair<char, std::string>>& pieces) {
  std::string out;
  Printer printer(options, [&](std::string_view text) { return out += text, true; });
  for (const auto& [part, text] : pieces) {
    part == 'r' ? printer.reasoning(text) : printer.answer(text);
  }
  printer.end();
  return out;
}

TEST(ChatPrinterHost, ReasoningStandsApart) {
  EXPECT_EQ(printed({}, {{'a', "Hi"}, {'a', "\n\nyou"}}), "Hi\n\nyou\n");
  EXPECT_EQ(printed({}, {{'a', "Hi\n"}}), "Hi\n");
  EXPECT_EQ(printed({}, {}), "\n");
  EXPECT_EQ(printed({}, {{'r', "\n"}, {'r', "hm"}, {'r', "\n"}, {'a', "\n"}, {'a', "\nHi"}}),
            "<think>\nhm\n</think>\nHi\n");
  EXPECT_EQ(printed({}, {{'r', "hm"}}), "<think>\nhm\n</think>\n");
  EXPECT_EQ(printed({}, {{'r', ""}, {'a', "Hi"}}), "Hi\n");
  EXPECT_EQ(printed({true, true}, {{'r', "hm"}, {'a', "\n\nHi"}}), "\033[2mhm\n\033[0m\nHi\n");
  EXPECT_EQ(printed({true, true}, {{'a', "Hi"}}), "Hi\n");
}

TEST(ChatPrinterHost, ATerminalGetsNoControlCharacters) {
  std::string all;
  for (int c = 0; c < 0x20; ++c) all += char(c);
  all += "\x7F\u0080\u009B31m\u009F\u00A0é";
  const std::string seen = visible_controls(all);
  EXPECT_EQ(seen,
            "^@^A^B^C^D^E^F^G^H\t\n^K^L^M^N^O^P^Q^R^S^T^U^V^W^X^Y^Z^[^\\^]^^^_^?"
            "\\u0080\\u009B31m\\u009F\u00A0é");
  EXPECT_EQ(printed({true, true}, {{'r', "\033[2J"}, {'a', "\033]0;x\a"}}),
            "\033[2m^[[2J\n\033[0m\n^[]0;x^G\n");
  EXPECT_EQ(printed({false, false}, {{'a', "\033[2J"}}), "\033[2J\n");  // bytes as they are
}

TEST(ChatPrinterHost, NothingIsWrittenBehindAFailure) {
  int calls = 0;
  Printer printer({}, [&](std::string_view) { return ++calls < 2; });
  printer.answer("a");
  EXPECT_FALSE(printer.failed());
  printer.answer("b");
  EXPECT_TRUE(printer.failed());
  printer.answer("c");
  printer.end();
  EXPECT_EQ(calls, 2);
}

TEST(ChatConversationHost, PromptsOfTheThreeTemplates) {
  for (const auto& [name, header, past] :
       {std::tuple{"v3", "", ""}, {"r1", "<think>\n", ""}, {"v31", "</think>", "</think>"}}) {
    SCOPED_TRACE(name);
    Conversation c = conversation(name);
    c.set_system("S");
    c.ask("Q");
    EXPECT_EQ(prompt_of(c), std::string("<b>S") + kUser + "Q" + kAssistant + header);
    c.answer("A", "hm");
    c.ask("R");
    EXPECT_EQ(prompt_of(c), std::string("<b>S") + kUser + "Q" + kAssistant + past + "A" + kEnd +
                                kUser + "R" + kAssistant + header);
    EXPECT_EQ(c.prompt()->reasoning,
              std::string(name) == "r1" ? Reasoning::kOpen : Reasoning::kPossible);
    EXPECT_FALSE(c.prompt()->add_special);
    ASSERT_TRUE(c.undo());
    c.set_system("");
    ASSERT_TRUE(c.take_answer_back());
    EXPECT_EQ(prompt_of(c), std::string("<b>") + kUser + "Q" + kAssistant + header);
    ASSERT_TRUE(c.undo());
    EXPECT_FALSE(c.undo());
    EXPECT_FALSE(c.take_answer_back());
  }
}

TEST(ChatConversationHost, ThinkingIsTheTemplates) {
  EXPECT_EQ(conversation("").thinking(), Thinking::kNever);
  EXPECT_EQ(conversation("v3").thinking(), Thinking::kNever);
  EXPECT_EQ(conversation("r1").thinking(), Thinking::kAlways);
  EXPECT_TRUE(conversation("r1").thinks());
  Conversation c = conversation("v31");
  EXPECT_EQ(c.thinking(), Thinking::kSwitched);
  EXPECT_FALSE(c.thinks());
  c.ask("Q");
  c.set_thinks(true);
  EXPECT_EQ(prompt_of(c), std::string("<b>") + kUser + "Q" + kAssistant + "<think>");
  EXPECT_EQ(c.prompt()->reasoning, Reasoning::kOpen);
  c.answer("A", "hm");
  c.ask("R");  // earlier reasoning is gone
  EXPECT_EQ(prompt_of(c), std::string("<b>") + kUser + "Q" + kAssistant + "</think>A" + kEnd +
                              kUser + "R" + kAssistant + "<think>");
  c.reset();
  EXPECT_EQ(c.questions(), 0u);
  // A template whose switch has the other name, and which thinks by itself.
  auto other = model::ChatTemplate::parse(
      "{{ messages[-1].content }}{% if enable_thinking is not defined or enable_thinking %}<think>"
      "{% endif %}",
      "other", "", "");
  ASSERT_TRUE(other.ok());
  Conversation d{std::move(*other)};
  EXPECT_EQ(d.thinking(), Thinking::kSwitched);
  EXPECT_TRUE(d.thinks());
  d.ask("Q");
  EXPECT_EQ(prompt_of(d), "Q<think>");
  d.set_thinks(false);
  EXPECT_EQ(prompt_of(d), "Q");
}

TEST(ChatConversationHost, WithoutATemplateItIsOneText) {
  Conversation c = conversation("");
  c.ask("Once upon");
  EXPECT_EQ(prompt_of(c), "Once upon");
  EXPECT_EQ(c.prompt()->reasoning, Reasoning::kNever);
  EXPECT_TRUE(c.prompt()->add_special);
  c.answer(" a time", "");
  c.ask("there was");
  EXPECT_EQ(prompt_of(c), "Once upon a time there was");
  c.answer(" a fox.\n", "");
  c.ask("It");
  EXPECT_EQ(prompt_of(c), "Once upon a time there was a fox.\nIt");
  EXPECT_EQ(json::parse(c.save()), (json{{"prompt", "Once upon a time there was a fox.\nIt"}}));
  Conversation d = conversation("");
  ASSERT_TRUE(d.load(c.save()).ok());
  EXPECT_EQ(prompt_of(d), prompt_of(c));
  ASSERT_TRUE(c.undo());
  EXPECT_EQ(prompt_of(c), "Once upon a time there was a fox.\n");
}

TEST(ChatConversationHost, SavedAndLoadedItIsTheSame) {
  Conversation c = conversation("v31");
  c.set_system("S\"\\\n");
  c.ask("Qü");
  c.set_thinks(true);
  c.answer("A", "hm");
  const json saved = json::parse(c.save());
  EXPECT_EQ(saved["messages"],
            json::parse(R"([{"role":"system","content":"S\"\\\n"},{"role":"user","content":"Qü"},
                {"role":"assistant","content":"A","reasoning_content":"hm"}])"));
  EXPECT_EQ(saved["chat_template_kwargs"]["thinking"], true);
  Conversation d = conversation("v31");
  ASSERT_TRUE(d.load(c.save()).ok());
  EXPECT_TRUE(d.thinks());
  EXPECT_EQ(d.save(), c.save());
  EXPECT_EQ(d.system(), "S\"\\\n");
  // What others write: a list, parts, calls of tools.
  ASSERT_TRUE(d.load(R"([{"role":"user","content":[{"type":"text","text":"a"},
      {"type":"text","text":"b"}]},{"role":"assistant","content":null,"tool_calls":[{"type":
      "function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","content":"7"}])")
                  .ok());
  EXPECT_EQ(prompt_of(d), std::string("<b>") + kUser + "a\nb" + kAssistant +
                              "</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}"
                              "<｜tool▁call▁end｜><｜tool▁calls▁end｜>" +
                              kEnd + "<｜tool▁output▁begin｜>7<｜tool▁output▁end｜>");
}

TEST(ChatConversationHost, ARefusedFileChangesNothing) {
  Conversation c = conversation("v31");
  c.ask("Q");
  const std::string before = c.save();
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "text must be valid JSON, got something else at byte "},
      {"{\"messages\":[}", "text must be valid JSON, got something else at byte "},
      {"\"\xFF\"", "text must be UTF-8, got ill-formed bytes at byte "},
      {"7", "must be an object or a list"},
      {"{\"prompt\":\"x\"}", "messages: must be a list"},
      {"{\"messages\":{}}", "messages: must be a list"},
      {"[7]", "messages[0]: must be an object"},
      {R"([{"content":"x"}])", "messages[0].role: must be a string"},
      {R"([{"role":7,"content":"x"}])", "messages[0].role: must be a string"},
      {R"([{"role":"user"}])", "messages[0].content: must be a string"},
      {R"([{"role":"user","content":null}])", "messages[0].content: must be a string"},
      {R"([{"role":"user","content":[{"type":"image_url"}]}])",
       "messages[0].content[0]: must be a text part"},
      {R"([{"role":"user","content":"x","tool_calls":7}])", "messages[0].tool_calls"},
      {R"([{"role":"assistant","content":"x","tool_calls":[7]}])", "v31: line"},
      {std::string(64, '[') + std::string(64, ']'), "messages[0]: must be an object"},
      {std::string(65, '[') + std::string(65, ']'), "nesting must be at most 64 levels, got more"},
      {std::string(1000000, '['), "nesting must be at most 64 levels, got more"},
      {"\"" + std::string(100, '[') + "\\\"\"", "must be an object or a list"}};
  for (const auto& [text, part] : cases) {
    const Status status = c.load(text);
    EXPECT_FALSE(status.ok()) << text;
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
    EXPECT_EQ(c.save(), before);
  }
  Conversation plain = conversation("");
  EXPECT_FALSE(plain.load(before).ok());
}

}  // namespace
}  // namespace hadal::chat
