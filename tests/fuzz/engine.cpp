#include "fuzz/engine.h"

#include <atomic>
#include <exception>
#include <random>

#include "fuzz/abi.h"
#include "fuzz/numbers.h"

namespace hadal::fuzz {
namespace {

std::string text_of(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// `call(count, out, error)` fills an array of the caller's. It is asked for the number, then with
// room for one less, without a count, and with exactly the room that it needs: `values`.
template <class T, class Call>
Outcome filled(const Call& call, std::vector<T>& values) {
  hadal_error error = HADAL_ERROR_INIT;
  const auto fault_if = [](bool wrong, const char* text) {
    return Outcome{.accepted = true, .fault = wrong ? text : ""};
  };
  size_t count = 12345;
  const hadal_status status = call(&count, nullptr, &error);
  if (status != HADAL_OK) {
    if (count != 12345) return {.fault = "a refusal changed the count"};
    return {.fault = fault_of(status, error)};
  }
  const size_t needed = count;
  const auto room = std::make_unique<T[]>(needed);
  if (needed > 0) {
    count = needed - 1;
    const hadal_status refused = call(&count, room.get(), &error);
    if (refused != HADAL_ERROR_INVALID_ARGUMENT || count != needed - 1) {
      return fault_if(true, "too little room is taken");
    }
    if (std::string fault = fault_of(refused, error); !fault.empty()) return {.fault = fault};
  }
  error = HADAL_ERROR_INIT;
  if (call(nullptr, room.get(), &error) != HADAL_ERROR_INVALID_ARGUMENT || !error.message[0]) {
    return fault_if(true, "no count is taken");
  }
  count = needed;
  error = HADAL_ERROR_INIT;
  const bool right = call(&count, room.get(), &error) == HADAL_OK && count == needed;
  values.assign(room.get(), room.get() + needed);
  return fault_if(!right, "the room that was asked for is not enough");
}

struct Texts {
  const hadal_tokenizer* tokenizer;
  Outcome encode(const std::string& text, uint32_t flags, std::vector<uint32_t>& ids) const {
    const std::vector<char> exact(text.begin(), text.end());  // no zero behind it
    return filled(
        [&](size_t* count, uint32_t* out, hadal_error* error) {
          return hadal_tokenizer_encode(tokenizer, exact.data(), exact.size(), flags, count, out,
                                        error);
        },
        ids);
  }
  Outcome decode(const std::vector<uint32_t>& ids, uint32_t flags, std::vector<char>& text) const {
    return filled(
        [&](size_t* count, char* out, hadal_error* error) {
          return hadal_tokenizer_decode(tokenizer, ids.data(), ids.size(), flags, count, out,
                                        error);
        },
        text);
  }
};

// `call(T*, error)` describes something: a structure of its size, or of another one.
template <class T, class Call>
Outcome described(ByteSource& random, const Call& call) {
  hadal_error error = HADAL_ERROR_INIT;
  T value = sized<T>();
  hadal_status status = HADAL_OK;
  if (random() % 4 == 0) {
    const auto other = with_other_size(value, random);
    status = call(reinterpret_cast<T*>(other.get()), &error);
  } else {
    status = call(random() % 16 == 1 ? nullptr : &value, &error);
  }
  if (value.struct_size != sizeof(value)) return {.fault = "the size of a structure was changed"};
  return {.accepted = status == HADAL_OK, .fault = fault_of(status, error)};
}

// An error of any size, of exactly its bytes, that a refusal writes into.
Outcome small_error(ByteSource& random) {
  const size_t bytes = random() % (sizeof(hadal_error) + 32);
  const auto memory = std::make_unique<unsigned char[]>(std::max(bytes, sizeof(size_t)));
  std::memcpy(memory.get(), &bytes, sizeof(bytes));
  const hadal_status status =
      hadal_engine_device_count(nullptr, reinterpret_cast<hadal_error*>(memory.get()));
  return {.fault = status == HADAL_ERROR_INVALID_ARGUMENT ? "" : "no count is taken"};
}

void change(hadal_engine_options& o, ByteSource& random) {
  switch (random() % 17) {
    case 0: o.max_context = uint32_t(number(random)); break;
    case 1: o.max_requests = uint32_t(number(random)); break;
    case 2: o.max_rows = uint32_t(number(random)); break;
    case 3: o.max_chunk = uint32_t(number(random)); break;
    case 4: o.cache_pages = uint32_t(number(random)); break;
    case 5: o.cache_pages = 0, o.cache_bytes = number(random); break;
    case 6: o.cache_format = uint32_t(number(random)) % 5; break;
    case 7: o.flags = uint32_t(number(random)) % 64; break;
    case 8: o.draft_source = uint32_t(number(random)) % 5; break;
    case 9: o.draft_depth = uint32_t(number(random)) % 12; break;
    case 10: o.step_seconds = double(real(random)); break;
    case 11: o.swap_bytes = number(random); break;
    case 12: o.read_ahead_bytes = number(random); break;
    case 13: o.aging_steps = uint32_t(number(random)); break;
    case 14: o.lock_queue = [](void*) {}; break;
    case 15: o.queue = VK_NULL_HANDLE; break;
    default: o.model_dir = random() % 2 ? nullptr : "/nonexistent"; break;
  }
}

// What was planned is what is loaded, and it runs.
std::string load_fault(const hadal_engine_options& o, const hadal_engine_memory& plan,
                       bool& loaded) {
  hadal_error error = HADAL_ERROR_INIT;
  hadal_engine* engine = nullptr;
  const hadal_status status = hadal_engine_load(&o, &engine, &error);
  std::string fault = fault_of(status, error, {HADAL_ERROR_OUT_OF_DEVICE_MEMORY});
  loaded = engine != nullptr;
  if (!loaded || !fault.empty()) return fault;
  auto facts = sized<hadal_engine_facts>();
  if (hadal_engine_describe(engine, &facts, &error) != HADAL_OK) fault = "no description";
  if (facts.cache_pages != plan.pages || facts.max_context != plan.context) {
    fault = "another engine than planned";
  }
  const uint32_t prompt[] = {5, 6, 7};
  auto request = sized<hadal_engine_request>();
  request.prompt = prompt, request.prompt_tokens = 3, request.max_new_tokens = 3;
  hadal_request_id id = 0;
  const hadal_status added = hadal_engine_add(engine, &request, &id, &error);
  if (fault.empty()) fault = fault_of(added, error, {HADAL_ERROR_OUT_OF_DEVICE_MEMORY});
  for (int i = 0; i < 10 && fault.empty() && !hadal_engine_idle(engine); ++i) {
    const hadal_engine_token* const* tokens = nullptr;
    size_t count = 0;
    if (hadal_engine_step(engine, &tokens, &count, &error) != HADAL_OK) fault = error.message;
    for (size_t t = 0; t < count && fault.empty(); ++t) fault = tokens[t]->message;
  }
  if (fault.empty() && !hadal_engine_idle(engine)) fault = "three tokens take more than ten steps";
  hadal_engine_destroy(engine);
  return fault;
}

}  // namespace

Outcome tokenizer_text(EngineWorld& world, Bytes bytes) {
  ByteSource random(bytes);
  const uint32_t how = random();
  const Texts texts{world.tokenizers()[0]};
  const uint32_t flags = how % 4 == 3 ? number(random) : how % 4 == 2 ? 0 : HADAL_TEXT_PLAIN;
  // Ids of the bytes' own, mostly of the vocabulary.
  std::vector<uint32_t> ids(how / 4 % 8), encoded;
  for (uint32_t& id : ids) id = how & 1024 ? random() : random() % 2100;
  std::vector<char> shown;
  Outcome outcome = texts.decode(ids, flags, shown);
  if (!outcome.fault.empty()) return outcome;

  const std::string text = text_of(random.rest());
  hadal_error error = HADAL_ERROR_INIT;
  uint32_t id = 77;
  const hadal_status found = hadal_tokenizer_id(texts.tokenizer, text.c_str(), &id, &error);
  if ((id != 77) != (found == HADAL_OK) && id != 77) return {.fault = "an id from a refusal"};
  if (std::string fault = fault_of(found, error); !fault.empty()) return {.fault = fault};

  const Outcome coded = texts.encode(text, flags, encoded);
  if (!coded.fault.empty() || !coded.accepted) return coded;
  outcome = texts.decode(encoded, HADAL_TEXT_PLAIN, shown);
  if (!outcome.fault.empty()) return outcome;
  if (!outcome.accepted) return {.fault = "its own ids are refused"};
  if (flags == HADAL_TEXT_PLAIN && std::string(shown.begin(), shown.end()) != text) {
    return {.fault = "a text does not come back"};
  }
  return outcome;
}

Outcome tokenizer_chat(EngineWorld& world, Bytes bytes) {
  const std::string all = text_of(bytes);
  const unsigned how = all.empty() ? 0 : static_cast<unsigned char>(all[0]) % 32;
  const auto& tokenizers = world.tokenizers();
  std::string lines[3];
  size_t at = 1;
  for (std::string& line : lines) {
    if (at >= all.size()) break;
    const size_t end = &line == &lines[2] ? all.size() : std::min(all.find('\n', at), all.size());
    line = all.substr(at, end - at), at = end + 1;
  }
  auto chat = sized<hadal_chat>();
  chat.messages = lines[0].c_str();
  if (!lines[1].empty()) chat.tools = lines[1].c_str();
  if (!lines[2].empty()) chat.variables = lines[2].c_str();
  chat.flags = how / 8;  // no generation prompt, an unknown one
  std::vector<char> text;
  return filled(
      [&](size_t* count, char* out, hadal_error* error) {
        return hadal_tokenizer_chat(tokenizers[how % 8 % tokenizers.size()], &chat, count, out,
                                    error);
      },
      text);
}

Outcome engine_facts(EngineWorld& world, Bytes bytes) {
  ByteSource random(bytes);
  const hadal_engine* engine = world.engine(random() % EngineWorld::kKinds);
  switch (random() % 5) {
    case 0: return small_error(random);
    case 1:
      return described<hadal_tokenizer_facts>(random, [&](auto* facts, hadal_error* error) {
        return hadal_tokenizer_describe(hadal_engine_tokenizer(engine), facts, error);
      });
    case 2:
      return described<hadal_engine_facts>(random, [&](auto* facts, hadal_error* error) {
        return hadal_engine_describe(engine, facts, error);
      });
    case 3:
      return described<hadal_engine_stats>(random, [&](auto* stats, hadal_error* error) {
        return hadal_engine_statistics(engine, stats, error);
      });
    default: {
      const uint32_t index = random() % 2 ? 0 : uint32_t(number(random));
      return described<hadal_engine_device>(random, [&](auto* device, hadal_error* error) {
        return hadal_engine_device_describe(index, device, error);
      });
    }
  }
}

Outcome engine_options(EngineWorld& world, Bytes bytes) {
  ByteSource random(bytes);
  hadal_engine_options o = world.options(random() % EngineWorld::kKinds);
  const bool load = random() % 16 == 1;
  if (random() % 32 == 1) {  // a device of the engine's own
    static const char* const kDevices[] = {"0", "7", "no such", ""};
    o.context = nullptr, o.queue = VK_NULL_HANDLE;
    if (random() % 2) o.device = kDevices[random() % std::size(kDevices)];
  }
  for (uint32_t changes = random() % 4; changes > 0; --changes) change(o, random);
  hadal_error error = HADAL_ERROR_INIT;
  auto memory = sized<hadal_engine_memory>();
  hadal_status status = HADAL_OK;
  if (random() % 8 == 1) {
    const auto other = with_other_size(o, random);
    status = hadal_engine_plan(reinterpret_cast<const hadal_engine_options*>(other.get()), &memory,
                               &error);
  } else if (random() % 8 == 1) {
    const auto other = with_other_size(memory, random);
    status = hadal_engine_plan(&o, reinterpret_cast<hadal_engine_memory*>(other.get()), &error);
  } else {
    status = hadal_engine_plan(&o, &memory, &error);
  }
  Outcome outcome{
      .accepted = status == HADAL_OK,
      .fault =
          fault_of(status, error, {HADAL_ERROR_IO, HADAL_ERROR_MALFORMED, HADAL_ERROR_NO_DEVICE})};
  if (memory.pages > memory.most_pages) outcome.fault = "more pages than fit";
  const uint64_t bytes_needed = memory.workspace_bytes + memory.pages * memory.page_bytes;
  if (outcome.fault.empty() && load && memory.pages > 0 && bytes_needed < 64 << 20) {
    bool loaded = false;
    outcome.fault = load_fault(o, memory, loaded);
  }
  return outcome;
}

Outcome engine_warm_up(EngineWorld& world, Bytes bytes) {
  ByteSource random(bytes);
  struct Asked {
    std::atomic<uint32_t> left;
    bool throws;
  };
  Asked asked{.left = random() % 40, .throws = random() % 4 == 1};
  hadal_engine* engine = world.engine(random() % EngineWorld::kKinds);
  auto o = sized<hadal_engine_warm_up_options>();
  o.threads = random() % 2 ? random() % 5 : uint32_t(number(random));
  o.prefill_tokens = uint32_t(number(random));
  if (random() % 16) {  // all of it takes long
    o.user = &asked;
    o.cancelled = [](void* user) {
      auto& left = static_cast<Asked*>(user)->left;
      if (left.fetch_sub(1) > 1) return 0;
      left = 1;
      if (static_cast<Asked*>(user)->throws) throw std::exception();
      return 1;
    };
  }
  hadal_error error = HADAL_ERROR_INIT;
  hadal_status status = HADAL_OK;
  if (random() % 8 == 1) {
    const auto other = with_other_size(o, random);
    status = hadal_engine_warm_up(
        engine, reinterpret_cast<const hadal_engine_warm_up_options*>(other.get()), &error);
  } else {
    status = hadal_engine_warm_up(engine, random() % 8 == 1 ? nullptr : &o, &error);
  }
  return {.accepted = status == HADAL_OK,
          .fault = fault_of(status, error, {HADAL_ERROR_CANCELLED})};
}

std::span<const EngineTarget> engine_targets() {
  static constexpr EngineTarget kTargets[] = {{"tokenizer_text", tokenizer_text, false, 500},
                                              {"tokenizer_chat", tokenizer_chat, false, 200},
                                              {"engine_facts", engine_facts, true, 60},
                                              {"engine_options", engine_options, true, 30},
                                              {"engine_warm_up", engine_warm_up, true, 10},
                                              {"engine_request", engine_request, true, 40},
                                              {"engine_import", engine_import, true, 300}};
  return kTargets;
}

std::vector<Seed> engine_seeds(const std::string& target) {
  std::vector<Seed> seeds;
  std::mt19937 random(37);
  for (int i = 0; i < 20; ++i) {
    Seed seed{"random-" + std::to_string(i), std::vector<uint8_t>(kEngineBytes)};
    for (uint8_t& byte : seed.bytes) byte = uint8_t(random());
    seeds.push_back(std::move(seed));
  }
  for (Seed& seed : seeds_of(target)) seeds.push_back(std::move(seed));
  return seeds;
}

}  // namespace hadal::fuzz
