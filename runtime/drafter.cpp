#include "hadal/runtime/drafter.h"

#include <algorithm>
#include <chrono>

namespace hadal::runtime {

Drafter::Drafter(const DraftOptions& options, std::optional<MtpDrafter> mtp)
    : always_(options.always), mtp_(std::move(mtp)), policy_(1) {
  ways_.push_back({});
  const auto add = [&](bool with_mtp, bool with_ngrams) {
    for (uint32_t depth = 1; depth < options.depth; depth *= 2) {
      ways_.push_back({with_mtp, with_ngrams, depth});
    }
    ways_.push_back({with_mtp, with_ngrams, options.depth});
  };
  // Cheap ones first; the last is the source as asked for, as deep as asked for.
  if (options.source != DraftSource::kMtp) add(false, true);
  if (options.source != DraftSource::kNgram) add(true, options.source == DraftSource::kBoth);
  policy_ = DraftPolicy(uint32_t(ways_.size()));
  if (always_) way_ = uint32_t(ways_.size()) - 1;
}

Result<Drafter> Drafter::create(Device& device, model::Model& model, const KvCache& cache,
                                const DraftOptions& options) {
  if (options.source == DraftSource::kNgram) return Drafter(options, {});
  HADAL_ASSIGN(MtpDrafter mtp,
               MtpDrafter::create(device, model, cache, options.max_rows, options.depth));
  return Drafter(options, std::move(mtp));
}

void Drafter::look_up(const DraftContext& context) {
  Request& request = requests_[context.request];
  request.drafts.clear();
  const uint32_t depth = std::min(context.wanted, ways_[way_].depth);
  if (ways_[way_].ngrams && depth) request.drafts = request.ngrams.draft(context.ids, depth);
}

Status Drafter::prefilled(PrefillPipeline& pipeline, const DraftContext& chunk) {
  look_up(chunk);
  if (!mtp_) return {};
  Request& request = requests_[chunk.request];
  MtpSequence sequence;
  sequence.pages = chunk.pages, sequence.begin = sequence.cache_rows = chunk.begin;
  sequence.hidden_row = chunk.hidden_row;
  sequence.next_ids = chunk.ids.subspan(chunk.begin + 1, chunk.pairs);
  if (ways_[way_].mtp && request.drafts.empty()) {
    sequence.depth = std::min(chunk.wanted, ways_[way_].depth);
  }
  HADAL_TRY(mtp_->prefill(pipeline, sequence));
  request.mtp_rows = chunk.begin + chunk.pairs;
  if (sequence.depth) request.drafts.assign(mtp_->drafts(0).begin(), mtp_->drafts(0).end());
  return {};
}

Status Drafter::decoded(std::span<const DraftContext> contexts) {
  const auto start = std::chrono::steady_clock::now();
  if (!always_) way_ = policy_.way();
  for (const DraftContext& c : contexts) look_up(c);
  if (ways_[way_].mtp) HADAL_TRY(run_mtp(contexts));
  seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return {};
}

Status Drafter::run_mtp(std::span<const DraftContext> contexts) {
  std::vector<MtpSequence> sequences;
  for (const DraftContext& c : contexts) {
    const Request& request = requests_[c.request];
    const uint32_t depth = request.drafts.empty() ? std::min(c.wanted, ways_[way_].depth) : 0;
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

void Drafter::measured(uint32_t requests, double seconds, double tokens_per_request) {
  policy_.measured(way_, requests, seconds + seconds_, tokens_per_request);
  seconds_ = 0.0;
}

}  // namespace hadal::runtime
