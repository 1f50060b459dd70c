// hadal-chat's session over a stand-in that answers: turns, commands, files, what is kept of an
// answer and what is said.
#include <gtest/gtest.h>

#include <map>

#include "chat/session.h"
#include "support/chat.h"

namespace hadal::chat {
namespace {

using nlohmann::json;
using Texts = std::vector<std::string>;

// Answers what it was told to, piece by piece.
class Script : public Answerer {
 public:
  Texts pieces = {"He", "llo"};
  AnswerEnd end = AnswerEnd::kStop;
  Status status;
  std::map<size_t, examples::ReasoningMark> marks;  // behind pieces
  AnswerFigures figures{.prompt_tokens = 10,
                        .reused_tokens = 4,
                        .prefilled_tokens = 6,
                        .generated_tokens = 3,
                        .first_token_seconds = 0.5,
                        .decode_seconds = 0.25};
  Texts prompts;
  std::vector<uint64_t> seeds;

  [[nodiscard]] uint32_t context() const override { return 100; }
  [[nodiscard]] bool speculates() const override { return false; }
  Result<AnswerResult> answer(const Prompt& prompt, const Settings&, uint64_t seed,
                              const std::function<bool(const AnswerPiece&)>& on_piece) override {
    prompts.push_back(prompt.text);
    seeds.push_back(seed);
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (!on_piece({pieces[i], marks.contains(i) ? marks[i] : examples::ReasoningMark::kNone})) {
        return AnswerResult{AnswerEnd::kInterrupted, figures};
      }
    }
    if (!status.ok()) return status;
    return AnswerResult{end, figures};
  }
};

class ChatSessionHost : public ::testing::Test {
 protected:
  void use(const std::string& name) {
    talk = conversation(name);
    printer = Printer({}, [this](std::string_view text) { return out += text, writes; });
    SessionHost host;
    host.show = [this](std::string_view text) { shown += text; };
    host.notice = [this](std::string_view text) { notices += text; };
    host.figures = [this](std::string_view text) { lines += text; };
    host.error = [this](std::string_view text) { errors += std::string(text) + "\n"; };
    host.read = [this](const std::string& file) -> Result<std::string> {
      if (files.contains(file)) return files[file];
      return Status(Errc::kIo, file + ": cannot be read");
    };
    host.write = [this](const std::string& file, std::string_view text) {
      files[file] = text;
      return Status();
    };
    host.exists = [this](const std::string& file) { return files.contains(file); };
    host.random = [this] { return ++random; };
    session.emplace(talk, settings, script, printer, std::move(host));
  }
  Session::Next take(const std::string& text, bool literal = false) {
    return session->take({text, literal});
  }

  Conversation talk = conversation("");
  Settings settings;
  Script script;
  Printer printer{{}, nullptr};
  std::string out, shown, notices, lines, errors;
  std::map<std::string, std::string> files;
  uint64_t random = 0;
  bool writes = true;
  std::optional<Session> session;
};

TEST_F(ChatSessionHost, TurnsAndTheirFigures) {
  use("v3");
  EXPECT_EQ(take("Q"), Session::Next::kGoOn);
  EXPECT_EQ(out, "Hello\n");
  EXPECT_EQ(lines,
            "prompt 10 (4 reused, 6 prefilled), first token 0.50 s, answer 3 tokens, "
            "8.0/s\n");
  (void)take("//R");
  EXPECT_EQ(script.prompts.at(1), std::string("<b>") + kUser + "Q" + kAssistant + "Hello" + kEnd +
                                      kUser + "/R" + kAssistant);
  (void)take("/stats");
  EXPECT_NE(shown.find("all 2: prompts 20 tokens (8 reused, 12 prefilled), answers 6 tokens"),
            std::string::npos)
      << shown;
  (void)take("/stats off");
  lines.clear();
  (void)take("more");
  EXPECT_EQ(lines, "");
  EXPECT_EQ(take("/quit"), Session::Next::kLeave);
  EXPECT_EQ(errors, "");
  EXPECT_FALSE(session->failed());
}

TEST_F(ChatSessionHost, ReasoningIsKeptApart) {
  use("r1");
  script.pieces = {"hm</th", "ink>\n\nHel", "lo"};
  (void)take("Q");
  EXPECT_EQ(out, "<think>\nhm\n</think>\nHello\n");
  (void)take("/save f");
  EXPECT_EQ(json::parse(files["f"])["messages"][1],
            (json{{"role", "assistant"}, {"content", "Hello"}, {"reasoning_content", "hm"}}));
  (void)take("R");
  EXPECT_EQ(script.prompts.at(1), std::string("<b>") + kUser + "Q" + kAssistant + "Hello" + kEnd +
                                      kUser + "R" + kAssistant + "<think>\n");
  (void)take("/think on");
  EXPECT_EQ(errors, "");
  (void)take("/think off");
  EXPECT_NE(errors.find("always thinks"), std::string::npos);
  script.pieces = {"hm", "", "Hi"};  // a special token ends it
  script.marks[1] = examples::ReasoningMark::kEnd;
  out.clear();
  (void)take("R");
  EXPECT_EQ(out, "<think>\nhm\n</think>\nHi\n");
}

TEST_F(ChatSessionHost, ReasoningThatTheModelOpens) {
  use("v3");
  script.pieces = {"\n<th", "ink>\nhm\n</think>", "\n\nHel", "lo"};
  (void)take("Q");
  EXPECT_EQ(out, "<think>\nhm\n</think>\nHello\n");
  (void)take("/save f");
  EXPECT_EQ(json::parse(files["f"])["messages"][1],
            (json{{"role", "assistant"}, {"content", "Hello"}, {"reasoning_content", "hm\n"}}));
  script.pieces = {"", "hm", "", "Hi"};  // special tokens
  script.marks = {{0, examples::ReasoningMark::kBegin}, {2, examples::ReasoningMark::kEnd}};
  out.clear();
  (void)take("R");
  EXPECT_EQ(out, "<think>\nhm\n</think>\nHi\n");
  use("");  // without a template it is text
  script.pieces = {"<think>hm</think>", "Hi"};
  script.marks.clear();
  out.clear();
  (void)take("Q");
  EXPECT_EQ(out, "<think>hm</think>Hi\n");
}

TEST_F(ChatSessionHost, ThinkingIsSwitchedWhereTheTemplateCan) {
  use("v31");
  (void)take("/think on");
  (void)take("Q");
  EXPECT_TRUE(script.prompts[0].ends_with("<think>"));
  (void)take("/think off");
  (void)take("Q");
  EXPECT_TRUE(script.prompts[1].ends_with("</think>"));
  EXPECT_EQ(errors, "");
  (void)take("/think maybe");
  EXPECT_NE(errors.find("must be on or off, got 'maybe'"), std::string::npos);
  use("v3");
  (void)take("/think on");
  EXPECT_NE(errors.find("knows no thinking"), std::string::npos);
}

TEST_F(ChatSessionHost, AnInterruptedAnswerStays) {
  use("v3");
  script.end = AnswerEnd::kInterrupted;
  (void)take("Q");
  EXPECT_EQ(out, "Hello\n");
  script.end = AnswerEnd::kStop;
  (void)take("R");
  EXPECT_NE(script.prompts[1].find(std::string(kAssistant) + "Hello" + kEnd), std::string::npos);
  // One of which nothing came is as if it had not been asked.
  const std::string before = talk.save();
  script.pieces = {}, script.end = AnswerEnd::kInterrupted;
  (void)take("S");
  EXPECT_EQ(talk.save(), before);
  (void)take("/regenerate");
  EXPECT_EQ(talk.save(), before);
  EXPECT_FALSE(session->failed());
}

TEST_F(ChatSessionHost, AFailedAnswerChangesNothing) {
  use("v3");
  (void)take("Q");
  const std::string before = talk.save();
  script.status = {Errc::kInvalidArgument, "too long"};
  (void)take("R");
  EXPECT_EQ(talk.save(), before);
  EXPECT_EQ(errors, "too long\n");
  EXPECT_TRUE(session->failed());
  script.status = {};
  (void)take("S");
  EXPECT_NE(script.prompts.back().find("S"), std::string::npos);
  EXPECT_EQ(script.prompts.back().find("R"), std::string::npos);
  (void)take("bad \xFF");
  EXPECT_NE(errors.find("input: must be UTF-8, got another byte at offset 4"), std::string::npos);
}

TEST_F(ChatSessionHost, TheContextsEndIsSaid) {
  use("v3");
  script.figures.prompt_tokens = 84, script.figures.generated_tokens = 3;
  (void)take("Q");
  EXPECT_EQ(notices, "");
  script.figures.generated_tokens = 5;
  (void)take("Q");
  EXPECT_NE(notices.find("nearly full, 89 of 100 tokens: /reset"), std::string::npos) << notices;
  script.end = AnswerEnd::kContext;
  (void)take("Q");
  EXPECT_NE(notices.find("context of 100 tokens is full"), std::string::npos) << notices;
}

TEST_F(ChatSessionHost, CommandsChangeTheConversation) {
  use("v3");
  (void)take("/undo");
  (void)take("/regenerate");
  EXPECT_EQ(std::count(errors.begin(), errors.end(), '\n'), 2);
  errors.clear();
  (void)take("/system Be brief.");
  (void)take("Q");
  (void)take("/regenerate");
  EXPECT_EQ(script.prompts[0], std::string("<b>Be brief.") + kUser + "Q" + kAssistant);
  EXPECT_EQ(script.prompts[1], script.prompts[0]);
  EXPECT_NE(script.seeds[1], script.seeds[0]);
  (void)take("/set seed 7");
  (void)take("/retry");
  (void)take("/regenerate");
  EXPECT_EQ(script.seeds[2], 7u);
  EXPECT_EQ(script.seeds[3], 7u);
  (void)take("/reset");
  (void)take("R");
  EXPECT_EQ(script.prompts[4], std::string("<b>Be brief.") + kUser + "R" + kAssistant);
  (void)take("/undo");
  (void)take("/system \"\"");
  (void)take("S");
  EXPECT_EQ(script.prompts[5], std::string("<b>") + kUser + "S" + kAssistant);
  (void)take("/system");
  EXPECT_NE(shown.find("there is no system message"), std::string::npos);
  (void)take("/help");
  EXPECT_NE(shown.find("/regenerate"), std::string::npos);
  EXPECT_EQ(errors, "");
  (void)take("/nothing\033[2J at all");
  EXPECT_EQ(errors.find('\033'), std::string::npos);
  EXPECT_NE(errors.find("/nothing^[[2J: must be a command"), std::string::npos) << errors;
  (void)take("/help", /*literal=*/true);
  EXPECT_NE(script.prompts.back().find("/help"), std::string::npos);
}

TEST_F(ChatSessionHost, SettingsAreNamedAndChecked) {
  use("v3");
  for (const char* text :
       {"/set temperature 0.25", "/set top-p 0.5", "/set top_k=40", "/set min_p 0.1",
        "/set max_tokens 12", "/set presence_penalty -1.5", "/set seed 18446744073709551615"}) {
    (void)take(text);
  }
  EXPECT_EQ(errors, "");
  EXPECT_EQ(settings.sampling.temperature, 0.25f);
  EXPECT_EQ(settings.sampling.top_p, 0.5f);
  EXPECT_EQ(settings.sampling.top_k, 40u);
  EXPECT_EQ(settings.sampling.min_p, 0.1f);
  EXPECT_EQ(settings.sampling.presence_penalty, -1.5f);
  EXPECT_EQ(settings.max_tokens, 12u);
  EXPECT_EQ(settings.seed, ~uint64_t{0});
  (void)take("/set");
  EXPECT_NE(shown.find("temperature         0.25\n"), std::string::npos) << shown;
  (void)take("/set seed random");
  EXPECT_FALSE(settings.seed.has_value());
  for (const char* text : {"/set heat 1", "/set temperature", "/set temperature hot",
                           "/set temperature -1", "/set top_k 1.5", "/set top_p 2",
                           "/set seed 18446744073709551616", "/set temperature nan"}) {
    errors.clear();
    (void)take(text);
    EXPECT_NE(errors, "") << text;
  }
  EXPECT_EQ(settings.sampling.temperature, 0.25f);
  EXPECT_EQ(settings.sampling.top_p, 0.5f);
}

TEST_F(ChatSessionHost, FilesGoThereAndBack) {
  use("v31");
  files["weights"] = "not a conversation";
  (void)take("Q");
  (void)take("/save weights");
  EXPECT_EQ(files["weights"], "not a conversation");
  EXPECT_NE(errors.find("must be new or a conversation"), std::string::npos) << errors;
  errors.clear();
  (void)take("/save a");
  (void)take("R");
  (void)take("/save a");  // over its own
  const std::string saved = files["a"];
  (void)take("/reset");
  EXPECT_EQ(talk.questions(), 0u);
  (void)take("/load a");
  EXPECT_EQ(talk.save(), saved);
  EXPECT_EQ(errors, "");
  (void)take("/load missing");
  EXPECT_EQ(errors, "/load: missing: cannot be read\n");
  (void)take("/load weights");
  EXPECT_NE(errors.find("/load: weights: text must be valid JSON"), std::string::npos);
  (void)take("/load");
  (void)take("/save");
  EXPECT_EQ(talk.save(), saved);
}

TEST_F(ChatSessionHost, ItEndsWithTheDevice) {
  use("v3");
  script.status = {Errc::kDeviceLost, "lost"};
  EXPECT_EQ(take("Q"), Session::Next::kFailed);
  EXPECT_EQ(errors, "lost\n");
}

TEST_F(ChatSessionHost, ItEndsWhenNobodyReads) {
  use("v3");
  writes = false;
  EXPECT_EQ(take("Q"), Session::Next::kFailed);
  EXPECT_EQ(out, "He");
}

}  // namespace
}  // namespace hadal::chat
