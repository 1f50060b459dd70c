// hadal_engine_request to what the engine takes.
#include <cmath>
#include <stdexcept>

#include "engine.h"

namespace hadal::capi {
namespace {

constexpr uint32_t kKnownFlags = HADAL_REQUEST_LOGPROBS | HADAL_REQUEST_IGNORE_EOS |
                                 HADAL_REQUEST_PREFILL_ONLY | HADAL_REQUEST_PLAIN_TEXT;
constexpr size_t kMostStops = 65536;     // of either kind
constexpr double kLongestTimeout = 1e9;  // seconds; the clock counts nanoseconds in 63 bits

Status refuse(std::string_view text) {
  return invalid(kEngine, text);
}

// An array of the caller's: `count` of them behind `pointer`.
Status check_array(std::string_view name, const void* pointer, size_t count, size_t most) {
  if (count > most)
    return refuse(fmt::format("{}_count must be at most {}, got {}", name, most, count));
  if (!pointer && count) return refuse(fmt::format("{} must not be null", name));
  return {};
}

Result<std::vector<uint32_t>> read_prompt(const hadal_engine& engine,
                                          const hadal_engine_request& r) {
  if (!r.prompt == !r.text) return refuse("prompt or text must be given, and not both");
  if (!r.prompt && r.prompt_tokens) return refuse("prompt must not be null with prompt_tokens");
  if (!r.text && r.text_bytes) return refuse("text must not be null with text_bytes");
  if (r.flags & HADAL_REQUEST_PLAIN_TEXT && !r.text) {
    return refuse("flags must have PLAIN_TEXT with text only");
  }
  const uint32_t context = engine.model->options().max_context;
  if (r.prompt) {  // before so much is read
    if (r.prompt_tokens >= context) {
      return refuse(fmt::format("prompt_tokens must be below the context of {}, got {}", context,
                                r.prompt_tokens));
    }
    return std::vector<uint32_t>(r.prompt, r.prompt + r.prompt_tokens);
  }
  if (!engine.tokenizer) {
    return Status(Errc::kUnsupported, "engine: text needs a tokenizer, got none");
  }
  const std::string_view text =
      r.text_bytes ? std::string_view(r.text, r.text_bytes) : std::string_view(r.text);
  return engine.tokenizer->tokenizer.encode(text, !(r.flags & HADAL_REQUEST_PLAIN_TEXT));
}

Status read_sampling(const hadal_engine& engine, const hadal_engine_request& r,
                     runtime::SamplingOptions& s) {
  s.temperature = r.temperature, s.top_k = r.top_k, s.min_p = r.min_p, s.seed = r.seed;
  if (r.top_p != 0.0f) s.top_p = r.top_p;
  if (r.repetition_penalty != 0.0f) s.repetition_penalty = r.repetition_penalty;
  s.presence_penalty = r.presence_penalty, s.frequency_penalty = r.frequency_penalty;
  const uint32_t vocab = engine.model->config().vocab_size;
  HADAL_TRY(check_array("logit_bias", r.logit_bias, r.logit_bias_count, vocab));
  for (size_t i = 0; i < r.logit_bias_count; ++i) {
    s.logit_bias.push_back({r.logit_bias[i].id, r.logit_bias[i].value});
  }
  return {};
}

Status read_stops(const hadal_engine& engine, const hadal_engine_request& r,
                  runtime::EngineRequest& request) {
  HADAL_TRY(check_array("stop_ids", r.stop_ids, r.stop_ids_count, kMostStops));
  HADAL_TRY(check_array("stop", r.stop, r.stop_count, kMostStops));
  request.stop_ids.assign(r.stop_ids, r.stop_ids + r.stop_ids_count);
  if (!(r.flags & HADAL_REQUEST_IGNORE_EOS)) {
    const auto& eos = engine.end_ids;
    request.stop_ids.insert(request.stop_ids.end(), eos.begin(), eos.end());
  }
  for (size_t i = 0; i < r.stop_count; ++i) {
    if (!r.stop[i]) return refuse(fmt::format("stop[{}] must not be null", i));
    request.stop.emplace_back(r.stop[i]);
  }
  if (r.stop_count && !engine.tokenizer) {
    return {Errc::kUnsupported, "engine: stop needs a tokenizer, got none"};
  }
  return {};
}

}  // namespace

runtime::TokenMask token_mask(hadal_mask_fn mask, void* user) {
  if (!mask) return {};
  return [mask, user](std::span<const uint32_t> generated, std::span<uint32_t> allowed) {
    const int answer =
        mask(user, generated.data(), generated.size(), allowed.data(), allowed.size());
    if (answer == 0 || answer == 1) return answer == 1;
    throw std::runtime_error(fmt::format("mask must return 0 or 1, got {}", answer));
  };
}

Result<runtime::EngineRequest> read_request(const hadal_engine& engine,
                                            const hadal_engine_request* given) {
  hadal_engine_request r{};
  HADAL_TRY(read_struct(kEngine, "request", given, r));
  HADAL_TRY(check_flags(kEngine, r.flags, kKnownFlags));
  runtime::EngineRequest request;
  HADAL_ASSIGN(request.prompt, read_prompt(engine, r));
  HADAL_TRY(read_sampling(engine, r, request.sampling));
  HADAL_TRY(read_stops(engine, r, request));
  request.max_new_tokens = r.max_new_tokens ? r.max_new_tokens : UINT32_MAX;
  if (r.flags & HADAL_REQUEST_LOGPROBS) {
    request.logprobs = r.top_logprobs;
  } else if (r.top_logprobs) {
    return refuse(fmt::format("top_logprobs must be 0 without LOGPROBS, got {}", r.top_logprobs));
  }
  request.mask = token_mask(r.mask, r.mask_user);
  request.priority = r.priority;
  request.prefill_only = r.flags & HADAL_REQUEST_PREFILL_ONLY;
  if (!(r.timeout_seconds >= 0.0 && r.timeout_seconds <= kLongestTimeout)) {
    return refuse(
        fmt::format("timeout_seconds must be 0 to {}, got {}", kLongestTimeout, r.timeout_seconds));
  }
  if (r.timeout_seconds > 0.0) {
    using Clock = std::chrono::steady_clock;
    request.deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                          std::chrono::duration<double>(r.timeout_seconds));
  }
  return request;
}

}  // namespace hadal::capi
