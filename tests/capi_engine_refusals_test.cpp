// What the engine's C ABI refuses, with the message; and its text side, which needs no device.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>

#include "support/capi_engine.h"

namespace hadal::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// ---- without a device --------------------------------------------------------------------------

class CapiEngineHost : public ::testing::Test {
 protected:
  TokenizerPtr load(const std::string& dir) {
    hadal_tokenizer* made = nullptr;
    EXPECT_EQ(hadal_tokenizer_load(dir.c_str(), &made, &error_), HADAL_OK) << error_.message;
    return TokenizerPtr(made);
  }
  hadal_error error_ = HADAL_ERROR_INIT;
};

TEST_F(CapiEngineHost, VersionIsLibhadals) {
  EXPECT_EQ(hadal_engine_version(), hadal_version());
}

TEST_F(CapiEngineHost, TokenizerIsTheModels) {
  const TokenizerPtr tokenizer = load(kFables);
  const auto expected = model::Tokenizer::load(kFables);
  ASSERT_TRUE(tokenizer && expected.ok());
  auto facts = abi<hadal_tokenizer_facts>();
  ASSERT_EQ(hadal_tokenizer_describe(tokenizer.get(), &facts, &error_), HADAL_OK);
  EXPECT_EQ(facts.vocab_size, expected->vocab_size());
  EXPECT_EQ(facts.bos_id, expected->bos_id().value_or(HADAL_NO_TOKEN));
  EXPECT_EQ(facts.eos_id, expected->eos_id().value_or(HADAL_NO_TOKEN));
  EXPECT_FALSE(facts.has_chat_template);
  const std::string text = "The king's daughter, \xc3\xa4\xe2\x82\xac.";
  for (const bool plain : {false, true}) {
    const auto ids = *expected->encode(text, !plain);
    size_t count = 0;
    ASSERT_EQ(hadal_tokenizer_encode(tokenizer.get(), text.data(), text.size(),
                                     plain ? HADAL_TEXT_PLAIN : 0, &count, nullptr, &error_),
              HADAL_OK);
    EXPECT_EQ(count, ids.size());
    std::vector<uint32_t> got(count + 3, 77);
    count = got.size();
    ASSERT_EQ(hadal_tokenizer_encode(tokenizer.get(), text.data(), text.size(),
                                     plain ? HADAL_TEXT_PLAIN : 0, &count, got.data(), &error_),
              HADAL_OK);
    EXPECT_EQ(got[count], 77u);
    got.resize(count);
    EXPECT_EQ(got, ids);
    for (const bool shown : {false, true}) {
      char out[200];
      size_t bytes = sizeof(out);
      ASSERT_EQ(hadal_tokenizer_decode(tokenizer.get(), ids.data(), ids.size(),
                                       shown ? HADAL_TEXT_PLAIN : 0, &bytes, out, &error_),
                HADAL_OK);
      EXPECT_EQ(std::string(out, bytes), *expected->decode(ids, !shown));
    }
  }
  uint32_t id = 0;
  const auto first = *expected->id_to_token(0);
  ASSERT_EQ(hadal_tokenizer_id(tokenizer.get(), first.c_str(), &id, &error_), HADAL_OK);
  EXPECT_EQ(id, 0u);
}

TEST_F(CapiEngineHost, ChatIsTheTemplates) {
  namespace fs = std::filesystem;
  const fs::path dir = fs::path(::testing::TempDir()) / "hadal_capi_chat";
  fs::create_directories(dir);
  fs::copy_file(fs::path(kFables) / "tokenizer.json", dir / "tokenizer.json",
                fs::copy_options::overwrite_existing);
  const auto with = [&](const std::string& source) {
    std::ofstream(dir / "chat_template.jinja") << source;
    return load(dir.string());
  };
  auto chat = abi<hadal_chat>();
  chat.messages = R"([{"role": "user", "content": "Hi"}])";
  const auto render = [&](const TokenizerPtr& tokenizer) {
    char text[200];
    size_t bytes = sizeof(text);
    EXPECT_EQ(hadal_tokenizer_chat(tokenizer.get(), &chat, &bytes, text, &error_), HADAL_OK)
        << error_.message;
    return std::string(text, bytes);
  };
  {
    const TokenizerPtr tokenizer = with(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if tools %}[{{ tools[0].name }}]{% endif %}{% if thinking %}T{% endif %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}");
    auto facts = abi<hadal_tokenizer_facts>();
    ASSERT_EQ(hadal_tokenizer_describe(tokenizer.get(), &facts, &error_), HADAL_OK);
    EXPECT_TRUE(facts.has_chat_template);
    EXPECT_EQ(render(tokenizer), "<user>Hi<assistant>");
    chat.flags = HADAL_CHAT_NO_GENERATION_PROMPT;
    chat.tools = R"([{"name": "clock"}])", chat.variables = R"({"thinking": true})";
    EXPECT_EQ(render(tokenizer), "<user>Hi[clock]T");
    size_t bytes = 3;
    char text[3];
    EXPECT_EQ(hadal_tokenizer_chat(tokenizer.get(), &chat, &bytes, text, &error_),
              HADAL_ERROR_INVALID_ARGUMENT);
    EXPECT_STREQ(error_.message, "tokenizer: count must be at least 16, got 3");
    EXPECT_EQ(bytes, 3u);
    chat.messages = "[";
    EXPECT_EQ(hadal_tokenizer_chat(tokenizer.get(), &chat, &bytes, nullptr, &error_),
              HADAL_ERROR_INVALID_ARGUMENT);
    chat.messages = "[]", chat.flags = 2;
    EXPECT_EQ(hadal_tokenizer_chat(tokenizer.get(), &chat, &bytes, nullptr, &error_),
              HADAL_ERROR_INVALID_ARGUMENT);
    EXPECT_STREQ(error_.message, "tokenizer: flags must be of 0x1, got 0x2");
    chat.flags = 0;
  }
  {  // one that cannot be read keeps nobody from the rest
    const TokenizerPtr tokenizer = with("{% for %}");
    size_t bytes = 0;
    EXPECT_EQ(hadal_tokenizer_chat(tokenizer.get(), &chat, &bytes, nullptr, &error_),
              HADAL_ERROR_UNSUPPORTED);
    EXPECT_NE(std::strstr(error_.message, "line 1"), nullptr) << error_.message;
    EXPECT_EQ(hadal_tokenizer_encode(tokenizer.get(), "a", 1, 0, &bytes, nullptr, &error_),
              HADAL_OK);
  }
  fs::remove_all(dir);
  size_t bytes = 0;
  EXPECT_EQ(hadal_tokenizer_chat(load(kFables).get(), &chat, &bytes, nullptr, &error_),
            HADAL_ERROR_UNSUPPORTED);
}

TEST_F(CapiEngineHost, TokenizerRefusals) {
  const TokenizerPtr loaded = load(kFables);
  hadal_tokenizer* made = nullptr;
  size_t count = 0;
  uint32_t id = 0;
  auto facts = abi<hadal_tokenizer_facts>();
  auto chat = abi<hadal_chat>();
  const hadal_tokenizer* t = loaded.get();
  const uint32_t outside = 100000;
  const struct {
    std::function<hadal_status()> call;
    const char* message;
  } refusals[] = {
      {[&] { return hadal_tokenizer_load(nullptr, &made, &error_); },
       "tokenizer: model_dir must not be null"},
      {[&] { return hadal_tokenizer_load(kFables, nullptr, &error_); },
       "tokenizer: tokenizer must not be null"},
      {[&] { return hadal_tokenizer_describe(nullptr, &facts, &error_); },
       "tokenizer: tokenizer must not be null"},
      {[&] { return hadal_tokenizer_describe(t, nullptr, &error_); },
       "tokenizer: facts must not be null"},
      {[&] { return hadal_tokenizer_encode(nullptr, "", 0, 0, &count, nullptr, &error_); },
       "tokenizer: tokenizer must not be null"},
      {[&] { return hadal_tokenizer_encode(t, nullptr, 1, 0, &count, nullptr, &error_); },
       "tokenizer: text must not be null"},
      {[&] { return hadal_tokenizer_encode(t, "", 0, 4, &count, nullptr, &error_); },
       "tokenizer: flags must be of 0x1, got 0x4"},
      {[&] { return hadal_tokenizer_encode(t, "a", 1, 0, nullptr, nullptr, &error_); },
       "tokenizer: count must not be null"},
      {[&] { return hadal_tokenizer_decode(nullptr, &id, 1, 0, &count, nullptr, &error_); },
       "tokenizer: tokenizer must not be null"},
      {[&] { return hadal_tokenizer_decode(t, nullptr, 1, 0, &count, nullptr, &error_); },
       "tokenizer: ids must not be null"},
      {[&] { return hadal_tokenizer_decode(t, &id, 1, 2, &count, nullptr, &error_); },
       "tokenizer: flags must be of 0x1, got 0x2"},
      {[&] { return hadal_tokenizer_decode(t, &id, 1, 0, nullptr, nullptr, &error_); },
       "tokenizer: count must not be null"},
      {[&] { return hadal_tokenizer_decode(t, &outside, 1, 0, &count, nullptr, &error_); },
       "tokenizer: id must be in the vocabulary of 2048, got 100000"},
      {[&] { return hadal_tokenizer_id(nullptr, "a", &id, &error_); },
       "tokenizer: tokenizer must not be null"},
      {[&] { return hadal_tokenizer_id(t, nullptr, &id, &error_); },
       "tokenizer: token must not be null"},
      {[&] { return hadal_tokenizer_id(t, "a", nullptr, &error_); },
       "tokenizer: id must not be null"},
      {[&] { return hadal_tokenizer_id(t, "no such token", &id, &error_); },
       "tokenizer: token must be in the vocabulary, got 'no such token'"},
      {[&] { return hadal_tokenizer_chat(nullptr, &chat, &count, nullptr, &error_); },
       "tokenizer: tokenizer must not be null"},
      {[&] { return hadal_tokenizer_chat(t, nullptr, &count, nullptr, &error_); },
       "tokenizer: chat must not be null"},
      {[&] { return hadal_tokenizer_chat(t, &chat, &count, nullptr, &error_); },
       "tokenizer: chat.messages must not be null"},
  };
  for (const auto& refusal : refusals) {
    EXPECT_EQ(refusal.call(), HADAL_ERROR_INVALID_ARGUMENT) << refusal.message;
    EXPECT_STREQ(error_.message, refusal.message);
  }
  EXPECT_EQ(made, nullptr);
  hadal_tokenizer_destroy(nullptr);
  EXPECT_EQ(hadal_tokenizer_load("/nowhere", &made, &error_), HADAL_ERROR_IO) << error_.message;
}

// Refused before any device is looked for.
TEST_F(CapiEngineHost, OptionRefusals) {
  const auto refused = [&](const std::string& message, auto change,
                           hadal_status status = HADAL_ERROR_INVALID_ARGUMENT) {
    hadal_engine_options o = engine_options();
    change(o);
    hadal_engine* engine = nullptr;
    EXPECT_EQ(hadal_engine_load(&o, &engine, &error_), status) << message;
    EXPECT_EQ(std::string(error_.message), message);
    auto memory = abi<hadal_engine_memory>();
    EXPECT_EQ(hadal_engine_plan(&o, &memory, &error_), status);
    EXPECT_EQ(std::string(error_.message), message);
    EXPECT_EQ(engine, nullptr);
  };
  using O = hadal_engine_options;
  hadal_context_info info{};
  info.struct_size = sizeof(info);
  const auto queue = reinterpret_cast<VkQueue>(uintptr_t{8});
  const hadal_queue_fn lock = [](void*) {};
  const hadal_log_fn log = [](void*, hadal_log_level, const char*) {};
  const auto lend = [&](O& o) { o.context = &info, o.queue = queue; };
  refused("engine: model_dir must not be null", [](O& o) { o.model_dir = nullptr; });
  refused("engine: flags must be of 0x1f, got 0x20", [](O& o) { o.flags = 32; });
  refused("engine: queue must be null without context", [&](O& o) { o.queue = queue; });
  refused("engine: lock_queue must be null without context", [&](O& o) { o.lock_queue = lock; });
  refused("engine: queue must not be null with context", [&](O& o) { o.context = &info; });
  refused("engine: lock_queue and unlock_queue must both be given, or none",
          [&](O& o) { lend(o), o.unlock_queue = lock; });
  refused("engine: device must be null with context", [&](O& o) { lend(o), o.device = "0"; });
  refused("engine: cache_dir must be null with context, which has pipeline_cache",
          [&](O& o) { lend(o), o.cache_dir = "/tmp"; });
  refused("engine: log must be null with context, which has its own",
          [&](O& o) { lend(o), o.log = log; });
  refused(
      "device: get_instance_proc_addr, instance, physical_device and device of "
      "BorrowedDevice must be set",
      lend);
  refused("engine: cache_format must be below 3, got 3", [](O& o) { o.cache_format = 3; });
  refused("engine: draft_depth must be at most 8, got 9", [](O& o) { o.draft_depth = 9; });
  refused("engine: draft_source must be below 3, got 7", [](O& o) { o.draft_source = 7; });
  refused("engine: max_requests must be at most 65536, got 65537",
          [](O& o) { o.max_requests = 65537; });
  refused("engine: max_rows must be at most 65536, got 4000000000",
          [](O& o) { o.max_rows = 4000000000u; });
  refused("engine: max_chunk must be at most 1048576, got 1048577",
          [](O& o) { o.max_chunk = 1048577; });
  refused("engine: max_requests must be at most max_rows, got 6 > 5", [](O& o) { o.max_rows = 5; });
  refused("engine: step_seconds must be 0 to 1e6, got -1", [](O& o) { o.step_seconds = -1; });
  refused("engine: step_seconds must be 0 to 1e6, got nan", [](O& o) { o.step_seconds = kNan; });
  refused("engine: max_context must be at most the model's 2048, got 2049",
          [](O& o) { o.max_context = 2049; });
  refused("engine: options.struct_size must be 192 to 4096, got 8",
          [](O& o) { o.struct_size = 8; });
  hadal_engine* engine = nullptr;
  EXPECT_EQ(hadal_engine_load(nullptr, &engine, &error_), HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_STREQ(error_.message, "engine: options must not be null");
  const hadal_engine_options o = engine_options();
  EXPECT_EQ(hadal_engine_load(&o, nullptr, &error_), HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_STREQ(error_.message, "engine: engine must not be null");
  hadal_engine_options nowhere = o;
  nowhere.model_dir = "/nowhere";
  EXPECT_EQ(hadal_engine_load(&nowhere, &engine, &error_), HADAL_ERROR_IO) << error_.message;
  EXPECT_NE(std::strstr(error_.message, "/nowhere/config.json"), nullptr) << error_.message;
  EXPECT_EQ(hadal_engine_device_count(nullptr, &error_), HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_STREQ(error_.message, "engine: count must not be null");
}

TEST_F(CapiEngineHost, NullEngines) {
  const auto null = [&](hadal_status status) {
    EXPECT_EQ(status, HADAL_ERROR_INVALID_ARGUMENT);
    EXPECT_STREQ(error_.message, "engine: engine must not be null");
    error_.message[0] = 0;
  };
  auto facts = abi<hadal_engine_facts>();
  auto stats = abi<hadal_engine_stats>();
  auto request = abi<hadal_engine_request>();
  hadal_request_id id = 0;
  const hadal_engine_token* const* tokens = nullptr;
  const void* bytes = nullptr;
  size_t count = 0;
  null(hadal_engine_describe(nullptr, &facts, &error_));
  null(hadal_engine_warm_up(nullptr, nullptr, &error_));
  null(hadal_engine_add(nullptr, &request, &id, &error_));
  null(hadal_engine_check(nullptr, &request, &error_));
  null(hadal_engine_cancel(nullptr, 1, &error_));
  null(hadal_engine_step(nullptr, &tokens, &count, &error_));
  null(hadal_engine_export(nullptr, 1, &bytes, &count, &error_));
  null(hadal_engine_import(nullptr, "", 0, nullptr, nullptr, &id, &error_));
  null(hadal_engine_statistics(nullptr, &stats, &error_));
  EXPECT_TRUE(hadal_engine_idle(nullptr));
  EXPECT_EQ(hadal_engine_tokenizer(nullptr), nullptr);
  hadal_engine_destroy(nullptr);
}

// ---- with one ----------------------------------------------------------------------------------

class CapiEngineRefusalsGpu : public SharedEngineTest<4> {
 protected:
  // add and check say the same.
  template <class Change>
  void refused(const std::string& message, Change change,
               hadal_status status = HADAL_ERROR_INVALID_ARGUMENT, hadal_engine* of = shared()) {
    const runtime::EngineRequest plain = plain_request();
    AbiRequest request(plain);
    change(request.request);
    hadal_request_id id = 0;
    EXPECT_EQ(hadal_engine_add(of, &request.request, &id, &error_), status) << message;
    EXPECT_EQ(std::string(error_.message), message);
    error_.message[0] = 0;
    EXPECT_EQ(hadal_engine_check(of, &request.request, &error_), status);
    EXPECT_EQ(std::string(error_.message), message);
    EXPECT_EQ(id, 0u);
    EXPECT_TRUE(hadal_engine_idle(of));
  }
};
using R = hadal_engine_request;

TEST_F(CapiEngineRefusalsGpu, Prompts) {
  static const uint32_t outside[] = {5, 2048};
  refused("engine: prompt or text must be given, and not both",
          [](R& r) { r.prompt = nullptr, r.prompt_tokens = 0; });
  refused("engine: prompt or text must be given, and not both", [](R& r) { r.text = "a"; });
  refused("engine: prompt must not be null with prompt_tokens",
          [](R& r) { r.prompt = nullptr, r.text = "a"; });
  refused("engine: text must not be null with text_bytes", [](R& r) { r.text_bytes = 3; });
  refused("engine: flags must have PLAIN_TEXT with text only",
          [](R& r) { r.flags |= HADAL_REQUEST_PLAIN_TEXT; });
  refused("engine: prompt_tokens must be below the context of 256, got 256",
          [](R& r) { r.prompt_tokens = 256; });
  refused("engine: prompt_tokens must be below the context of 256, got 18446744073709551615",
          [](R& r) { r.prompt_tokens = SIZE_MAX; });
  refused("engine: token ids must be below 2048, got 2048 at index 1",
          [](R& r) { r.prompt = outside, r.prompt_tokens = 2; });
  refused("scheduler: the prompt must have at least one token, got 0",
          [](R& r) { r.prompt_tokens = 0; });
  refused("tokenizer: text must be UTF-8, got byte 0xff at offset 1",
          [](R& r) { r.prompt = nullptr, r.prompt_tokens = 0, r.text = "a\xff"; });
}

TEST_F(CapiEngineRefusalsGpu, Members) {
  static const hadal_logit_bias twice[] = {{3, 1.0f}, {3, 1.0f}}, outside[] = {{2050, 1.0f}};
  static const char* const stops[] = {"a", nullptr};
  static const char* const empty[] = {""};
  refused("engine: flags must be of 0xf, got 0x10", [](R& r) { r.flags = 16; });
  refused("sampling: temperature must be at least 0, got -1", [](R& r) { r.temperature = -1; });
  refused("sampling: top_p must be above 0 and at most 1, got 1.5", [](R& r) { r.top_p = 1.5f; });
  refused("sampling: min_p must be 0 to 1, got nan", [](R& r) { r.min_p = float(kNan); });
  refused("sampling: repetition_penalty must be above 0 and a normal float, got -1",
          [](R& r) { r.repetition_penalty = -1; });
  refused("sampling: presence_penalty must be -2 to 2, got 3",
          [](R& r) { r.presence_penalty = 3; });
  refused("sampling: frequency_penalty must be -2 to 2, got -3",
          [](R& r) { r.frequency_penalty = -3; });
  refused("engine: logit_bias must not be null",
          [](R& r) { r.logit_bias_count = 1, r.logit_bias = nullptr; });
  refused("engine: logit_bias_count must be at most 2048, got 2049",
          [](R& r) { r.logit_bias = twice, r.logit_bias_count = 2049; });
  refused("sampling: ids of logit_bias must be different, got 3 twice",
          [](R& r) { r.logit_bias = twice, r.logit_bias_count = 2; });
  refused("sampling: ids of logit_bias must be below 2048, got 2050",
          [](R& r) { r.logit_bias = outside, r.logit_bias_count = 1; });
  refused("engine: top_logprobs must be 0 without LOGPROBS, got 2",
          [](R& r) { r.top_logprobs = 2; });
  refused("engine: logprobs must be at most 20, got 21",
          [](R& r) { r.flags |= HADAL_REQUEST_LOGPROBS, r.top_logprobs = 21; });
  refused("engine: stop_ids must not be null",
          [](R& r) { r.stop_ids_count = 1, r.stop_ids = nullptr; });
  refused("engine: stop_ids_count must be at most 65536, got 65537",
          [](R& r) { r.stop_ids_count = 65537; });
  refused("engine: stop must not be null", [](R& r) { r.stop_count = 1, r.stop = nullptr; });
  refused("engine: stop[1] must not be null", [](R& r) { r.stop = stops, r.stop_count = 2; });
  refused("stop: strings must have at least one character, got none at index 0",
          [](R& r) { r.stop = empty, r.stop_count = 1; });
  refused("engine: timeout_seconds must be 0 to 1000000000, got -1",
          [](R& r) { r.timeout_seconds = -1; });
  refused("engine: timeout_seconds must be 0 to 1000000000, got nan",
          [](R& r) { r.timeout_seconds = kNan; });
  refused("engine: request.struct_size must be 176 to 4096, got 4097",
          [](R& r) { r.struct_size = 4097; });
}

TEST_F(CapiEngineRefusalsGpu, Outputs) {
  hadal_engine* e = shared();
  const runtime::EngineRequest plain = plain_request();
  const AbiRequest request(plain);
  hadal_request_id id = 0;
  const hadal_engine_token* const* tokens = nullptr;
  const void* bytes = nullptr;
  size_t count = 0;
  const hadal_engine_warm_up_options warm_up{};
  const struct {
    std::function<hadal_status()> call;
    const char* message;
  } refusals[] = {
      {[&] { return hadal_engine_add(e, nullptr, &id, &error_); },
       "engine: request must not be null"},
      {[&] { return hadal_engine_add(e, &request.request, nullptr, &error_); },
       "engine: id must not be null"},
      {[&] { return hadal_engine_step(e, nullptr, &count, &error_); },
       "engine: tokens must not be null"},
      {[&] { return hadal_engine_step(e, &tokens, nullptr, &error_); },
       "engine: count must not be null"},
      {[&] { return hadal_engine_export(e, 5, nullptr, &count, &error_); },
       "engine: bytes must not be null"},
      {[&] { return hadal_engine_export(e, 5, &bytes, nullptr, &error_); },
       "engine: count must not be null"},
      {[&] { return hadal_engine_export(e, 5, &bytes, &count, &error_); },
       "engine: a request to export must be running, got 5"},
      {[&] { return hadal_engine_import(e, nullptr, 5, nullptr, nullptr, &id, &error_); },
       "engine: bytes must not be null"},
      {[&] { return hadal_engine_import(e, "", 0, nullptr, nullptr, nullptr, &error_); },
       "engine: id must not be null"},
      {[&] { return hadal_engine_statistics(e, nullptr, &error_); },
       "engine: stats must not be null"},
      {[&] { return hadal_engine_describe(e, nullptr, &error_); },
       "engine: facts must not be null"},
      {[&] { return hadal_engine_warm_up(e, &warm_up, &error_); },
       "engine: options.struct_size must be 32 to 4096, got 0"},
  };
  for (const auto& refusal : refusals) {
    EXPECT_EQ(refusal.call(), HADAL_ERROR_INVALID_ARGUMENT) << refusal.message;
    EXPECT_STREQ(error_.message, refusal.message);
  }
  EXPECT_EQ(hadal_engine_import(e, "nonsense", 8, nullptr, nullptr, &id, &error_),
            HADAL_ERROR_MALFORMED)
      << error_.message;
  EXPECT_EQ(id, 0u);
  EXPECT_TRUE(hadal_engine_idle(e));
  // The cache could never hold it.
  const runtime::EngineRequest large = plain_request(250, 5);
  const AbiRequest asked(large);
  EXPECT_EQ(hadal_engine_add(e, &asked.request, &id, &error_), HADAL_OK);
  EXPECT_EQ(hadal_engine_cancel(e, id, &error_), HADAL_OK);
}

TEST_F(CapiEngineRefusalsGpu, WithoutATokenizer) {
  hadal_engine_options o = engine_options(2);
  o.flags = HADAL_ENGINE_NO_TOKENIZER;
  const EnginePtr plain = load_engine(o);
  ASSERT_TRUE(plain);
  EXPECT_EQ(hadal_engine_tokenizer(plain.get()), nullptr);
  static const char* const stops[] = {"a"};
  refused(
      "engine: text needs a tokenizer, got none",
      [](R& r) { r.prompt = nullptr, r.prompt_tokens = 0, r.text = "a"; }, HADAL_ERROR_UNSUPPORTED,
      plain.get());
  refused(
      "engine: stop needs a tokenizer, got none", [](R& r) { r.stop = stops, r.stop_count = 1; },
      HADAL_ERROR_UNSUPPORTED, plain.get());
  const runtime::EngineRequest request = plain_request();
  const auto id = add_request(plain.get(), AbiRequest(request).request);
  const auto given = run_engine(plain.get());
  EXPECT_EQ(given.at(id).given.ids.size(), 8u);
  EXPECT_EQ(given.at(id).text, "");
  const runtime::EngineRequest large = plain_request(100, 100);
  const AbiRequest asked(large);
  hadal_request_id none = 0;
  EXPECT_EQ(hadal_engine_add(plain.get(), &asked.request, &none, &error_),
            HADAL_ERROR_OUT_OF_DEVICE_MEMORY)
      << error_.message;
}

// Structures of other versions: shorter ones are refused below the first release's size, longer
// ones where they hold what this library does not know, and what it does not know stays untouched.
TEST_F(CapiEngineRefusalsGpu, StructuresOfOtherVersions) {
  const runtime::EngineRequest plain = plain_request();
  struct {
    hadal_engine_request request;
    uint64_t later;
  } newer{AbiRequest(plain).request, 0};
  newer.request.struct_size = sizeof(newer);
  EXPECT_EQ(hadal_engine_check(shared(), &newer.request, &error_), HADAL_OK) << error_.message;
  newer.later = 1;
  EXPECT_EQ(hadal_engine_check(shared(), &newer.request, &error_), HADAL_ERROR_UNSUPPORTED);
  EXPECT_EQ(std::string(error_.message),
            fmt::format("engine: request of {} bytes has members that this version does not know",
                        sizeof(newer)));
  struct {
    hadal_engine_stats stats;
    uint64_t later;
  } stats{abi<hadal_engine_stats>(), 0x5a5a};
  stats.stats.struct_size = sizeof(stats);
  EXPECT_EQ(hadal_engine_statistics(shared(), &stats.stats, &error_), HADAL_OK);
  EXPECT_EQ(stats.later, 0x5a5au);
  EXPECT_EQ(stats.stats.pages, 4u);
  EXPECT_EQ(stats.stats.struct_size, sizeof(stats));
}

}  // namespace
}  // namespace hadal::test
