#include "hadal/runtime/drafter.h"

#include <algorithm>
#include <chrono>

namespace hadal::runtime {

Result<Drafter> Drafter::create(Device& device, model::Model& model, const KvCache& cache,
                                const DraftOptions& options) {
  if (options.source == DraftSource::kNgram) return Drafter(options, {});
  HADAL_ASSIGN(MtpDrafter mtp,
               MtpDrafter::create(device, model, cache, options.max_rows, options.depth));
  return Drafter(options, std::move(mtp));
}

Status Drafter::prefilled(PrefillPipeline& pipeline, const DraftContext& chunk) {
  Request& request = requests_[chunk.request];
  request.drafts.clear();
  const bool drafting = options_.always || policy_.drafts();
  const uint32_t depth = drafting ? std::min(chunk.wanted, options_.depth) : 0;
  if (depth && options_.source != DraftSource::kMtp) {
    request.drafts = request.ngrams.draft(chunk.ids, depth);
  }
  if (!mtp_) return {};
  MtpSequence sequence;
  sequence.pages = chunk.pages, sequence.begin = sequence.cache_rows = chunk.begin;
  sequence.hidden_row = chunk.hidden_row;
  sequence.next_ids = chunk.ids.subspan(chunk.begin + 1, chunk.pairs);
  sequence.depth = request.drafts.empty() ? depth : 0;
  HADAL_TRY(mtp_->prefill(pipeline, sequence));
  request.mtp_rows = chunk.begin + chunk.pairs;
  if (sequence.depth) request.drafts.assign(mtp_->drafts(0).begin(), mtp_->drafts(0).end());
  return {};
}

Status Drafter::decoded(std::span<const DraftContext> contexts) {
  for (const DraftContext& c : contexts) requests_[c.request].drafts.clear();
  if (!options_.always && !policy_.drafts()) return {};
  const auto start = std::chrono::steady_clock::now();
  if (options_.source != DraftSource::kMtp) {
    for (const DraftContext& c : contexts) {
      Request& request = requests_[c.request];
      request.drafts = request.ngrams.draft(c.ids, std::min(c.wanted, options_.depth));
    }
  }
  if (mtp_) HADAL_TRY(run_mtp(contexts));
  seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return {};
}

Status Drafter::run_mtp(std::span<const DraftContext> contexts) {
  std::vector<MtpSequence> sequences;
  for (const DraftContext& c : contexts) {
    const Request& request = requests_[c.request];
    const uint32_t depth = request.drafts.empty() ? std::min(c.wanted, options_.depth) : 0;
    sequences.push_back({c.pages, c.begin, c.hidden_row, c.ids.subspan(c.begin + 1, c.pairs),
                         request.mtp_rows, depth});
  }
  HADAL_TRY(mtp_->draft(sequences));
  for (size_t i = 0; i < contexts.size(); ++i) {
    Request& request = requests_[contexts[i].request];
    request.mtp_rows += contexts[i].pairs;
    if (sequences[i].depth == 0) continue;
    request.drafts.assign(mtp_->drafts(i).begin(), mtp_->drafts(i).end());
  }
  return {};
}

std::span<const uint32_t> Drafter::drafts(RequestId request) const {
  const auto found = requests_.find(request);
  return found == requests_.end() ? std::span<const uint32_t>() : found->second.drafts;
}

void Drafter::measured(double seconds, double tokens_per_request) {
  policy_.measured(seconds + seconds_, tokens_per_request);
  seconds_ = 0.0;
}

}  // namespace hadal::runtime
