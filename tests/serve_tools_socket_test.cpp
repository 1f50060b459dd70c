// Calls of tools over a real socket, read by the client that most people have.
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>

#include "serve/stand_in.h"
#include "support/safetensors_writer.h"

namespace hadal::serve {
namespace {

const std::string kSource = HADAL_SOURCE_DIR;

ServedModel model_with_template(const std::string& file) {
  auto tokenizer = model::Tokenizer::load(kSource + "/examples/models/fables");
  auto chat = model::ChatTemplate::parse(
      hadal::testing::read_file(kSource + "/tests/chat_templates/" + file), file, "<b>", "<e>");
  EXPECT_TRUE(tokenizer.ok() && chat.ok());
  return {std::move(*tokenizer),
          std::move(*chat),
          {.name = "m", .context = 4096, .vocab = 2048, .end_ids = {1}}};
}

// What a program prints, and its exit status.
std::pair<int, std::string> output_of(const std::string& command) {
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return {-1, ""};
  std::string text;
  char bytes[4096];
  while (const size_t got = fread(bytes, 1, sizeof bytes, pipe)) text.append(bytes, got);
  return {pclose(pipe), text};
}

// A call as a model writes it, a token at a time.
void append_call(std::vector<std::string>& texts, bool fenced, const std::string& city) {
  texts.push_back("<｜tool▁call▁begin｜>");
  if (fenced)
    texts.insert(texts.end(),
                 {"function", "<｜tool▁sep｜>", "wea", "ther", "\n", "```", "json", "\n"});
  if (!fenced) texts.insert(texts.end(), {"wea", "ther", "<｜tool▁sep｜>"});
  texts.insert(texts.end(), {"{\"", "city\": ", "\"" + city, "\"}"});
  if (fenced) texts.insert(texts.end(), {"\n", "```"});
  texts.push_back("<｜tool▁call▁end｜>");
}

std::vector<std::string> two_calls(bool fenced, const std::string& content) {
  std::vector<std::string> texts;
  if (!content.empty()) texts.push_back(content);
  texts.push_back("<｜tool▁calls▁begin｜>");
  append_call(texts, fenced, "Paris");
  if (fenced) texts.push_back("\n");
  append_call(texts, fenced, "Łódź");
  texts.insert(texts.end(), {"<｜tool▁calls▁end｜>", ""});
  return texts;
}

TEST(ServeToolsSocketHost, TheClientThatMostPeopleHave) {
  const std::string modules = kSource + "/.cache/serve-client/node_modules";
  if (!std::filesystem::exists(modules + "/openai/package.json")) {
    GTEST_SKIP() << "no npm package openai in .cache/serve-client: setup.sh could not fetch it";
  }
  for (const bool fenced : {false, true}) {
    const ServedModel model = model_with_template(fenced ? "v3.jinja" : "v31.jinja");
    Running server({}, model);
    const std::vector<std::string> calls = two_calls(fenced, ""), said = {"It ", "rains", ".", ""};
    server.script.answers = {
        calls, two_calls(fenced, "Let me see. "), calls, said, calls, said, calls, calls};
    const auto [status, text] =
        output_of("node " + kSource + "/tests/serve/openai_tools.mjs http://127.0.0.1:" +
                  std::to_string(server.port) + " " + modules);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(text, "done\n");
    server.end();
    ASSERT_EQ(server.script.requests.size(), 8u) << server.log;
    // The calls and their results come back as the model's template writes them.
    std::string written;
    for (const std::string& piece : calls) written += piece;
    for (const size_t i : {3u, 5u}) {
      const auto prompt =
          model.tokenizer().decode(server.script.requests[i].prompt, /*skip_special=*/false);
      ASSERT_TRUE(prompt.ok());
      EXPECT_NE(prompt->find(written), prompt->npos) << *prompt;
      EXPECT_NE(prompt->find("<｜tool▁output▁begin｜>wet<｜tool▁output▁end｜>"), prompt->npos);
    }
  }
}

}  // namespace
}  // namespace hadal::serve
