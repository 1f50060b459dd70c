// The engine's C ABI as a host sees it, on a device of its own and on a host's: texts, states,
// callbacks, faults. That the tokens are those of the C++ classes: capi_engine_tokens_test.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>

#include "consumer/vulkan_host.h"
#include "support/capi_engine.h"
#include "support/safetensors_writer.h"

namespace hadal::test {
namespace {

class CapiEngineGpu : public SharedEngineTest<24> {};

TEST_F(CapiEngineGpu, FactsAndPlanAgree) {
  const hadal_engine_options o = engine_options();
  auto memory = abi<hadal_engine_memory>();
  ASSERT_EQ(hadal_engine_plan(&o, &memory, &error_), HADAL_OK) << error_.message;
  auto facts = abi<hadal_engine_facts>();
  ASSERT_EQ(hadal_engine_describe(shared(), &facts, &error_), HADAL_OK) << error_.message;
  EXPECT_EQ(memory.pages, 24u);
  EXPECT_EQ(facts.cache_pages, 24u);
  EXPECT_EQ(memory.page_tokens, facts.page_tokens);
  EXPECT_EQ(memory.context, 256u);
  EXPECT_EQ(facts.max_context, 256u);
  EXPECT_EQ(facts.max_requests, 6u);
  EXPECT_EQ(facts.max_rows, 6u);
  EXPECT_EQ(facts.max_chunk, 64u);
  EXPECT_EQ(memory.weights_bytes, facts.weights_bytes);
  EXPECT_EQ(memory.pages * memory.page_bytes, facts.cache_bytes);
  EXPECT_GE(facts.device_bytes, facts.weights_bytes + facts.cache_bytes);
  EXPECT_LE(memory.weights_bytes + memory.workspace_bytes + facts.cache_bytes, facts.device_bytes);
  EXPECT_EQ(facts.vocab_size, 2048u);
  EXPECT_STREQ(facts.architecture, "DeepseekV3ForCausalLM");
  EXPECT_NE(facts.device_name[0], 0);
  EXPECT_GE(facts.eos_count, 1u);
  EXPECT_GE(memory.most_pages, memory.pages);
  EXPECT_GE(memory.longest_context, 256u);

  uint32_t count = 0;
  ASSERT_EQ(hadal_engine_device_count(&count, &error_), HADAL_OK) << error_.message;
  bool found = false;
  for (uint32_t i = 0; i < count; ++i) {
    auto known = abi<hadal_engine_device>();
    ASSERT_EQ(hadal_engine_device_describe(i, &known, &error_), HADAL_OK) << error_.message;
    found = found || (std::string(known.name) == facts.device_name &&
                      std::string(known.driver) == facts.driver && !known.missing[0]);
    EXPECT_GT(known.memory_bytes, 0u);
  }
  EXPECT_TRUE(found);
  auto known = abi<hadal_engine_device>();
  EXPECT_EQ(hadal_engine_device_describe(count, &known, &error_), HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_EQ(error_.message, fmt::format("engine: index must be below {}, got {}", count, count));
}

// What does not fit is said by the plan, and by load with the numbers, before it allocates.
TEST_F(CapiEngineGpu, WhatDoesNotFitIsSaidBefore) {
  hadal_engine_options o = engine_options(4000000000u);
  auto memory = abi<hadal_engine_memory>();
  ASSERT_EQ(hadal_engine_plan(&o, &memory, &error_), HADAL_OK) << error_.message;
  EXPECT_EQ(memory.pages, 0u);
  hadal_engine* engine = nullptr;
  EXPECT_EQ(hadal_engine_load(&o, &engine, &error_), HADAL_ERROR_OUT_OF_DEVICE_MEMORY);
  EXPECT_EQ(engine, nullptr);
  EXPECT_NE(std::strstr(error_.message, "a context of"), nullptr) << error_.message;
  // In bytes, and left open: whole contexts of the requests.
  o.cache_pages = 0, o.cache_bytes = 10 * memory.page_bytes + 1;
  ASSERT_EQ(hadal_engine_plan(&o, &memory, &error_), HADAL_OK) << error_.message;
  EXPECT_EQ(memory.pages, 10u);
  o.cache_bytes = 0;
  ASSERT_EQ(hadal_engine_plan(&o, &memory, &error_), HADAL_OK) << error_.message;
  EXPECT_EQ(memory.pages, 6u * 256 / 64);
}

TEST_F(CapiEngineGpu, TextsInAndOut) {
  const hadal_tokenizer* tokenizer = hadal_engine_tokenizer(shared());
  ASSERT_TRUE(tokenizer);
  const std::string prompt = "Once upon a time";
  uint32_t ids[64];
  size_t count = std::size(ids);
  ASSERT_EQ(
      hadal_tokenizer_encode(tokenizer, prompt.data(), prompt.size(), 0, &count, ids, &error_),
      HADAL_OK);
  auto by_text = abi<hadal_engine_request>();
  by_text.text = prompt.c_str(), by_text.max_new_tokens = 30;
  hadal_engine_request by_ids = by_text;
  by_ids.text = nullptr, by_ids.prompt = ids, by_ids.prompt_tokens = count;
  hadal_engine_request part = by_text;
  const std::string longer = prompt + "!!";
  part.text = longer.c_str(), part.text_bytes = prompt.size();
  const auto a = add_request(shared(), by_text), b = add_request(shared(), by_ids);
  const auto c = add_request(shared(), part);
  const auto given = run_engine(shared());
  EXPECT_EQ(given.at(a).given.ids, given.at(b).given.ids);
  EXPECT_EQ(given.at(c).given.ids, given.at(b).given.ids);
  const std::string text = given.at(a).text;
  ASSERT_GT(text.size(), 10u);
  // A stop string out of it ends the text in front of it.
  const std::string stop = text.substr(6, 3);
  const char* stops[] = {stop.c_str()};
  by_text.stop = stops, by_text.stop_count = 1;
  const auto d = add_request(shared(), by_text);
  const AbiGiven stopped = run_engine(shared()).at(d);
  EXPECT_EQ(stopped.finish, uint32_t{HADAL_FINISH_STOP});
  EXPECT_EQ(stopped.text, text.substr(0, text.find(stop)));
}

// Without IGNORE_EOS a request ends behind an end-of-text token: one is forced by a bias.
TEST_F(CapiEngineGpu, EndsAtTheModelsEndOfText) {
  auto facts = abi<hadal_engine_facts>();
  ASSERT_EQ(hadal_engine_describe(shared(), &facts, &error_), HADAL_OK);
  runtime::EngineRequest plain = plain_request();
  plain.sampling.logit_bias = {{facts.eos_ids[0], 100.0f}};
  AbiRequest request(plain);
  const auto on = add_request(shared(), request.request);
  request.request.flags = 0;
  const auto off = add_request(shared(), request.request);
  const auto given = run_engine(shared());
  EXPECT_EQ(given.at(on).given.ids.size(), 8u);
  EXPECT_EQ(given.at(off).given.ids, (std::vector<uint32_t>{facts.eos_ids[0]}));
  EXPECT_EQ(given.at(off).finish, uint32_t{HADAL_FINISH_STOP});
}

// generation_config.json names more such tokens.
TEST_F(CapiEngineGpu, EndsAtTheTokensOfGenerationConfigToo) {
  hadal::testing::TempDir dir;
  for (const auto& file : std::filesystem::directory_iterator(kFables)) {
    std::filesystem::create_symlink(file.path(), dir / file.path().filename().string());
  }
  hadal::testing::write_file(dir / "generation_config.json", R"({"eos_token_id": [5, 1]})");
  hadal_engine_options options = engine_options();
  const std::string path = dir.path().string();
  options.model_dir = path.c_str();
  const EnginePtr engine = load_engine(options);
  ASSERT_NE(engine, nullptr);
  auto facts = abi<hadal_engine_facts>();
  ASSERT_EQ(hadal_engine_describe(engine.get(), &facts, &error_), HADAL_OK);
  EXPECT_EQ(std::vector<uint32_t>(facts.eos_ids, facts.eos_ids + facts.eos_count),
            (std::vector<uint32_t>{1, 5}));
  runtime::EngineRequest plain = plain_request();
  plain.sampling.logit_bias = {{5, 100.0f}};
  AbiRequest request(plain);
  request.request.flags = 0;
  const auto id = add_request(engine.get(), request.request);
  const auto given = run_engine(engine.get());
  EXPECT_EQ(given.at(id).given.ids, std::vector<uint32_t>{5});
  EXPECT_EQ(given.at(id).finish, uint32_t{HADAL_FINISH_STOP});
}

TEST_F(CapiEngineGpu, CancelsAndDeadlines) {
  const runtime::EngineRequest plain = plain_request(20, 50);
  AbiRequest request(plain);
  const auto cancelled = add_request(shared(), request.request);
  const auto kept = add_request(shared(), request.request);
  request.request.timeout_seconds = 1e-9;
  const auto late = add_request(shared(), request.request);
  auto given = run_engine(shared(), 3);
  EXPECT_EQ(hadal_engine_cancel(shared(), cancelled, &error_), HADAL_OK);
  EXPECT_EQ(hadal_engine_cancel(shared(), cancelled, &error_), HADAL_OK);
  EXPECT_EQ(hadal_engine_cancel(shared(), 0, &error_), HADAL_OK);
  const auto rest = run_engine(shared());
  EXPECT_FALSE(rest.count(cancelled));
  EXPECT_EQ(rest.at(kept).finish, uint32_t{HADAL_FINISH_LENGTH});
  EXPECT_EQ(given.at(kept).given.ids.size() + rest.at(kept).given.ids.size(), 50u);
  EXPECT_EQ(given.at(late).finish, uint32_t{HADAL_FINISH_DEADLINE});
  EXPECT_TRUE(given.at(late).given.ids.empty());
}

TEST_F(CapiEngineGpu, WarmUpMakesPipelinesAndCanBeCancelled) {
  struct Asked {
    std::atomic<int> times{0};
  } asked;
  const auto never = [](void* user) { return ++static_cast<Asked*>(user)->times, 0; };
  const auto always = [](void*) { return 1; };
  const auto throws = [](void*) -> int { throw std::runtime_error("no"); };
  auto options = abi<hadal_engine_warm_up_options>();
  const auto warm_up = [&](uint32_t threads, int (*cancelled)(void*)) {
    options.threads = threads, options.cancelled = cancelled, options.user = &asked;
    return hadal_engine_warm_up(shared(), &options, &error_);
  };
  EXPECT_EQ(warm_up(2, always), HADAL_ERROR_CANCELLED);
  EXPECT_EQ(warm_up(2, throws), HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_STREQ(error_.message, "engine: cancelled must not throw");
  EXPECT_EQ(warm_up(1025, never), HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_STREQ(error_.message, "engine: threads must be at most 1024, got 1025");
  EXPECT_EQ(asked.times, 0);
  options.prefill_tokens = 5;
  EXPECT_EQ(warm_up(0, never), HADAL_OK) << error_.message;
  EXPECT_GT(asked.times, 3);
}

// A prefill here, the rest in another engine; and moved in the middle of decoding.
TEST_F(CapiEngineGpu, ARequestGoesOnInAnotherEngine) {
  const EnginePtr other = load_engine(engine_options(12));
  ASSERT_TRUE(other);
  runtime::EngineRequest plain = plain_request(70, 20);
  plain.sampling.temperature = 0.9f, plain.sampling.seed = 3, plain.logprobs = 2;
  plain.mask = [](std::span<const uint32_t> generated, std::span<uint32_t> bits) {
    for (uint32_t& word : bits) word = generated.size() % 2 ? 0x5a5a5a5a : ~0u;
    return true;
  };
  AbiRequest request(plain);
  const auto whole = add_request(shared(), request.request);
  const Given expected = run_engine(shared()).at(whole).given;
  ASSERT_EQ(expected.ids.size(), 20u);

  const void* bytes = nullptr;
  size_t count = 0;
  request.request.flags |= HADAL_REQUEST_PREFILL_ONLY;
  const auto first = add_request(shared(), request.request);
  Given given = run_engine(shared()).at(first).given;
  EXPECT_EQ(given.ids.size(), 1u);
  ASSERT_EQ(hadal_engine_export(shared(), first, &bytes, &count, &error_), HADAL_OK)
      << error_.message;
  const std::vector<char> state(static_cast<const char*>(bytes),
                                static_cast<const char*>(bytes) + count);
  hadal_request_id id = 0;
  EXPECT_EQ(hadal_engine_import(other.get(), state.data(), count, nullptr, nullptr, &id, &error_),
            HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_STREQ(error_.message, "engine: the state's request has a mask, give it again");
  ASSERT_EQ(hadal_engine_import(other.get(), state.data(), count, request.request.mask,
                                request.request.mask_user, &id, &error_),
            HADAL_OK)
      << error_.message;
  const auto append = [&](const Given& more) {
    given.ids.insert(given.ids.end(), more.ids.begin(), more.ids.end());
    given.logprobs.insert(given.logprobs.end(), more.logprobs.begin(), more.logprobs.end());
  };
  append(run_engine(other.get(), 5)[id].given);
  EXPECT_LT(given.ids.size(), 20u);
  // Back again, while it runs.
  ASSERT_EQ(hadal_engine_export(other.get(), id, &bytes, &count, &error_), HADAL_OK);
  EXPECT_EQ(hadal_engine_cancel(other.get(), id, &error_), HADAL_OK);
  EXPECT_TRUE(hadal_engine_idle(other.get()));
  ASSERT_EQ(hadal_engine_import(shared(), bytes, count, request.request.mask,
                                request.request.mask_user, &id, &error_),
            HADAL_OK)
      << error_.message;
  append(run_engine(shared())[id].given);
  EXPECT_TRUE(given == expected);
  EXPECT_EQ(hadal_engine_export(shared(), first, &bytes, &count, &error_),
            HADAL_ERROR_INVALID_ARGUMENT);
}

struct Reentry {
  hadal_engine* engine = nullptr;
  hadal_status status = HADAL_OK;
  hadal_error error = HADAL_ERROR_INIT;
};

TEST_F(CapiEngineGpu, CallbacksThatMisbehaveEndTheirRequestOnly) {
  const runtime::EngineRequest plain = plain_request();
  AbiRequest request(plain);
  const auto good = add_request(shared(), request.request);
  const Given expected = run_engine(shared()).at(good).given;

  const auto beside = add_request(shared(), request.request);
  request.request.mask = [](void*, const uint32_t* generated, size_t count, uint32_t*,
                            size_t) -> int {
    if (count == 2) throw std::runtime_error(fmt::format("after {}", generated[1]));
    return 0;
  };
  const auto throws = add_request(shared(), request.request);
  request.request.mask = [](void*, const uint32_t*, size_t, uint32_t*, size_t) { return 7; };
  const auto wrong = add_request(shared(), request.request);
  request.request.mask = [](void*, const uint32_t*, size_t, uint32_t*, size_t) { return 1; };
  const auto none = add_request(shared(), request.request);
  const auto given = run_engine(shared());
  EXPECT_TRUE(given.at(beside).given == expected);
  EXPECT_EQ(given.at(throws).given.ids.size(), 2u);
  EXPECT_EQ(given.at(throws).message,
            fmt::format("sampling: the mask must not throw, got \"after {}\"", expected.ids[1]));
  EXPECT_EQ(given.at(wrong).message,
            "sampling: the mask must not throw, got \"mask must return 0 or 1, got 7\"");
  EXPECT_EQ(given.at(none).message, "sampling: the mask must allow a token, got none");
  for (const auto id : {throws, wrong, none}) {
    EXPECT_EQ(given.at(id).finish, uint32_t{HADAL_FINISH_FAILED});
    EXPECT_EQ(given.at(id).status, HADAL_ERROR_INVALID_ARGUMENT);
  }
}

// A call from a callback, or beside another thread's, is refused and changes nothing.
TEST_F(CapiEngineGpu, ACallInACallIsRefused) {
  const runtime::EngineRequest plain = plain_request();
  AbiRequest request(plain);
  const auto alone_id = add_request(shared(), request.request);
  const Given expected = run_engine(shared()).at(alone_id).given;
  Reentry reentry{shared()};
  request.request.mask_user = &reentry;
  request.request.mask = [](void* user, const uint32_t*, size_t count, uint32_t*, size_t) {
    auto& r = *static_cast<Reentry*>(user);
    if (count == 1) r.status = hadal_engine_cancel(r.engine, 1, &r.error);
    if (count == 2) {
      std::thread([&r] { r.status = hadal_engine_cancel(r.engine, 1, &r.error); }).join();
      auto other = abi<hadal_engine_request>();  // what may be called beside anything
      uint32_t ids[] = {5, 6};
      other.prompt = ids, other.prompt_tokens = 2;
      EXPECT_EQ(hadal_engine_check(r.engine, &other, nullptr), HADAL_OK);
    }
    if (count == 1 || count == 2) {
      EXPECT_EQ(r.status, HADAL_ERROR_INVALID_ARGUMENT);
      EXPECT_STREQ(r.error.message,
                   "engine: engine must not be in another call, of a thread or a callback");
      r.status = HADAL_OK;
    }
    return 0;
  };
  const auto id = add_request(shared(), request.request);
  EXPECT_TRUE(run_engine(shared()).at(id).given == expected);
}

TEST_F(CapiEngineGpu, ALoadIsCancelledByItsCallback) {
  hadal_engine_options o = engine_options();
  struct Seen {
    int calls = 0;
    uint64_t total = 0;
  } seen;
  o.progress_user = &seen;
  o.progress = [](void* user, uint64_t done, uint64_t total) {
    auto& s = *static_cast<Seen*>(user);
    EXPECT_LE(done, total);
    return s.total = total, ++s.calls;
  };
  hadal_engine* engine = nullptr;
  EXPECT_EQ(hadal_engine_load(&o, &engine, &error_), HADAL_ERROR_CANCELLED);
  EXPECT_EQ(seen.calls, 1);
  EXPECT_GT(seen.total, 1000000u);
  o.progress = [](void*, uint64_t, uint64_t) -> int { throw 5; };
  o.read_ahead_bytes = 1 << 20;
  EXPECT_EQ(hadal_engine_load(&o, &engine, &error_), HADAL_ERROR_INVALID_ARGUMENT);
  EXPECT_STREQ(error_.message, "engine: progress must not throw");
  EXPECT_EQ(engine, nullptr);
}

TEST_F(CapiEngineGpu, EnginesGoInAnyOrder) {
  const runtime::EngineRequest plain = plain_request();
  const AbiRequest request(plain);
  EnginePtr one = load_engine(engine_options()), two = load_engine(engine_options());
  ASSERT_TRUE(one && two);
  (void)add_request(one.get(), request.request);
  (void)run_engine(one.get(), 3);
  const auto id = add_request(two.get(), request.request);
  one.reset();  // with a request under way
  EXPECT_EQ(run_engine(two.get()).at(id).given.ids.size(), 8u);
}

// ---- on a host's device ------------------------------------------------------------------------

// A host's device whose submissions are watched, and fail when told to.
struct Watched {
  host_instance instance{};
  host_device device{};
  bool alive = false, locked = false;
  int locks = 0, submissions = 0, outside = 0;  // outside: of the lock
  int idle_waits = 0;                           // which ask for queues that are not hadal's
  bool lose = false, lock_throws = false, wait_fails = false;
  PFN_vkQueueSubmit submit = nullptr;
  PFN_vkWaitSemaphores wait = nullptr;
  PFN_vkGetDeviceProcAddr device_proc = nullptr;

  static inline Watched* current = nullptr;
  static VkResult VKAPI_PTR watch(VkQueue queue, uint32_t count, const VkSubmitInfo* infos,
                                  VkFence fence) {
    Watched& w = *current;
    ++w.submissions, w.outside += !w.locked;
    return w.lose ? VK_ERROR_DEVICE_LOST : w.submit(queue, count, infos, fence);
  }
  static VkResult VKAPI_PTR wait_or_fail(VkDevice device, const VkSemaphoreWaitInfo* info,
                                         uint64_t timeout) {
    Watched& w = *current;
    return std::exchange(w.wait_fails, false) ? VK_ERROR_OUT_OF_HOST_MEMORY
                                              : w.wait(device, info, timeout);
  }
  static VkResult VKAPI_PTR no_idle_wait(VkDevice) {
    ++current->idle_waits;
    return VK_SUCCESS;
  }
  static VkResult VKAPI_PTR no_queue_wait(VkQueue) {
    ++current->idle_waits;
    return VK_SUCCESS;
  }
  static PFN_vkVoidFunction VKAPI_PTR get_device(VkDevice device, const char* name) {
    const auto real = current->device_proc(device, name);
    const std::string_view wanted = name;
    if (wanted == "vkQueueSubmit") {
      current->submit = reinterpret_cast<PFN_vkQueueSubmit>(real);
      return reinterpret_cast<PFN_vkVoidFunction>(&watch);
    }
    if (wanted == "vkWaitSemaphores") {
      current->wait = reinterpret_cast<PFN_vkWaitSemaphores>(real);
      return reinterpret_cast<PFN_vkVoidFunction>(&wait_or_fail);
    }
    if (wanted == "vkDeviceWaitIdle") return reinterpret_cast<PFN_vkVoidFunction>(&no_idle_wait);
    if (wanted == "vkQueueWaitIdle") return reinterpret_cast<PFN_vkVoidFunction>(&no_queue_wait);
    return real;
  }
  static PFN_vkVoidFunction VKAPI_PTR get_instance(VkInstance instance, const char* name) {
    const auto real = current->instance.get(instance, name);
    if (std::string_view(name) != "vkGetDeviceProcAddr") return real;
    current->device_proc = reinterpret_cast<PFN_vkGetDeviceProcAddr>(real);
    return reinterpret_cast<PFN_vkVoidFunction>(&get_device);
  }

  Watched() {
    current = this;
    VkPhysicalDevice devices[8];
    alive = host_instance_create(&instance) && host_physical_devices(&instance, devices) > 0;
    if (alive) host_device_create(&instance, devices[0], &device);
  }
  ~Watched() {
    if (!alive) return;
    host_device_destroy(&device);
    EXPECT_EQ(instance.messages, 0);
    host_instance_destroy(&instance);
  }
  hadal_context_info info() {
    hadal_context_info known = host_context_info(&device);
    known.get_instance_proc_addr = &get_instance;
    return known;
  }
  hadal_engine_options options(const hadal_context_info& known) {
    hadal_engine_options o = engine_options();
    o.context = &known, o.queue = device.queue, o.queue_user = this;
    o.lock_queue = [](void* user) {
      auto& w = *static_cast<Watched*>(user);
      if (w.lock_throws) throw std::runtime_error("no lock");
      EXPECT_FALSE(w.locked);
      w.locked = true, ++w.locks;
    };
    o.unlock_queue = [](void* user) {
      auto& w = *static_cast<Watched*>(user);
      EXPECT_TRUE(w.locked);
      w.locked = false;
    };
    return o;
  }
};

TEST_F(CapiEngineGpu, OnTheHostsDeviceUnderTheHostsLock) {
  Watched host;
  if (!host.alive) GTEST_SKIP() << "no Vulkan device or validation layer";
  const runtime::EngineRequest plain = plain_request(40, 20);
  const AbiRequest request(plain);
  const auto own = add_request(shared(), request.request);
  const Given expected = run_engine(shared()).at(own).given;
  const hadal_context_info info = host.info();
  {
    const EnginePtr engine = load_engine(host.options(info));
    ASSERT_TRUE(engine);
    const auto id = add_request(engine.get(), request.request);
    EXPECT_TRUE(run_engine(engine.get()).at(id).given == expected);
    EXPECT_GE(host.submissions, 20);
    EXPECT_EQ(host.locks, host.submissions);
    EXPECT_EQ(host.outside, 0);
    // A lock that throws fails the submission; the engine goes on.
    host.lock_throws = true;
    const auto failed = add_request(engine.get(), request.request);
    const AbiGiven given = run_engine(engine.get()).at(failed);
    EXPECT_EQ(given.finish, uint32_t{HADAL_FINISH_FAILED});
    EXPECT_EQ(given.message, "engine: lock_queue must not throw");
    host.lock_throws = false;
    const auto again = add_request(engine.get(), request.request);
    EXPECT_TRUE(run_engine(engine.get()).at(again).given == expected);
    // A wait that fails ends its requests after hadal's own work; no other queue is waited for.
    host.wait_fails = true;
    const auto unwaited = add_request(engine.get(), request.request);
    EXPECT_EQ(run_engine(engine.get()).at(unwaited).finish, uint32_t{HADAL_FINISH_FAILED});
    EXPECT_FALSE(host.wait_fails);
    const auto last = add_request(engine.get(), request.request);
    EXPECT_TRUE(run_engine(engine.get()).at(last).given == expected);
  }
  EXPECT_EQ(host.idle_waits, 0);
}

TEST_F(CapiEngineGpu, ALostDeviceIsSaid) {
  Watched host;
  if (!host.alive) GTEST_SKIP() << "no Vulkan device or validation layer";
  const hadal_context_info info = host.info();
  const EnginePtr engine = load_engine(host.options(info));
  ASSERT_TRUE(engine);
  const runtime::EngineRequest plain = plain_request(20, 20);
  const AbiRequest request(plain);
  const auto first = add_request(engine.get(), request.request);
  const auto second = add_request(engine.get(), request.request);
  (void)run_engine(engine.get(), 3);
  host.lose = true;
  const auto given = run_engine(engine.get(), 2);
  for (const auto id : {first, second}) {
    EXPECT_EQ(given.at(id).finish, uint32_t{HADAL_FINISH_FAILED});
    EXPECT_EQ(given.at(id).status, HADAL_ERROR_DEVICE_LOST);
  }
  const hadal_engine_token* const* tokens = nullptr;
  size_t count = 0;
  EXPECT_EQ(hadal_engine_step(engine.get(), &tokens, &count, &error_), HADAL_ERROR_DEVICE_LOST);
  hadal_request_id id = 0;
  EXPECT_EQ(hadal_engine_add(engine.get(), &request.request, &id, &error_),
            HADAL_ERROR_DEVICE_LOST);
  EXPECT_EQ(id, 0u);
  EXPECT_EQ(hadal_engine_check(engine.get(), &request.request, &error_), HADAL_OK);
  EXPECT_TRUE(hadal_engine_idle(engine.get()));
}

}  // namespace
}  // namespace hadal::test
