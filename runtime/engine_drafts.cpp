// The engine's speculation: rows of right guesses are tokens, and guesses are made of what follows.
#include "hadal/runtime/engine.h"

namespace hadal::runtime {

bool Engine::take_tokens(const PlannedWork& work, uint32_t row, std::vector<EngineToken>& tokens) {
  stats_.verified_drafts += work.drafts;
  const auto drafts = drafter_ ? drafter_->drafts(work.request) : std::span<const uint32_t>();
  for (uint32_t i = 0;; ++i) {
    const bool goes_on = take_token(work.request, decoded_, row + i, tokens);
    const bool given = tokens.back().has_token;  // every call adds an entry
    stats_.decoded_tokens += given;
    (i == 0 ? stats_.decoded_requests : stats_.accepted_drafts) += given;
    if (!goes_on) return false;
    if (i == work.drafts || drafts[i] != decoded_.tokens.id(row + i)) return true;
    scheduler_.accept_draft(work.request);
  }
}

DraftContext Engine::draft_context(const PlannedWork& work, uint32_t row,
                                   std::span<const uint32_t> ids) {
  DraftContext context;
  context.request = work.request, context.pages = &scheduler_.pages(work.request);
  context.ids = ids, context.begin = work.begin, context.hidden_row = row;
  const auto known = uint32_t(ids.size()), length = requests_.at(work.request).length;
  // Rows behind a wrong guess are of no use.
  context.pairs = work.last ? known - 1 - work.begin : work.tokens;
  // The next step gives a token without a guess, and the last token needs no row.
  if (work.last && known < length) context.wanted = length - known - 1;
  return context;
}

Status Engine::draft_behind_decode(const RowsOfWork& going_on) {
  if (!drafter_ || going_on.empty()) return {};
  const Trace::Span span(options_.trace, "draft");
  std::vector<DraftContext> contexts;
  for (const auto& [work, row] : going_on) {
    contexts.push_back(draft_context(work, row, scheduler_.tokens(work.request)));
  }
  HADAL_TRY(drafter_->decoded(decode_.pass(), contexts));
  for (const auto& [work, row] : going_on) set_drafts(work.request);
  return {};
}

// Before others can take the pages over, and also where a request ends with its first token: the
// pages have to hold what the drafter writes, too.
Status Engine::draft_behind_prefill(const StepPlan& plan) {
  std::vector<std::vector<uint32_t>> known;  // tokens with those just drawn
  std::vector<DraftContext> contexts;
  uint32_t row = 0, drawn = 0;
  for (const PlannedWork& work : plan.prefill) {
    const auto ids = scheduler_.tokens(work.request);
    known.emplace_back(ids.begin(), ids.end());
    if (work.last) known.back().push_back(prefilled_.tokens.id(drawn++));
    contexts.push_back(draft_context(work, row, known.back()));
    row += work.tokens;
  }
  return drafter_->prefilled(prefill_, decode_.pass(), contexts);
}

void Engine::set_drafts(RequestId request) {
  scheduler_.set_drafts(request, uint32_t(drafter_->drafts(request).size()));
}

}  // namespace hadal::runtime
