// hadal::model::parse_generation_config: published files, what a switch means, every refusal.
#include "hadal/model/generation_config.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "support/safetensors_writer.h"

namespace hadal::model {
namespace {

using ::hadal::testing::TempDir;
using ::hadal::testing::write_file;
using Ids = std::vector<uint32_t>;

ModelConfig some_model() {
  ModelConfig model;
  model.vocab_size = 1000;
  model.eos_token_ids = {1, 2};
  return model;
}

GenerationConfig parsed(const std::string& json) {
  const auto config = parse_generation_config(json, "generation_config.json", some_model());
  EXPECT_TRUE(config.ok()) << config.status().message();
  return config.ok() ? *config : GenerationConfig();
}

TEST(GenerationConfig, SaysWhatStandsThere) {
  const GenerationConfig chat = parsed(
      R"({"_from_model_config": true, "bos_token_id": 0, "eos_token_id": 1, "do_sample": true,
          "temperature": 0.6, "top_p": 0.95, "transformers_version": "4.39.3"})");
  EXPECT_EQ(chat.temperature, 0.6);
  EXPECT_EQ(chat.top_p, 0.95);
  EXPECT_EQ(chat.eos_token_ids, Ids{1});
  EXPECT_FALSE(chat.top_k || chat.min_p || chat.repetition_penalty || chat.max_new_tokens);
  const GenerationConfig all = parsed(
      R"({"eos_token_id": [7, 999], "temperature": 1, "top_k": 50, "top_p": 1, "min_p": 0.05,
          "repetition_penalty": 1.1, "max_new_tokens": 512, "num_beams": 4, "pad_token_id": null})");
  EXPECT_EQ(all.temperature, 1.0);
  EXPECT_EQ(all.top_k, 50u);
  EXPECT_EQ(all.top_p, 1.0);
  EXPECT_EQ(all.min_p, 0.05);
  EXPECT_EQ(all.repetition_penalty, 1.1);
  EXPECT_EQ(all.max_new_tokens, 512u);
  EXPECT_EQ(all.eos_token_ids, (Ids{7, 999}));
}

TEST(GenerationConfig, NullIsAbsent) {
  for (const char* text : {"{}", R"({"temperature": null, "top_p": null, "top_k": null,
       "min_p": null, "repetition_penalty": null, "max_new_tokens": null, "do_sample": null,
       "eos_token_id": null})"}) {
    const GenerationConfig config = parsed(text);
    EXPECT_FALSE(config.temperature || config.top_p || config.top_k || config.min_p ||
                 config.repetition_penalty || config.max_new_tokens);
    EXPECT_TRUE(config.eos_token_ids.empty());
  }
}

TEST(GenerationConfig, NotToSampleIsGreedy) {
  EXPECT_EQ(parsed(R"({"do_sample": false})").temperature, 0.0);
  const GenerationConfig config =
      parsed(R"({"do_sample": false, "temperature": 0.7, "top_p": 0.9})");
  EXPECT_EQ(config.temperature, 0.0);
  EXPECT_EQ(config.top_p, 0.9);
  EXPECT_EQ(parsed(R"({"do_sample": true})").temperature, std::nullopt);
  EXPECT_EQ(parsed(R"({"top_k": -1})").top_k, 0u);
}

TEST(GenerationConfig, Refusals) {
  const std::pair<const char*, const char*> cases[] = {
      {"[]", "text must be an object, got []"},
      {"{", "text must be valid JSON, got an error at byte 2"},
      {R"({"top_p": 1, "top_p": 1})",
       "every key must occur once in its object, got \"top_p\" twice"},
      {R"({"temperature": "0.6"})", "temperature must be a number between 0 and 100, got \"0.6\""},
      {R"({"temperature": -0.1})", "temperature must be a number between 0 and 100, got -0.1"},
      {R"({"temperature": 1e300})", "temperature must be a number between 0 and 100, got 1e+300"},
      {R"({"top_p": 0})", "top_p must be a number between 1e-06 and 1, got 0"},
      {R"({"top_p": 1.01})", "top_p must be a number between 1e-06 and 1, got 1.01"},
      {R"({"min_p": true})", "min_p must be a number between 0 and 1, got true"},
      {R"({"top_k": 40.0})", "top_k must be a whole number between 0 and 4194304, got 40.0"},
      {R"({"top_k": -1.0})", "top_k must be a whole number between 0 and 4194304, got -1.0"},
      {R"({"top_k": -2})", "top_k must be a whole number between 0 and 4194304, got -2"},
      {R"({"repetition_penalty": 0})",
       "repetition_penalty must be a number between 0.01 and 100, got 0"},
      {R"({"max_new_tokens": 0})",
       "max_new_tokens must be a whole number between 1 and 134217728, got 0"},
      {R"({"do_sample": "false"})", "do_sample must be true or false, got \"false\""},
      {R"({"eos_token_id": 1000})",
       "eos_token_id must be a whole number between 0 and 999, got 1000"},
      {R"({"eos_token_id": [1, -1]})",
       "eos_token_id must hold whole numbers between 0 and 999, got -1"},
      {R"({"eos_token_id": "1"})",
       "eos_token_id must be a whole number between 0 and 999, got \"1\""},
  };
  for (const auto& [text, message] : cases) {
    const auto config = parse_generation_config(text, "g.json", some_model());
    ASSERT_FALSE(config.ok()) << text;
    EXPECT_EQ(config.status().code(), Errc::kMalformed);
    EXPECT_EQ(config.status().message(), std::string("g.json: ") + message);
  }
  std::string many = "0";
  for (int i = 0; i < 256; ++i) many += ",0";
  const auto config =
      parse_generation_config("{\"eos_token_id\":[" + many + "]}", "g.json", some_model());
  EXPECT_EQ(config.status().message(),
            "g.json: eos_token_id must be at most 256 ids, got a list of 257");
  const std::string large = "{" + std::string(1u << 20, ' ') + "}";
  EXPECT_EQ(parse_generation_config(large, "g.json", some_model()).status().message(),
            "g.json: text must be at most 1048576 bytes, got 1048578");
}

TEST(GenerationConfig, TheFileNeedNotBeThere) {
  TempDir dir;
  const auto none = load_generation_config(dir.path(), some_model());
  ASSERT_TRUE(none.ok()) << none.status().message();
  EXPECT_TRUE(none->eos_token_ids.empty());
  const std::filesystem::path path = dir / "generation_config.json";
  write_file(path, R"({"top_p": 0.5})");
  EXPECT_EQ(load_generation_config(dir.path(), some_model())->top_p, 0.5);
  write_file(path, R"({"top_p": "a"})");
  EXPECT_EQ(load_generation_config(dir.path(), some_model()).status().message(),
            path.string() + ": top_p must be a number between 1e-06 and 1, got \"a\"");
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);  // there, and no file
  EXPECT_EQ(load_generation_config(dir.path(), some_model()).status().code(), Errc::kIo);
}

TEST(GenerationConfig, EndIdsAreThoseOfBothFiles) {
  GenerationConfig generation;
  EXPECT_EQ(end_ids(some_model(), generation), (Ids{1, 2}));
  generation.eos_token_ids = {9, 2, 9, 0};
  EXPECT_EQ(end_ids(some_model(), generation), (Ids{1, 2, 9, 0}));
}

}  // namespace
}  // namespace hadal::model
