#include "fuzz/engine_run.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <memory>

#include "fuzz/engine_world.h"
#include "fuzz/numbers.h"

namespace hadal::fuzz {
namespace {

constexpr uint32_t kVocabulary = EngineWorld::kVocabulary;

int masked(void* user, const uint32_t* generated, size_t count, uint32_t* allowed, size_t words) {
  switch (*static_cast<const Mask*>(user)) {
    case Mask::kAll: return 0;
    case Mask::kNothing: return 1;
    case Mask::kSome:  // of the last token, as grammars go
      for (uint32_t i = 0; i < 9; ++i) {
        const uint32_t id = ((count ? generated[count - 1] : 1) * 31 + i * 97) % kVocabulary;
        allowed[id / 32] |= 1u << id % 32;
      }
      return 1;
    case Mask::kEveryBit: std::fill_n(allowed, words, ~0u); return 1;
    case Mask::kAnswer: return 7;
    default: throw std::exception();
  }
}

void draw_prompt(Asked& a, ByteSource& random) {
  auto& r = a.request;
  if (random() % 8 == 1) {
    static const char* const kTexts[] = {"Once upon a time",
                                         "<\uff5cend\u2581of\u2581sentence\uff5c>", "\xe2\x82",
                                         "a\xf0\x9f\x98\x80z"};
    a.text = kTexts[random() % std::size(kTexts)];
    r.text = a.text.c_str();
    r.text_bytes = random() % (a.text.size() + 1);
    if (random() % 4 == 1) r.flags |= HADAL_REQUEST_PLAIN_TEXT;
    return;
  }
  a.prompt.resize(random() % 8 ? random() % 40 : random() % 300);
  const uint32_t first = random(), stride = random() % 3;
  for (uint32_t i = 0; i < a.prompt.size(); ++i) a.prompt[i] = (first + stride * i) % kVocabulary;
  if (!a.prompt.empty() && random() % 16 == 1) {
    a.prompt[random() % a.prompt.size()] = uint32_t(number(random));
  }
  r.prompt = a.prompt.data(), r.prompt_tokens = a.prompt.size();
  if (random() % 32 == 1)
    r.prompt_tokens = EngineWorld::kContext + number(random) / 2;  // refused before it is read
}

void draw_sampling(Asked& a, ByteSource& random) {
  auto& r = a.request;
  if (random() % 2) r.temperature = real(random);
  if (random() % 2) r.top_k = uint32_t(number(random));
  if (random() % 4 == 0) r.top_p = real(random);
  if (random() % 4 == 0) r.min_p = real(random);
  r.seed = number(random);
  if (random() % 4 == 0) r.repetition_penalty = real(random);
  if (random() % 4 == 0) r.presence_penalty = real(random);
  if (random() % 4 == 0) r.frequency_penalty = real(random);
  a.bias.resize(random() % 3);
  for (auto& b : a.bias) b = {random() % (kVocabulary + 3), real(random)};
  r.logit_bias = a.bias.data(), r.logit_bias_count = a.bias.size();
  if (random() % 4 == 1) {
    a.mask = Mask(random() % uint32_t(Mask::kCount));
    r.mask = masked, r.mask_user = &a.mask;
  }
}

void draw_end(Asked& a, ByteSource& random) {
  static const char* const kStops[] = {"the", "\xff", "", "\xe2\x82", " "};
  auto& r = a.request;
  r.max_new_tokens = random() % 2 ? random() % 20 : uint32_t(number(random));
  r.flags |= random() % 4 ? random() % 8 : random() % 64;
  if (r.flags & HADAL_REQUEST_LOGPROBS) r.top_logprobs = random() % 23;
  a.stop_ids.resize(random() % 3);
  for (uint32_t& id : a.stop_ids) id = random() % 4 ? random() % kVocabulary : random();
  r.stop_ids = a.stop_ids.data(), r.stop_ids_count = a.stop_ids.size();
  if (random() % 8 == 1) {
    for (uint32_t n = 1 + random() % 3; n > 0; --n) {
      a.stop.push_back(random() % 16 ? kStops[random() % std::size(kStops)] : nullptr);
    }
    r.stop = a.stop.data(), r.stop_count = a.stop.size();
  }
  if (random() % 8 == 1) r.timeout_seconds = double(real(random));
  r.priority = int32_t(random());
  // Counts that no array has are refused before it is read.
  switch (random() % 64) {
    case 1: r.stop_ids_count = number(random) | uint64_t{1} << 32; break;
    case 2: r.stop_count = number(random) | uint64_t{1} << 32; break;
    case 3: r.logit_bias_count = number(random) | uint64_t{1} << 32; break;
    default: break;
  }
}

}  // namespace

bool Run::expect(hadal_status status, std::initializer_list<hadal_status> also) {
  fail(fault_of(status, error_, also));
  error_ = HADAL_ERROR_INIT;
  return status == HADAL_OK;
}

void Run::fail(const std::string& text) {
  if (fault_.empty()) fault_ = text;
}

hadal_request_id Run::some_id() {
  if (live_.empty() || (*random_)() % 8 == 1) return number(*random_);
  auto at = live_.begin();
  std::advance(at, (*random_)() % live_.size());
  return at->first;
}

void Run::add() {
  ByteSource& random = *random_;
  Asked& a = asked_.emplace_back();
  draw_prompt(a, random);
  draw_sampling(a, random);
  draw_end(a, random);
  const hadal_engine_request* request = &a.request;
  std::unique_ptr<unsigned char[]> other;
  if (random() % 16 == 1) {
    other = with_other_size(a.request, random);
    request = reinterpret_cast<const hadal_engine_request*>(other.get());
  }
  const hadal_status checked = hadal_engine_check(engine_, request, &error_);
  const std::string said = error_.message;
  expect(checked, {HADAL_ERROR_OUT_OF_DEVICE_MEMORY});
  hadal_request_id id = 0;
  const hadal_status added = hadal_engine_add(engine_, request, &id, &error_);
  if (added != checked || said != error_.message) fail("check says something else than add");
  if ((id != 0) != (added == HADAL_OK)) fail("an id from a request that was refused");
  if (!expect(added, {HADAL_ERROR_OUT_OF_DEVICE_MEMORY})) return;
  ++taken_;
  Live live;
  live.finite = true;
  if (a.request.mask) live.mask = &a.mask;
  if (a.request.max_new_tokens) live.most = a.request.max_new_tokens;
  live.logprobs = a.request.flags & HADAL_REQUEST_LOGPROBS, live.top = a.request.top_logprobs;
  if (!live_.emplace(id, live).second) fail("an id twice");
}

void Run::take(const hadal_engine_token& token) {
  const auto found = live_.find(token.request);
  if (found == live_.end()) return fail("an entry of no request");
  Live& live = found->second;
  if (token.struct_size != sizeof(token)) fail("an entry of another size");
  if (!token.text || token.text[token.text_bytes] != 0) fail("a text without its zero");
  if (!token.message || !token.message[0] != (token.status == HADAL_OK)) {
    fail("a message that the status does not go with");
  }
  if ((token.status != HADAL_OK) != (token.finish == HADAL_FINISH_FAILED)) {
    fail("a status that the end does not go with");
  }
  if (token.finish > HADAL_FINISH_EXPORTED) fail("an end that there is not");
  if (token.has_token && token.id >= kVocabulary) fail("a token outside the vocabulary");
  if (token.has_token && ++live.tokens > live.most) fail("more tokens than asked for");
  if (token.has_logprob && !live.logprobs) fail("a log-probability that nobody asked for");
  if (token.top_count > live.top) fail("more log-probabilities than asked for");
  if (live.finite && token.has_logprob && !(token.logprob <= 0.0f)) {
    fail("a log-probability that is not one");
  }
  for (size_t i = 0; i < token.top_count; ++i) {
    if (token.top[i].id >= kVocabulary) fail("a probable token outside the vocabulary");
  }
  if (token.finish == HADAL_FINISH_NONE) return;
  if (token.finish == HADAL_FINISH_EXPORTED) handed_over_.insert(*found);
  live_.erase(found);
}

void Run::step() {
  const hadal_engine_token* const* tokens = nullptr;
  size_t count = 0;
  if (!expect(hadal_engine_step(engine_, &tokens, &count, &error_))) return fail("no step");
  for (size_t t = 0; t < count; ++t) take(*tokens[t]);
  auto stats = sized<hadal_engine_stats>();
  expect(hadal_engine_statistics(engine_, &stats, &error_));
  if (stats.pages != stats.pages_free + stats.pages_cached + stats.pages_used) {
    fail("pages that are nowhere");
  }
  if (stats.waiting + stats.running != live_.size()) fail("another number of requests");
}

void Run::cancel() {
  const hadal_request_id id = some_id();
  expect(hadal_engine_cancel(engine_, id, &error_));
  live_.erase(id);
  handed_over_.erase(id);
}

std::vector<unsigned char> Run::exported(hadal_request_id id) {
  const void* bytes = nullptr;
  size_t count = 0;
  const hadal_status status = hadal_engine_export(engine_, id, &bytes, &count, &error_);
  if (!expect(status)) return {};
  const auto* begin = static_cast<const unsigned char*>(bytes);
  return {begin, begin + count};
}

bool Run::import(const std::vector<unsigned char>& state, const Live& live) {
  hadal_request_id id = 0;
  const hadal_status status = hadal_engine_import(
      engine_, state.data(), state.size(), live.mask ? masked : nullptr, live.mask, &id, &error_);
  if ((id != 0) != (status == HADAL_OK)) fail("an id from a state that was refused");
  refused_ = error_.message;
  if (!expect(status, {HADAL_ERROR_MALFORMED, HADAL_ERROR_OUT_OF_DEVICE_MEMORY})) return false;
  if (!live_.emplace(id, live).second) fail("an id twice");
  return true;
}

bool Run::import(const std::vector<unsigned char>& state, Mask* mask) {
  Live live;
  live.mask = mask;
  return import(state, live);
}

void Run::move() {
  hadal_request_id id = some_id();
  if (!handed_over_.empty() && (*random_)() % 2) id = handed_over_.begin()->first;
  const bool once = handed_over_.contains(id), running = live_.contains(id);
  const std::vector<unsigned char> state = exported(id);
  if (state.empty() != !(once || running)) return fail("what can be exported is something else");
  if (state.empty()) return;
  const Live live = once ? handed_over_.at(id) : live_.at(id);
  if (once && !exported(id).empty()) fail("a state that is given once is given twice");
  handed_over_.erase(id);
  if (!import(state, live)) fail("its own state is refused: " + refused_);
}

void Run::end() {
  for (const auto& [id, live] : live_) expect(hadal_engine_cancel(engine_, id, &error_));
  for (const auto& [id, live] : handed_over_) {
    expect(hadal_engine_cancel(engine_, id, &error_));
    if (!exported(id).empty()) fail("a state that was cancelled");
  }
  if (!hadal_engine_idle(engine_)) fail("requests that nobody has");
  auto stats = sized<hadal_engine_stats>();
  expect(hadal_engine_statistics(engine_, &stats, &error_));
  if (stats.pages_used > 0) fail("pages that no request has are used");
}

}  // namespace hadal::fuzz
