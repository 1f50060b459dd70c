// The engine's swaps, and its requests as bytes.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>

#include "hadal/runtime/engine.h"
#include "hadal/types.h"

namespace hadal::runtime {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Calls `piece(page, offset, bytes)` for each piece of `computed` rows as a state orders them: in
// a host page at `offset`, in the state behind the pieces before. `layers` of the page's.
template <class Piece>
void for_each_piece(uint32_t layers, uint32_t row_bytes, uint32_t computed, const Piece& piece) {
  for (uint32_t page = 0; page * kPageTokens < computed; ++page) {
    const uint64_t rows = std::min(kPageTokens, computed - page * kPageTokens);
    for (uint64_t layer = 0; layer < layers; ++layer) {
      piece(page, layer * kPageTokens * row_bytes, rows * row_bytes);
    }
  }
}

}  // namespace

CacheIdentity Engine::cache_identity() const {
  CacheIdentity identity;
  identity.model = model_->weights().fingerprint;
  identity.format = cache_->view().format;
  identity.page_tokens = kPageTokens;
  identity.layers = cache_->main_layers();
  // Rows that no MTP layer wrote would say nothing.
  const bool written = drafter_ && drafter_->writes_rows();
  identity.mtp_layers = written ? cache_->layers() - cache_->main_layers() : 0;
  identity.row_bytes = uint32_t(cache_->row_bytes());
  identity.rounded_latents = model_->options().round_latent;
  return identity;
}

Status Engine::measure_swap() {
  // As many pages as a small request has; what they hold stays as it is.
  const uint32_t count = std::min({4u, swap_space_.pages(), cache_->view().pages});
  if (count == 0) return {};
  std::vector<PageMove> pages;
  for (uint32_t i = 0; i < count; ++i) pages.push_back({i, i});
  const PageMoves moves{&swap_space_, pages};
  HADAL_TRY(transfer_.run({&moves, 1}, {&moves, 1}));  // the first touch of the memory
  const auto start = std::chrono::steady_clock::now();
  HADAL_TRY(transfer_.run({&moves, 1}, {&moves, 1}));
  scheduler_.measured_swap(2 * count, seconds_since(start));
  return {};
}

Status Engine::run_swaps(const StepPlan& plan) {
  const Trace::Span span(options_.trace, "swap");
  const auto start = std::chrono::steady_clock::now();
  std::vector<PageMoves> out, in;
  for (const PlannedSwap& swap : plan.swap_out) out.push_back({&swap_space_, swap.pages});
  for (const PlannedSwap& swap : plan.swap_in) {
    in.push_back({swap.imported ? &requests_.at(swap.request).imported : &swap_space_, swap.pages});
  }
  HADAL_TRY(transfer_.run(out, in));
  for (const PlannedSwap& swap : plan.swap_in) {
    if (swap.imported) requests_.at(swap.request).imported = HostPages();
  }
  scheduler_.swapped(plan, seconds_since(start));
  return {};
}

void Engine::fail_swaps(const StepPlan& plan, const Status& status,
                        std::vector<EngineToken>& tokens) {
  // What came to the host is unknown, and what is in pages that nobody else has yet.
  for (const auto* swaps : {&plan.swap_out, &plan.swap_in}) {
    for (const PlannedSwap& swap : *swaps) {
      if (!requests_.contains(swap.request)) continue;
      end(swap.request, FinishReason::kFailed, status, tokens);
    }
  }
  end_all_if_lost(status, tokens);
}

Status Engine::copy_rows(RequestId id, const CacheIdentity& identity, std::span<std::byte> rows) {
  const RowsKept kept = scheduler_.rows(id);
  const uint32_t count = ceil_div(kept.computed, kPageTokens);
  HostPages copied;
  const HostPages* host = &swap_space_;
  std::vector<uint32_t> pages(kept.pages.begin(), kept.pages.end());
  if (kept.where == RowsKept::Where::kImported) {
    host = &requests_.at(id).imported;
    pages.resize(count);
    std::iota(pages.begin(), pages.end(), 0u);
  } else if (kept.where == RowsKept::Where::kCache && count > 0) {
    HADAL_ASSIGN(copied, HostPages::create(*device_, transfer_.page_bytes(), count));
    std::vector<PageMove> moves;
    for (uint32_t i = 0; i < count; ++i) moves.push_back({kept.pages[i], i});
    const PageMoves out{&copied, moves};
    HADAL_TRY(transfer_.run({&out, 1}, {}));
    host = &copied;
    std::iota(pages.begin(), pages.begin() + count, 0u);
  }
  // MTP layers have a row of every prompt position; behind them may lie anybody's. Zeros go out.
  const uint64_t main_bytes = uint64_t{identity.layers} * kPageTokens * identity.row_bytes;
  for_each_piece(identity.layers + identity.mtp_layers, identity.row_bytes, kept.computed,
                 [&](uint32_t page, uint64_t offset, uint64_t bytes) {
                   uint64_t known = bytes;
                   if (offset >= main_bytes) {
                     const uint32_t begin = page * kPageTokens;
                     const uint32_t left = kept.prompt_tokens - std::min(begin, kept.prompt_tokens);
                     known = std::min(bytes, uint64_t{left} * identity.row_bytes);
                   }
                   std::memcpy(rows.data(), host->bytes(pages[page]).data() + offset, known);
                   rows = rows.subspan(bytes);
                 });
  return {};
}

Result<std::vector<std::byte>> Engine::export_request(RequestId id) {
  if (const auto found = exported_.find(id); found != exported_.end()) {
    std::vector<std::byte> bytes = std::move(found->second);
    exported_.erase(found);
    return bytes;
  }
  const auto found = requests_.find(id);
  if (found == requests_.end()) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("engine: a request to export must be running, got {}", id));
  }
  const Request& request = found->second;
  const auto ids = scheduler_.tokens(id);
  const RowsKept kept = scheduler_.rows(id);
  SequenceState state;
  state.cache = cache_identity();
  // One that came without the rows of MTP layers goes without them.
  const uint32_t prefilled = std::min(kept.computed, kept.prompt_tokens);
  if (!drafter_ || drafter_->mtp_rows(id) < prefilled) state.cache.mtp_layers = 0;
  state.ids.assign(ids.begin(), ids.end());
  state.prompt_tokens = kept.prompt_tokens, state.computed = kept.computed;
  state.length = kept.length, state.priority = request.priority;
  state.sampling = request.sampling.options(), state.logprobs = request.sampling.asked_logprobs();
  state.masked = request.sampling.has_mask();
  state.stop_ids = request.stop_ids, state.stop = request.stop;
  if (drafter_) {
    const auto drafts = drafter_->drafts(id);
    state.drafts.assign(drafts.begin(), drafts.end());
  }
  return write_sequence_state(
      state, [&](std::span<std::byte> rows) { return copy_rows(id, state.cache, rows); });
}

void Engine::hand_over(RequestId id, std::vector<EngineToken>& tokens) {
  Result<std::vector<std::byte>> state = export_request(id);
  if (!state.ok()) {
    end(id, FinishReason::kFailed, state.status(), tokens);
    return end_all_if_lost(state.status(), tokens);
  }
  cancel(id);
  exported_[id] = std::move(state).value();
  tokens.back().finish = FinishReason::kExported;
}

Status Engine::check_state(const SequenceState& state, bool has_mask) const {
  const auto refuse = [](std::string text) {
    return Status(Errc::kInvalidArgument, "engine: " + std::move(text));
  };
  HADAL_TRY(check_same_cache(state.cache, cache_identity()));
  const uint32_t context = model_->options().max_context, vocab = model_->config().vocab_size;
  HADAL_TRY(check_sampling(state.sampling, vocab));
  if (state.logprobs.value_or(0) > kMaxTopLogprobs) {
    return refuse(fmt::format("the state's logprobs must be at most {}, got {}", kMaxTopLogprobs,
                              *state.logprobs));
  }
  if (state.masked && !has_mask) return refuse("the state's request has a mask, give it again");
  if (!state.masked && has_mask) return refuse("the state's request has no mask, give none");
  if (state.length > context) {
    return refuse(fmt::format("the state's length must be at most the context of {}, got {}",
                              context, state.length));
  }
  for (const auto& ids : {std::span(state.ids), std::span(state.drafts)}) {
    const auto wrong =
        std::find_if(ids.begin(), ids.end(), [&](uint32_t id) { return id >= vocab; });
    if (wrong == ids.end()) continue;
    return refuse(fmt::format("the state's token ids must be below {}, got {}", vocab, *wrong));
  }
  if (options_.tokenizer) return check_stop_strings(*options_.tokenizer, state.stop);
  if (state.stop.empty()) return {};
  return refuse("the state's stop strings need EngineOptions::tokenizer, got none");
}

Result<HostPages> Engine::imported_rows(const SequenceState& state) {
  const uint32_t count = ceil_div(state.computed, kPageTokens);
  if (count == 0) return HostPages();
  HADAL_ASSIGN(HostPages pages, HostPages::create(*device_, transfer_.page_bytes(), count));
  // Rows of MTP layers that the state has not are zeros; those that the cache has not stay behind.
  for (uint32_t i = 0; i < count; ++i) {
    std::memset(pages.bytes(i).data(), 0, transfer_.page_bytes());
  }
  std::span<const std::byte> rows = state.rows;
  for_each_piece(state.cache.layers + state.cache.mtp_layers, state.cache.row_bytes, state.computed,
                 [&](uint32_t page, uint64_t offset, uint64_t bytes) {
                   if (offset < transfer_.page_bytes()) {
                     std::memcpy(pages.bytes(page).data() + offset, rows.data(), bytes);
                   }
                   rows = rows.subspan(bytes);
                 });
  return pages;
}

Result<RequestId> Engine::import_request(std::span<const std::byte> bytes, TokenMask mask) {
  HADAL_TRY(lost_);
  HADAL_ASSIGN(SequenceState state, parse_sequence_state(bytes));
  HADAL_TRY(check_state(state, bool(mask)));
  HADAL_ASSIGN(HostPages rows, imported_rows(state));
  std::optional<TextStream> text;
  if (options_.tokenizer) {
    HADAL_ASSIGN(text, TextStream::create(*options_.tokenizer, state.stop));
  }
  RequestSpec spec;
  spec.prompt.assign(state.ids.begin(), state.ids.begin() + state.prompt_tokens);
  spec.generated.assign(state.ids.begin() + state.prompt_tokens, state.ids.end());
  spec.max_new_tokens = state.length - state.prompt_tokens;
  spec.priority = state.priority, spec.computed = state.computed;
  RequestSampling sampling(std::move(state.sampling), state.logprobs, std::move(mask), spec.prompt,
                           model_->config().vocab_size);
  HADAL_ASSIGN(const RequestId id, scheduler_.add(spec));
  RequestOutput output(id, spec.max_new_tokens, state.stop_ids, std::move(text));
  for (const uint32_t generated : spec.generated) {  // their text was shown where they were drawn
    if (output.token(generated).finish == FinishReason::kNone) continue;
    scheduler_.remove(id);
    return Status(Errc::kInvalidArgument, "engine: the state's request has ended already");
  }
  requests_.emplace(id, Request{std::move(sampling),
                                std::move(output),
                                {},
                                state.length,
                                std::move(rows),
                                std::move(state.stop_ids),
                                std::move(state.stop),
                                state.priority,
                                false});
  if (!drafter_) return id;
  state.drafts.resize(std::min<size_t>(state.drafts.size(), options_.draft_depth));
  drafter_->begin(id, state.cache.mtp_layers ? std::min(state.computed, state.prompt_tokens) : 0,
                  state.drafts);
  set_drafts(id);
  return id;
}

}  // namespace hadal::runtime
