// hadal-generate --prompts: what many prompts together print is what each prints alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include <nlohmann/json.hpp>

#include "support/programs.h"

namespace hadal::test {
namespace {

using hadal::testing::TempDir;
using hadal::testing::write_file;
using nlohmann::json;

const std::string kModel = HADAL_SOURCE_DIR "/examples/models/fables";

ChildResult generate(const std::vector<std::string>& arguments) {
  std::vector<std::string> command{HADAL_GENERATE, kModel};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run_child(command, device_options());
}

TEST(ProgramsGpu, ManyPromptsPrintWhatEachPrintsAlone) {
  TempDir dir;
  const std::vector<std::string> prompts = {"Once upon a time", "The king \"said\"",
                                            "A fox and a cr\xc3\xb6w", "The"};
  // Empty lines are none; a last line needs no end.
  write_file(dir / "prompts",
             prompts[0] + "\n\n" + prompts[1] + "\r\n" + prompts[2] + "\n" + prompts[3]);
  const std::string file = (dir / "prompts").string();
  const std::vector<std::string> sampling = {"-n",     "30", "--temperature", "0.8",
                                             "--seed", "11", "--quiet"};
  std::vector<std::string> texts;
  for (const std::string& prompt : prompts) {
    std::vector<std::string> arguments = {prompt};
    arguments.insert(arguments.end(), sampling.begin(), sampling.end());
    const ChildResult r = generate(arguments);
    ASSERT_EQ(r.code, 0) << r.errors;
    texts.push_back(r.output.substr(0, r.output.size() - 1));
  }
  for (const std::vector<std::string>& more :
       {std::vector<std::string>{},
        {"--rows", "2"},
        {"--speculate"},
        {"--speculate=both", "--draft-depth", "3", "--always-draft"},
        {"--speculate=ngram", "--always-draft"}}) {
    std::vector<std::string> arguments = {"--prompts", file};
    arguments.insert(arguments.end(), sampling.begin(), sampling.end());
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ChildResult r = generate(arguments);
    ASSERT_EQ(r.code, 0) << r.errors;
    EXPECT_EQ(r.errors, "");
    std::istringstream lines(r.output);
    std::string line;
    for (size_t i = 0; i < prompts.size(); ++i) {
      ASSERT_TRUE(std::getline(lines, line));
      const json object = json::parse(line);
      EXPECT_EQ(object["index"], i);
      EXPECT_EQ(object["prompt"], prompts[i]);
      EXPECT_EQ(object["text"], texts[i]);
      EXPECT_EQ(object["finish"], object["generated_tokens"] == 30 ? "length" : "stop");
    }
    EXPECT_FALSE(std::getline(lines, line));
  }
}

// The text alone, cut in front of the first of the strings that appears in it; the prompt counts
// for nothing.
TEST(ProgramsGpu, StopStringsEndTheText) {
  const std::vector<std::string> arguments = {"Once upon a time", "-n", "30", "--quiet"};
  const ChildResult whole = generate(arguments);
  ASSERT_EQ(whole.code, 0) << whole.errors;
  const std::string text = whole.output.substr(0, whole.output.size() - 1);
  const std::string stop = text.substr(text.size() / 2, 3);
  const std::string cut = text.substr(0, text.find(stop));
  std::vector<std::string> stopping = arguments;
  stopping.insert(stopping.end(), {"--stop", "never there", "--stop", stop});
  const ChildResult r = generate(stopping);
  EXPECT_EQ(r.code, 0) << r.errors;
  EXPECT_EQ(r.output, cut + "\n");
  TempDir dir;
  write_file(dir / "prompts", arguments[0]);
  stopping[0] = (dir / "prompts").string();
  stopping.insert(stopping.begin(), "--prompts");
  const ChildResult batch = generate(stopping);
  ASSERT_EQ(batch.code, 0) << batch.errors;
  const json object = json::parse(batch.output);
  EXPECT_EQ(object["text"], cut);
  EXPECT_EQ(object["finish"], "stop");
  EXPECT_LT(object["generated_tokens"], 30);
  for (const std::string& none : {std::string(), std::string("--prompts")}) {
    std::vector<std::string> refused = {"--stop", ""};
    if (!none.empty()) refused.insert(refused.begin(), {none, (dir / "prompts").string()});
    const ChildResult e = generate(refused);
    EXPECT_EQ(e.code, 2);
    EXPECT_EQ(e.errors,
              "hadal-generate: stop: strings must have at least one character, got none at index "
              "0\n");
  }
}

TEST(ProgramsGpu, PenaltiesBiasesAndLogprobsReachTheOutput) {
  TempDir dir;
  write_file(dir / "prompts", "Once upon a time\nThe king said");
  const auto lines = [&](std::vector<std::string> more) {
    more.insert(more.begin(),
                {"--prompts", (dir / "prompts").string(), "-n", "24", "--quiet", "--ignore-eos"});
    const ChildResult r = generate(more);
    EXPECT_EQ(r.code, 0) << r.errors;
    std::istringstream text(r.output);
    std::vector<json> objects;
    for (std::string line; std::getline(text, line);) objects.push_back(json::parse(line));
    EXPECT_EQ(objects.size(), 2u);
    objects.resize(2);
    return objects;
  };
  const std::vector<json> plain = lines({"--logprobs", "2"});
  for (const json& object : plain) {
    ASSERT_EQ(object["logprobs"].size(), 24u);
    for (const json& token : object["logprobs"]) {  // greedy: the most probable one
      ASSERT_EQ(token["top"].size(), 2u);
      EXPECT_EQ(token["top"][0]["id"], token["id"]);
      EXPECT_EQ(token["top"][0]["logprob"], token["logprob"]);
      EXPECT_LE(token["top"][1]["logprob"], token["logprob"]);
      EXPECT_LE(token["logprob"], 0.0);
    }
  }
  const std::vector<json> forced =
      lines({"--logprobs", "0", "--logit-bias", "77=100,78=-3", "--frequency-penalty", "0"});
  for (const json& token : forced[1]["logprobs"]) {
    EXPECT_EQ(token["id"], 77);
    EXPECT_TRUE(token["top"].empty());
  }
  const std::vector<json> penalised =
      lines({"--frequency-penalty", "2", "--presence-penalty", "2", "--repetition-penalty", "1.5"});
  EXPECT_FALSE(penalised[0].contains("logprobs"));
  EXPECT_NE(penalised[0]["text"], plain[0]["text"]);
}

TEST(ProgramsGpu, TracesAreFilesOfSpans) {
  TempDir dir;
  write_file(dir / "prompts", "Once upon a time\nThe king");
  const std::string prompts = (dir / "prompts").string(), file = (dir / "trace").string();
  for (const std::vector<std::string>& what :
       {std::vector<std::string>{"The king"}, {"--prompts", prompts}}) {
    std::vector<std::string> arguments = what;
    arguments.insert(arguments.end(), {"-n", "4", "--quiet", "--trace", file});
    const ChildResult r = generate(arguments);
    ASSERT_EQ(r.code, 0) << r.errors;
    std::ifstream in(file);
    const json trace = json::parse(in, nullptr, false);
    ASSERT_FALSE(trace.is_discarded());
    size_t waits = 0;
    for (const json& event : trace.at("traceEvents")) waits += event.at("name") == "wait";
    EXPECT_GE(waits, 4u);  // a prompt, and three tokens behind its own
  }
  const ChildResult r = generate({"The king", "--trace", (dir / "none" / "trace").string()});
  EXPECT_EQ(r.code, 2);
  EXPECT_EQ(r.output, "");
}

TEST(ProgramsGpu, PromptFilesAreRefusedByName) {
  TempDir dir;
  const std::string file = (dir / "prompts").string();
  const auto message = [&](const std::string& content, std::vector<std::string> more) {
    write_file(dir / "prompts", content);
    more.insert(more.begin(), {"--prompts", file});
    const ChildResult r = generate(more);
    EXPECT_EQ(r.code, 2);
    EXPECT_EQ(r.output, "");
    EXPECT_EQ(std::count(r.errors.begin(), r.errors.end(), '\n'), 1) << r.errors;
    return r.errors;
  };
  EXPECT_EQ(message("\n\n", {}), "hadal-generate: --prompts: the file has no line with a prompt\n");
  EXPECT_NE(message("a\n" + std::string(5000, 'x') + "\n", {"--context", "64"})
                .find("--prompts: prompt 2 must be shorter than the context of 64 tokens"),
            std::string::npos);
  EXPECT_NE(message("a\n", {"-n", "0"}).find("--max-new-tokens"), std::string::npos);
  EXPECT_NE(message("a\n", {"--rows", "0"}).find("--rows"), std::string::npos);
  EXPECT_NE(message("a\n", {"--print-ids"}).find("--prompts"), std::string::npos);
  EXPECT_NE(message("a\n", {"--speculate=x"}).find("--speculate: x not in {"), std::string::npos);
  EXPECT_NE(message("a\n", {"--draft-depth", "2"}).find("requires --speculate"), std::string::npos);
  EXPECT_NE(message("a\n", {"--speculate", "--draft-depth", "9"}).find("not in range 1 to 8"),
            std::string::npos);
  EXPECT_NE(message("\xff\xfe\n", {}).find("hadal-generate: "), std::string::npos);
}

}  // namespace
}  // namespace hadal::test
