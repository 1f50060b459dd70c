// A loaded engine: requests, steps, states, statistics.
#include "engine.h"

#include <algorithm>

using namespace hadal;        // NOLINT: entry points of the C ABI
using namespace hadal::capi;  // NOLINT

namespace {

static_assert(int(runtime::FinishReason::kNone) == HADAL_FINISH_NONE);
static_assert(int(runtime::FinishReason::kLength) == HADAL_FINISH_LENGTH);
static_assert(int(runtime::FinishReason::kStop) == HADAL_FINISH_STOP);
static_assert(int(runtime::FinishReason::kDeadline) == HADAL_FINISH_DEADLINE);
static_assert(int(runtime::FinishReason::kFailed) == HADAL_FINISH_FAILED);
static_assert(int(runtime::FinishReason::kExported) == HADAL_FINISH_EXPORTED);
static_assert(int(runtime::DraftSource::kMtp) == HADAL_DRAFT_MTP);
static_assert(int(runtime::DraftSource::kNgram) == HADAL_DRAFT_NGRAM);
static_assert(int(runtime::DraftSource::kBoth) == HADAL_DRAFT_BOTH);

// engine.tokens as entries of the ABI; they point into the tokens.
void make_entries(hadal_engine& e) {
  size_t top = 0;
  for (const runtime::EngineToken& token : e.tokens) {
    if (token.logprobs) top += token.logprobs->top.size();
  }
  e.top.clear(), e.entries.clear(), e.entry_pointers.clear();
  e.top.reserve(top), e.entries.reserve(e.tokens.size());
  for (const runtime::EngineToken& token : e.tokens) {
    hadal_engine_token entry{};
    entry.struct_size = sizeof(entry);
    entry.request = token.request;
    entry.has_token = token.has_token;
    entry.id = token.has_token ? token.id : 0;
    entry.text = token.text.c_str(), entry.text_bytes = token.text.size();
    entry.finish = hadal_finish(token.finish);
    entry.status = hadal_status(token.status.code());
    entry.message = token.status.message().c_str();
    if (token.logprobs) {
      entry.has_logprob = VK_TRUE, entry.logprob = token.logprobs->chosen;
      entry.top = e.top.data() + e.top.size(), entry.top_count = token.logprobs->top.size();
      for (const runtime::TokenLogprob& t : token.logprobs->top) e.top.push_back({t.id, t.logprob});
    }
    e.entries.push_back(entry);
  }
  for (const hadal_engine_token& entry : e.entries) e.entry_pointers.push_back(&entry);
}

}  // namespace

hadal_status hadal_engine_describe(const hadal_engine* engine, hadal_engine_facts* facts,
                                   hadal_error* error) {
  return guarded(error, [&]() -> Status {
    if (!engine) return invalid(kEngine, "engine must not be null");
    const model::ModelConfig& config = engine->model->config();
    const model::ModelOptions& options = engine->model->options();
    hadal_engine_facts known{};
    known.device_name = engine->device->caps().device_name.c_str();
    known.driver = engine->driver.c_str();
    known.device_bytes = engine->device->allocated_bytes();
    known.weights_bytes = engine->model->weights().device_bytes();
    known.cache_bytes = engine->cache->bytes();
    known.cache_pages = engine->cache->view().pages, known.page_tokens = runtime::kPageTokens;
    known.max_context = options.max_context, known.max_requests = engine->max_requests;
    known.max_rows = engine->max_rows, known.max_chunk = options.max_tokens;
    known.architecture = config.architecture.c_str();
    known.layers = config.num_hidden_layers;
    known.mtp_layers = config.num_nextn_predict_layers, known.vocab_size = config.vocab_size;
    known.bos_id = config.bos_token_id.value_or(HADAL_NO_TOKEN);
    known.eos_ids = engine->end_ids.data(), known.eos_count = engine->end_ids.size();
    return write_struct(kEngine, "facts", known, facts);
  });
}

const hadal_tokenizer* hadal_engine_tokenizer(const hadal_engine* engine) {
  return engine ? engine->tokenizer.get() : nullptr;
}

hadal_status hadal_engine_warm_up(hadal_engine* engine, const hadal_engine_warm_up_options* options,
                                  hadal_error* error) {
  return guarded(error, [&]() -> Status {
    const Turn turn(engine);
    HADAL_TRY(turn.status());
    hadal_engine_warm_up_options known{};
    if (options) HADAL_TRY(read_struct(kEngine, "options", options, known));
    constexpr uint32_t kMostThreads = 1024;
    if (known.threads > kMostThreads) {
      return invalid(
          kEngine, fmt::format("threads must be at most {}, got {}", kMostThreads, known.threads));
    }
    std::atomic<bool> threw = false;
    runtime::WarmUp warm_up;
    warm_up.threads = std::max(known.threads, 1u);
    warm_up.prefill_tokens = known.prefill_tokens;
    if (known.cancelled) {
      warm_up.cancelled = [&threw, known] {
        try {
          return known.cancelled(known.user) != 0;
        } catch (...) {
          threw = true;
          return true;
        }
      };
    }
    const Status status = engine->engine->warm_up(warm_up);
    return threw ? invalid(kEngine, "cancelled must not throw") : status;
  });
}

hadal_status hadal_engine_add(hadal_engine* engine, const hadal_engine_request* request,
                              hadal_request_id* id, hadal_error* error) {
  return guarded(error, [&]() -> Status {
    const Turn turn(engine);
    HADAL_TRY(turn.status());
    if (!id) return invalid(kEngine, "id must not be null");
    HADAL_ASSIGN(const runtime::EngineRequest known, read_request(*engine, request));
    HADAL_ASSIGN(*id, engine->engine->add(known));
    return {};
  });
}

hadal_status hadal_engine_check(const hadal_engine* engine, const hadal_engine_request* request,
                                hadal_error* error) {
  return guarded(error, [&]() -> Status {
    if (!engine) return invalid(kEngine, "engine must not be null");
    HADAL_ASSIGN(const runtime::EngineRequest known, read_request(*engine, request));
    return engine->engine->check(known);
  });
}

hadal_status hadal_engine_cancel(hadal_engine* engine, hadal_request_id id, hadal_error* error) {
  return guarded(error, [&]() -> Status {
    const Turn turn(engine);
    HADAL_TRY(turn.status());
    engine->engine->cancel(id);
    return {};
  });
}

hadal_status hadal_engine_step(hadal_engine* engine, const hadal_engine_token* const** tokens,
                               size_t* count, hadal_error* error) {
  return guarded(error, [&]() -> Status {
    const Turn turn(engine);
    HADAL_TRY(turn.status());
    if (!tokens) return invalid(kEngine, "tokens must not be null");
    if (!count) return invalid(kEngine, "count must not be null");
    // Tokens that host memory was too scarce for are given by the next call, before its step.
    if (!engine->waiting) {
      HADAL_ASSIGN(engine->tokens, engine->engine->step());
      engine->waiting = true;
    }
    make_entries(*engine);
    engine->waiting = false;
    *tokens = engine->entry_pointers.data();
    *count = engine->entry_pointers.size();
    return {};
  });
}

VkBool32 hadal_engine_idle(const hadal_engine* engine) {
  return !engine || (engine->engine->idle() && !engine->waiting);
}

hadal_status hadal_engine_export(hadal_engine* engine, hadal_request_id id, const void** bytes,
                                 size_t* count, hadal_error* error) {
  return guarded(error, [&]() -> Status {
    const Turn turn(engine);
    HADAL_TRY(turn.status());
    if (!bytes) return invalid(kEngine, "bytes must not be null");
    if (!count) return invalid(kEngine, "count must not be null");
    HADAL_ASSIGN(engine->exported, engine->engine->export_request(id));
    *bytes = engine->exported.data();
    *count = engine->exported.size();
    return {};
  });
}

hadal_status hadal_engine_import(hadal_engine* engine, const void* bytes, size_t count,
                                 hadal_mask_fn mask, void* mask_user, hadal_request_id* id,
                                 hadal_error* error) {
  return guarded(error, [&]() -> Status {
    const Turn turn(engine);
    HADAL_TRY(turn.status());
    if (!bytes && count) return invalid(kEngine, "bytes must not be null");
    if (!id) return invalid(kEngine, "id must not be null");
    HADAL_ASSIGN(*id, engine->engine->import_request({static_cast<const std::byte*>(bytes), count},
                                                     token_mask(mask, mask_user)));
    return {};
  });
}

hadal_status hadal_engine_statistics(const hadal_engine* engine, hadal_engine_stats* stats,
                                     hadal_error* error) {
  return guarded(error, [&]() -> Status {
    const Turn turn(engine);
    HADAL_TRY(turn.status());
    const runtime::EngineStats s = engine->engine->stats();
    hadal_engine_stats known{};
    known.waiting = s.scheduler.waiting, known.running = s.scheduler.admitted;
    known.pages = s.pages.total, known.pages_free = s.pages.free;
    known.pages_cached = s.pages.cached, known.pages_used = s.pages.used;
    known.wanted_pages = s.pages.wanted_pages, known.matched_pages = s.pages.matched_pages;
    known.evicted_pages = s.pages.evicted_pages;
    known.reused_tokens = s.scheduler.reused_tokens;
    known.preemptions = s.scheduler.preemptions;
    known.swapped_out_pages = s.scheduler.swapped_out_pages;
    known.swapped_in_pages = s.scheduler.swapped_in_pages;
    known.steps = s.steps, known.prefilled_tokens = s.prefilled_tokens;
    known.decoded_tokens = s.decoded_tokens, known.decoded_requests = s.decoded_requests;
    known.verified_drafts = s.verified_drafts, known.accepted_drafts = s.accepted_drafts;
    known.failed_requests = s.failed_requests;
    known.prefill_seconds = s.prefill_seconds, known.decode_seconds = s.decode_seconds;
    known.step_seconds = s.step_seconds, known.wait_seconds = s.wait_seconds;
    return write_struct(kEngine, "stats", known, stats);
  });
}
