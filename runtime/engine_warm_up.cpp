// The engine's pipelines before its first request.
#include <algorithm>

#include "hadal/runtime/engine.h"
#include "hadal/types.h"

namespace hadal::runtime {
namespace {

Status cancelled(const WarmUp& options) {
  if (!options.cancelled || !options.cancelled()) return {};
  return {Errc::kCancelled, "warm_up: cancelled"};
}

// Passes of all numbers of tokens, or of the one that is asked for, of at most `most`.
std::vector<uint32_t> prefill_counts(const WarmUp& options, uint32_t most) {
  if (options.prefill_tokens == 0) return row_counts(most);
  return {std::min(options.prefill_tokens, most)};
}

}  // namespace

Status Engine::warm_up(const WarmUp& options) {
  const std::vector<uint32_t> rows = row_counts(options_.max_rows);
  const std::vector<uint32_t> tokens = prefill_counts(options, options_.max_chunk);
  auto pieces = pieces_of_passes(*model_, cache_->view(), decode_.pass(), rows, prefill_.pass(),
                                 tokens, options_.max_rows > 1);
  if (MtpDrafter* mtp = drafter_ ? drafter_->mtp() : nullptr) {
    const auto of_layer =
        pieces_of_mtp(*model_, cache_->view(), decode_.pass(), rows, prefill_.pass(), tokens);
    pieces.insert(pieces.end(), of_layer.begin(), of_layer.end());
    pieces.push_back([mtp](Recorder&) { return mtp->warm_up(); });
  }
  pieces.push_back(
      [this](Recorder&) { return Sampler::warm_up(*device_, model_->config().vocab_size); });
  HADAL_TRY(record_and_drop(*device_, pieces, options));
  return run_passes_once(options);
}

Status Engine::run_passes_once(const WarmUp& options) {
  const uint32_t context = model_->options().max_context, free = pages_->stats().free;
  // Taken-over prefixes go on waiting for those who know them.
  if (free < 2) return {};
  const uint32_t room = std::min(context, (free - 1) * kPageTokens);
  const uint32_t most_tokens = room - std::min(room - 1, options_.draft_depth);  // guesses behind
  const uint32_t rows = std::min(options_.max_rows, most_tokens);
  const uint32_t tokens = std::min(options_.max_chunk, most_tokens);
  SequencePages pages(*pages_), other(*pages_);
  HADAL_TRY(pages.reserve(std::min(std::max(rows, tokens) + options_.draft_depth, room)));
  HADAL_TRY(other.reserve(1));
  for (const uint32_t count : prefill_counts(options, tokens)) {
    HADAL_TRY(cancelled(options));
    HADAL_TRY(prefill_once(pages, count, nullptr));
    if (options_.max_rows > 1 && count > 1) HADAL_TRY(prefill_once(pages, count - 1, &other));
  }
  for (const uint32_t count : row_counts(rows)) {
    HADAL_TRY(cancelled(options));
    HADAL_TRY(decode_once(pages, count, 0));
    if (most_tokens >= kShortKvLen + count) HADAL_TRY(decode_once(pages, count, kShortKvLen));
  }
  return {};
}

Status Engine::prefill_once(SequencePages& pages, uint32_t tokens, SequencePages* other) {
  const std::vector<uint32_t> ids(tokens, 0);
  std::vector<PrefillPart> parts = {{&pages, 0, ids}};
  std::vector<uint32_t> last_rows = {tokens - 1};
  if (other) {
    parts.push_back({other, 0, std::span(ids).first(1)});
    last_rows.push_back(tokens);
  }
  for (uint32_t row = 0; row < last_rows.size(); ++row) prefilled_.tokens.set_row(row, {}, 0);
  HADAL_TRY(prefilled_.tokens.prepare(uint32_t(last_rows.size())).status());
  HADAL_TRY(prefill_.run_layers(parts, layer_kinds(model_->config()), [&](Recorder& recorder) {
    return record_prefilled(recorder, last_rows);
  }));
  MtpDrafter* mtp = drafter_ ? drafter_->mtp() : nullptr;
  if (!mtp) return {};
  std::vector<MtpSequence> sequences;
  for (const PrefillPart& part : parts) {
    const uint32_t begin = sequences.empty() ? 0 : tokens;
    sequences.push_back({part.pages, 0, begin, part.ids, 0, options_.draft_depth});
  }
  return mtp->prefill(prefill_, decode_.pass(), sequences);
}

Status Engine::decode_once(SequencePages& pages, uint32_t count, uint32_t first_position) {
  std::vector<DecodeRow> rows;
  for (uint32_t row = 0; row < count; ++row) {
    rows.push_back({&pages, 0, first_position + row});
    decoded_.tokens.set_row(row, {}, row);
  }
  HADAL_ASSIGN(const uint64_t prepared, decoded_.tokens.prepare(count));
  HADAL_TRY(decode_.step(rows, prepared, [&](Recorder& recorder, const model::DecodeBatch& batch) {
    return record_decoded(recorder, batch.tokens);
  }));
  MtpDrafter* mtp = drafter_ ? drafter_->mtp() : nullptr;
  if (!mtp) return {};
  // All of the rows, and all but the first, which are brought to the front.
  const std::vector<uint32_t> ids(count, 0);
  for (uint32_t first = 0; first < std::min(count, 2u); ++first) {
    const MtpSequence sequence{&pages, first_position,      first, std::span(ids).subspan(first),
                               0,      options_.draft_depth};
    HADAL_TRY(mtp->draft(decode_.pass(), {&sequence, 1}));
  }
  return {};
}

}  // namespace hadal::runtime
