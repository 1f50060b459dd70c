// A fuzz target per entry point of the engine's C ABI that takes sizes, numbers or bytes: refused
// with a status and a message, or done. What may not happen is a crash, or an error without a text.
#include <gtest/gtest.h>

#include <random>

#include "support/capi_engine.h"
#include "support/fuzz.h"

namespace hadal::test {
namespace {

using hadal::testing::FuzzRounds;

class CapiEngineFuzzGpu : public SharedEngineTest<6> {
 protected:
  uint64_t number() {
    static constexpr uint64_t kEdges[] = {
        0,    1,    2,          63,         64,         65,         255,   256,       257,
        2047, 2048, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 32, ~0ull, ~0ull >> 1};
    switch (random_() % 3) {
      case 0: return kEdges[random_() % std::size(kEdges)];
      case 1: return random_() % 300;
      default: return uint64_t{random_()} << random_() % 33 >> random_() % 64;
    }
  }
  float real() {
    switch (random_() % 4) {
      case 0: return std::bit_cast<float>(uint32_t(random_()));
      case 1: return 0.0f;
      default: return float(int(random_() % 400) - 100) / 100.0f;
    }
  }
  void said_why(hadal_status status) {
    if (status == HADAL_OK) return;
    EXPECT_EQ(error_.status, status);
    EXPECT_NE(error_.message[0], 0);
    EXPECT_TRUE(status == HADAL_ERROR_INVALID_ARGUMENT || status == HADAL_ERROR_UNSUPPORTED ||
                status == HADAL_ERROR_OUT_OF_DEVICE_MEMORY || status == HADAL_ERROR_MALFORMED)
        << error_.message;
    error_ = HADAL_ERROR_INIT;
  }
  std::mt19937 random_{37};
};

// Any sizes, through the plan: what load() computes before it allocates.
TEST_F(CapiEngineFuzzGpu, Options) {
  int planned = 0;
  for (FuzzRounds rounds(60); rounds.next();) {
    hadal_engine_options o = engine_options(0);
    for (size_t changes = random_() % 4; changes > 0; --changes) {
      switch (random_() % 13) {
        case 0: o.max_context = uint32_t(number()); break;
        case 1: o.max_requests = uint32_t(number()); break;
        case 2: o.max_rows = uint32_t(number()); break;
        case 3: o.max_chunk = uint32_t(number()); break;
        case 4: o.cache_pages = uint32_t(number()); break;
        case 5: o.cache_bytes = number(); break;
        case 6: o.cache_format = uint32_t(number()) % 5; break;
        case 7: o.flags = uint32_t(number()) % 64; break;
        case 8: o.draft_source = uint32_t(number()) % 5; break;
        case 9: o.draft_depth = uint32_t(number()) % 12; break;
        case 10: o.step_seconds = double(real()); break;
        case 11: o.struct_size = size_t(number()); break;
        default: o.swap_bytes = number(); break;
      }
    }
    if (o.struct_size > sizeof(o)) o.struct_size = sizeof(size_t);  // is read as far as it says
    auto memory = abi<hadal_engine_memory>();
    const hadal_status status = hadal_engine_plan(&o, &memory, &error_);
    said_why(status);
    planned += status == HADAL_OK;
    EXPECT_LE(memory.pages, memory.most_pages);
  }
  EXPECT_GT(planned, 0);
}

// Requests of any members; those that are taken run for a while beside each other.
TEST_F(CapiEngineFuzzGpu, Requests) {
  static const char* const stops[] = {"the", "\xff", "", "\xe2\x82"};
  int taken = 0;
  for (FuzzRounds rounds(150); rounds.next();) {
    std::vector<uint32_t> prompt(1 + random_() % 40);
    for (uint32_t& id : prompt) id = random_() % (random_() % 50 ? 2048 : 2060);
    std::vector<uint32_t> stop_ids(random_() % 3, uint32_t(random_()));
    std::vector<hadal_logit_bias> bias(random_() % 3);
    for (auto& b : bias) b = {uint32_t(random_() % 2060), real()};
    auto r = abi<hadal_engine_request>();
    if (random_() % 8) {
      r.prompt = prompt.data(), r.prompt_tokens = random_() % 8 ? prompt.size() : 0;
    } else {
      r.text = "Once upon\xe2\x82\xac", r.text_bytes = random_() % 13;
    }
    r.max_new_tokens = random_() % 2 ? uint32_t(random_() % 20) : uint32_t(number());
    if (random_() % 2) r.temperature = real();
    if (random_() % 2) r.top_k = uint32_t(number());
    if (random_() % 4 == 0) r.top_p = real();
    if (random_() % 4 == 0) r.min_p = real();
    r.seed = number();
    if (random_() % 4 == 0) r.repetition_penalty = real();
    if (random_() % 4 == 0) r.presence_penalty = real();
    if (random_() % 4 == 0) r.frequency_penalty = real();
    r.logit_bias = bias.data(), r.logit_bias_count = bias.size();
    r.flags = random_() % (random_() % 4 ? 16 : 64);
    if (r.flags & HADAL_REQUEST_LOGPROBS) r.top_logprobs = random_() % 23;
    r.stop_ids = stop_ids.data(), r.stop_ids_count = stop_ids.size();
    if (random_() % 8 == 0) r.stop = stops, r.stop_count = 1 + random_() % std::size(stops);
    if (random_() % 8 == 0) r.timeout_seconds = double(real());
    r.priority = int32_t(random_());
    hadal_request_id id = 0;
    const hadal_status status = hadal_engine_add(shared(), &r, &id, &error_);
    said_why(status);
    ASSERT_EQ(id != 0, status == HADAL_OK);
    taken += id != 0;
    for (const auto& [ended, given] : run_engine(shared(), 2)) {
      if (given.finish == HADAL_FINISH_EXPORTED) {
        EXPECT_EQ(hadal_engine_cancel(shared(), ended, &error_), HADAL_OK);
      }
    }
    if (random_() % 3 == 0) said_why(hadal_engine_cancel(shared(), random_() % 200, &error_));
  }
  for (hadal_request_id id = 0; id < 100000 && !hadal_engine_idle(shared()); ++id) {
    (void)hadal_engine_cancel(shared(), id, &error_);
  }
  EXPECT_TRUE(hadal_engine_idle(shared()));
  EXPECT_GT(taken, 10);
}

// A state with changed bytes is refused, or goes on.
TEST_F(CapiEngineFuzzGpu, States) {
  runtime::EngineRequest plain = plain_request(20, 5);
  plain.sampling.logit_bias = {{4, 1.0f}, {9, -2.0f}}, plain.stop = {"zzz"};
  AbiRequest request(plain);
  request.request.flags |= HADAL_REQUEST_PREFILL_ONLY;
  const auto id = add_request(shared(), request.request);
  (void)run_engine(shared());
  const void* bytes = nullptr;
  size_t count = 0;
  ASSERT_EQ(hadal_engine_export(shared(), id, &bytes, &count, &error_), HADAL_OK);
  const std::vector<unsigned char> state(static_cast<const unsigned char*>(bytes),
                                         static_cast<const unsigned char*>(bytes) + count);
  for (FuzzRounds rounds(300); rounds.next();) {
    std::vector<unsigned char> changed = state;
    for (size_t changes = 1 + random_() % 3; changes > 0; --changes) {
      const size_t most = random_() % 2 ? std::min<size_t>(changed.size(), 400) : changed.size();
      changed[random_() % most] = uint8_t(random_());
    }
    if (random_() % 4 == 0) changed.resize(random_() % (changed.size() + 1));
    hadal_request_id made = 0;
    said_why(hadal_engine_import(shared(), changed.data(), changed.size(), nullptr, nullptr, &made,
                                 &error_));
    if (made) {
      EXPECT_EQ(hadal_engine_cancel(shared(), made, &error_), HADAL_OK);
    }
  }
  EXPECT_TRUE(hadal_engine_idle(shared()));
}

// Bytes and ids of any kind for the text side.
TEST(CapiEngineFuzzHost, Texts) {
  hadal_error error = HADAL_ERROR_INIT;
  hadal_tokenizer* made = nullptr;
  ASSERT_EQ(hadal_tokenizer_load(kFables, &made, &error), HADAL_OK);
  const TokenizerPtr tokenizer(made);
  std::mt19937 random(41);
  for (FuzzRounds rounds(500); rounds.next();) {
    std::string text(random() % 40, 'a');
    for (char& c : text) c = char(random() % (random() % 4 ? 128 : 256));
    std::vector<uint32_t> ids(1 + random() % 80);
    size_t count = ids.size();
    if (hadal_tokenizer_encode(made, text.data(), text.size(), random() % 3, &count, ids.data(),
                               &error) == HADAL_OK) {
      ASSERT_LE(count, ids.size());
    }
    for (uint32_t& id : ids) id = random() % (random() % 64 ? 2048 : 2100);
    std::vector<char> out(1 + random() % 300);
    count = out.size();
    if (hadal_tokenizer_decode(made, ids.data(), ids.size(), random() % 3, &count, out.data(),
                               &error) == HADAL_OK) {
      ASSERT_LE(count, out.size());
    }
    uint32_t id = 0;
    (void)hadal_tokenizer_id(made, text.c_str(), &id, &error);
    auto chat = abi<hadal_chat>();
    chat.messages = text.c_str(), chat.flags = random() % 3;
    EXPECT_NE(hadal_tokenizer_chat(made, &chat, &count, nullptr, &error), HADAL_OK);
  }
}

}  // namespace
}  // namespace hadal::test
