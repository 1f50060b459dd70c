// hadal-chat piped: turns, the pages that a turn takes over from the one before, reasoning, files,
// the context's end, exit codes. The model is fables with a chat template beside it.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>

#include "support/child.h"
#include "support/safetensors_writer.h"

namespace hadal::test {
namespace {

namespace fs = std::filesystem;
using hadal::testing::read_file;
using hadal::testing::TempDir;
using hadal::testing::write_file;
using nlohmann::json;

constexpr uint64_t kPage = 64;
const std::string kFables = HADAL_SOURCE_DIR "/examples/models/fables";
const std::string kTemplates = HADAL_SOURCE_DIR "/tests/chat_templates/";

// Fables with a template of this name, for the whole run.
std::string model(const std::string& name) {
  static const TempDir dir;
  const fs::path path = dir / name;
  if (fs::exists(path)) return path.string();
  fs::create_directory(path);
  for (const fs::directory_entry& file : fs::directory_iterator(kFables)) {
    fs::create_symlink(file.path(), path / file.path().filename());
  }
  fs::copy_file(kTemplates + name + ".jinja", path / "chat_template.jinja");
  return path.string();
}

ChildOptions child_options(bool on_device) {
  static const TempDir cache;
  ChildOptions options;
  options.environment = {"XDG_CACHE_HOME=" + cache.path().string(), "LP_NUM_THREADS=0"};
  options.on_device = on_device;
  return options;
}

ChildResult chat(const std::string& model_dir, const std::string& input,
                 const std::vector<std::string>& arguments, bool on_device = true) {
  ChildOptions options = child_options(on_device);
  options.input = input;
  std::vector<std::string> command{HADAL_CHAT, model_dir};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run_child(command, options);
}

struct Figures {
  uint64_t prompt = 0, reused = 0, prefilled = 0, answer = 0;
};

// Of each answer, from its line on standard error.
std::vector<Figures> figures_of(const std::string& errors) {
  static const std::regex line(
      "prompt (\\d+) \\((\\d+) reused, (\\d+) prefilled\\)"
      ", first token [0-9.]+ s, answer (\\d+) tokens");
  std::vector<Figures> all;
  for (std::sregex_iterator it(errors.begin(), errors.end(), line), end; it != end; ++it) {
    all.push_back({std::stoull((*it)[1]), std::stoull((*it)[2]), std::stoull((*it)[3]),
                   std::stoull((*it)[4])});
  }
  return all;
}

std::string words(size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += "the old king rode out " + std::to_string(i) + " ";
  return text;
}

TEST(ProgramsGpu, ChatTurnsTakeThePagesOfEarlierOnesOver) {
  TempDir dir;
  const std::string file = (dir / "c.json").string();
  const ChildResult r =
      chat(model("v31"), words(20) + "\n\nand then?\n/save " + file + "\n/regenerate\nwhy?\n",
           {"--seed", "3", "-n", "40", "--logit-bias", "1=-100"});
  ASSERT_EQ(r.code, 0) << r.errors;
  const std::vector<Figures> turns = figures_of(r.errors);
  ASSERT_EQ(turns.size(), 4u) << r.errors;
  for (const Figures& f : turns) {
    EXPECT_EQ(f.prompt, f.reused + f.prefilled);
    EXPECT_EQ(f.reused % kPage, 0u);
    EXPECT_EQ(f.answer, 40u);
  }
  EXPECT_EQ(turns[0].reused, 0u);
  ASSERT_GT(turns[0].prompt, 2 * kPage);
  // What prefill wrote: the whole pages of the prompt before. Of its own pages a prompt computes
  // at least its last token.
  EXPECT_EQ(turns[1].reused, turns[0].prompt / kPage * kPage);
  EXPECT_GT(turns[1].prompt, turns[0].prompt + turns[0].answer);
  EXPECT_EQ(turns[2].prompt, turns[1].prompt);
  EXPECT_EQ(turns[2].reused, (turns[1].prompt - 1) / kPage * kPage);
  EXPECT_EQ(turns[3].reused, turns[2].prompt / kPage * kPage);

  const json saved = json::parse(read_file(file));
  ASSERT_EQ(saved["messages"].size(), 4u);
  const std::string first = saved["messages"][1]["content"],
                    second = saved["messages"][3]["content"];
  // Asked again with the same seed it says the same.
  EXPECT_TRUE(r.output.starts_with(first + "\n" + second + "\n" + second + "\n")) << r.output;
  // Another process goes on where this one was: the same bits with and without earlier pages.
  const ChildResult again = chat(model("v31"), "/load " + file + "\nwhy?\n",
                                 {"--seed", "3", "-n", "40", "--logit-bias", "1=-100", "--quiet"});
  EXPECT_EQ(again.code, 0);
  EXPECT_EQ(again.errors, "");
  EXPECT_EQ(first + "\n" + second + "\n" + second + "\n" + again.output, r.output);
}

TEST(ProgramsGpu, ChatAnswersAreTheSameWithGuesses) {
  const std::string input = "Hello there\n\"\"\"\n/two\n\nlines\n\"\"\"\nand\\\nthen\n";
  const ChildResult plain = chat(model("v3"), input, {"--seed", "5", "-n", "30"});
  ASSERT_EQ(plain.code, 0) << plain.errors;
  EXPECT_EQ(figures_of(plain.errors).size(), 3u);
  EXPECT_EQ(plain.errors.find("guesses"), std::string::npos);
  const ChildResult r =
      chat(model("v3"), input,
           {"--seed", "5", "-n", "30", "--speculate", "--draft-depth", "2", "--always-draft"});
  EXPECT_EQ(r.output, plain.output);
  std::smatch match;
  ASSERT_TRUE(std::regex_search(r.errors, match, std::regex("guesses (\\d+)/(\\d+)")));
  EXPECT_GT(std::stoul(match[2]), 0u);
  EXPECT_LE(std::stoul(match[1]), std::stoul(match[2]));
}

TEST(ProgramsGpu, ChatShowsReasoningApart) {
  // Nothing that fables says ends the reasoning, so all of it is.
  for (const auto& [name, flag] : {std::pair{"v31", "--think"}, {"r1", "--quiet"}}) {
    const ChildResult r = chat(model(name), "", {"-p", "Hello", "-n", "20", "--quiet", flag});
    EXPECT_EQ(r.code, 0) << r.errors;
    EXPECT_TRUE(r.output.starts_with("<think>\n")) << r.output;
    EXPECT_TRUE(r.output.ends_with("\n</think>\n")) << r.output;
    EXPECT_EQ(r.errors, "");
  }
  const ChildResult r = chat(model("v31"), "", {"-p", "Hello", "-n", "20", "--quiet"});
  EXPECT_EQ(r.code, 0) << r.errors;
  EXPECT_EQ(r.output.find("think>"), std::string::npos);
}

TEST(ProgramsGpu, ChatSaysWhenTheContextIsFull) {
  const ChildResult r = chat(model("v3"), "Hello\nmore\n/reset\nHello\n",
                             {"--context", "128", "--seed", "1", "--logit-bias", "1=-100"});
  EXPECT_EQ(r.code, 2);
  const std::vector<Figures> turns = figures_of(r.errors);
  ASSERT_EQ(turns.size(), 2u) << r.errors;
  EXPECT_EQ(turns[0].prompt + turns[0].answer, 128u);
  EXPECT_NE(r.errors.find("the context of 128 tokens is full"), std::string::npos);
  EXPECT_NE(r.errors.find("hadal-chat: the conversation must be shorter than the context of 128 "
                          "tokens, got "),
            std::string::npos)
      << r.errors;
  const size_t half = r.output.size() / 2;  // the same answer twice, and none between
  EXPECT_EQ(r.output.substr(0, half), r.output.substr(half));
}

TEST(ProgramsGpu, ChatWithoutATemplateContinuesText) {
  const ChildResult r =
      chat(kFables, "Once upon a time\nThe king\n", {"--temperature", "0", "-n", "10"});
  EXPECT_EQ(r.code, 0) << r.errors;
  EXPECT_EQ(r.errors.find("no chat template"), r.errors.rfind("no chat template"));
  EXPECT_NE(r.errors.find("no chat template"), std::string::npos);
  const std::vector<Figures> turns = figures_of(r.errors);
  ASSERT_EQ(turns.size(), 2u);
  EXPECT_GT(turns[1].prompt, turns[0].prompt + turns[0].answer);
  // What hadal-generate says.
  const ChildResult generated = run_child(
      {HADAL_GENERATE, kFables, "Once upon a time", "-n", "10", "--quiet"}, child_options(true));
  ASSERT_EQ(generated.code, 0) << generated.errors;
  EXPECT_TRUE(r.output.starts_with(generated.output)) << r.output;
}

TEST(ProgramsGpu, ChatGoesOnBehindAnErrorAndRemembersIt) {
  TempDir dir;
  write_file(dir / "t.jinja",
             "{% for m in messages %}{% if m.content == 'no' %}"
             "{{ raise_exception('not that') }}{% endif %}{{ m.content }}{% endfor %}");
  const ChildResult r =
      chat(kFables, "/nope\nbad \xff\nno\nHello\n/think on\n/quit\nnever\n",
           {"--chat-template", (dir / "t.jinja").string(), "-n", "5", "--quiet", "--seed", "1"});
  EXPECT_EQ(r.code, 2);
  EXPECT_EQ(std::count(r.errors.begin(), r.errors.end(), '\n'), 4) << r.errors;
  EXPECT_NE(r.errors.find("/nope: must be a command"), std::string::npos);
  EXPECT_NE(r.errors.find("must be UTF-8, got another byte at offset 4"), std::string::npos);
  EXPECT_NE(r.errors.find("not that"), std::string::npos);
  const ChildResult once = chat(kFables, "",
                                {"-p", "Hello", "--chat-template", (dir / "t.jinja").string(), "-n",
                                 "5", "--quiet", "--seed", "1"});
  EXPECT_EQ(once.code, 0);
  EXPECT_EQ(r.output, once.output);
  const ChildResult open = chat(kFables, "\"\"\"\nHello\n", {"--quiet"});
  EXPECT_EQ(open.code, 2);
  EXPECT_EQ(open.output, "");
  EXPECT_NE(open.errors.find("a block must end"), std::string::npos);
}

TEST(ProgramsGpu, ChatAndGenerateTakeWhatTheCheckpointSays) {
  TempDir dir;
  for (const fs::directory_entry& file : fs::directory_iterator(kFables)) {
    fs::create_symlink(file.path(), dir / file.path().filename().string());
  }
  const std::string model_dir = dir.path().string(), prompt = "Once upon a time";
  const auto generated = [&](const std::vector<std::string>& more) {
    std::vector<std::string> command{HADAL_GENERATE, model_dir, prompt,       "-n",
                                     "10",           "--quiet", "--print-ids"};
    command.insert(command.end(), more.begin(), more.end());
    const ChildResult r = run_child(command, child_options(true));
    EXPECT_EQ(r.code, 0) << r.errors;
    std::istringstream words(r.output);
    return std::vector<uint32_t>{std::istream_iterator<uint32_t>(words), {}};
  };
  const std::vector<uint32_t> ids = generated({});
  ASSERT_EQ(ids.size(), 10u);
  const auto count = uint64_t(std::find(ids.begin(), ids.end(), ids[4]) - ids.begin()) + 1;
  write_file(dir / "generation_config.json", json{{"do_sample", false},
                                                  {"top_p", 0.5},
                                                  {"top_k", 40},
                                                  {"max_new_tokens", 8},
                                                  {"eos_token_id", {1, ids[4]}}}
                                                 .dump());
  // Where texts end is the checkpoint's; how hadal-generate draws is its flags'.
  EXPECT_EQ(generated({}), std::vector<uint32_t>(ids.begin(), ids.begin() + ptrdiff_t(count)));
  EXPECT_EQ(generated({"--ignore-eos"}), ids);
  const ChildResult r = chat(model_dir, prompt + "\n/set\n", {"--top-k", "30"});
  EXPECT_EQ(r.code, 0) << r.errors;
  ASSERT_EQ(figures_of(r.errors).size(), 1u);
  EXPECT_EQ(figures_of(r.errors)[0].answer, count);
  for (const char* line : {"  temperature         0\n", "  top_p               0.5\n",
                           "  top_k               30\n", "  max_tokens          8\n"}) {
    EXPECT_NE(r.errors.find(line), std::string::npos) << r.errors;
  }
  const ChildResult own = chat(model_dir, prompt + "\n/set\n",
                               {"--generation-config", "none", "--temperature", "0", "-n", "10"});
  ASSERT_EQ(figures_of(own.errors).size(), 1u);
  EXPECT_EQ(figures_of(own.errors)[0].answer, 10u);
  EXPECT_NE(own.errors.find("  top_p               0.95\n"), std::string::npos) << own.errors;
}

TEST(ProgramsHost, ABadGenerationConfigIsRefused) {
  TempDir dir;
  for (const fs::directory_entry& file : fs::directory_iterator(kFables)) {
    fs::create_symlink(file.path(), dir / file.path().filename().string());
  }
  write_file(dir / "generation_config.json", R"({"top_p": "a"})");
  const std::string part = "generation_config.json: top_p must be a number between 1e-06 and 1";
  const ChildResult talked = chat(dir.path().string(), "Hello\n", {}, /*on_device=*/false);
  const ChildResult generated =
      run_child({HADAL_GENERATE, dir.path().string(), "Hello"}, child_options(false));
  for (const ChildResult& r : {talked, generated}) {
    EXPECT_EQ(r.code, 2);
    EXPECT_EQ(r.output, "");
    EXPECT_EQ(std::count(r.errors.begin(), r.errors.end(), '\n'), 1) << r.errors;
    EXPECT_NE(r.errors.find(part), std::string::npos) << r.errors;
  }
}

TEST(ProgramsHost, ChatRefusesWhatCannotBe) {
  TempDir dir;
  write_file(dir / "bad.jinja", "{% for %}");
  write_file(dir / "latin1", "\xe9");
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--chat-template", (dir / "bad.jinja").string()}, "bad.jinja: line 1"},
      {{"--chat-template", (dir / "none").string()}, "none: cannot be read"},
      {{"--think"}, "--think: the chat template knows no thinking"},
      {{"--no-think", "--chat-template", kTemplates + "r1.jinja"}, "always thinks"},
      {{"--system-file", (dir / "none").string()}, "none: cannot be read"},
      {{"--system-file", (dir / "latin1").string()}, "must be UTF-8"},
      {{"--system", "a", "--system-file", "b"}, "excludes"},
      {{"--temperature", "-1"}, "temperature"},
      {{"--draft-depth", "2"}, "requires"},
      {{"--generation-config", "maybe"}, "--generation-config"},
      {{"--stop", ""}, "stop"}};
  for (const auto& [arguments, part] : cases) {
    const ChildResult r = chat(kFables, "Hello\n", arguments, /*on_device=*/false);
    EXPECT_EQ(r.code, 2) << part;
    EXPECT_EQ(r.output, "");
    EXPECT_EQ(std::count(r.errors.begin(), r.errors.end(), '\n'), 1) << r.errors;
    EXPECT_NE(r.errors.find(part), std::string::npos) << r.errors;
  }
}

}  // namespace
}  // namespace hadal::test
