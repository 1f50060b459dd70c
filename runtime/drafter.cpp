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

Result<Drafter> Drafter::create(Device& device, const model::Model& model,
                                const model::Pass& decode, const KvCache& cache,
                                const DraftOptions& options, const RecorderOptions& recorder) {
  if (options.source == DraftSource::kNgram) return Drafter(options, {});
  HADAL_ASSIGN(MtpDrafter mtp, MtpDrafter::create(device, model, decode, cache, options.max_rows,
                                                  options.depth, recorder));
  return Drafter(options, std::move(mtp));
}

void Drafter::look_up(const DraftContext& context) {
  Request& request = requests_[context.request];
  request.drafts.clear();
  const uint32_t depth = std::min(context.wanted, ways_[way_].depth);
  if (ways_[way_].ngrams && depth) request.drafts = request.ngrams.draft(context.ids, depth);
}

Status Drafter::prefilled(PrefillPipeline& pipeline, model::Pass& decode,
                          std::span<const DraftContext> chunks) {
  for (const DraftContext& c : chunks) look_up(c);
  if (!mtp_) return {};
  std::vector<MtpSequence> sequences;
  for (const DraftContext& c : chunks) {
    requests_[c.request].mtp_rows =
        c.begin;  // of this prefill: before it, they may have been dropped
    sequences.push_back(mtp_sequence(c));
  }
  HADAL_TRY(mtp_->prefill(pipeline, decode, sequences));
  take_drafts(chunks, sequences);
  return {};
}

Status Drafter::decoded(model::Pass& decode, std::span<const DraftContext> contexts) {
  const auto start = std::chrono::steady_clock::now();
  if (!always_) way_ = policy_.way();
  for (const DraftContext& c : contexts) look_up(c);
  if (ways_[way_].mtp) {
    std::vector<MtpSequence> sequences;
    for (const DraftContext& c : contexts) sequences.push_back(mtp_sequence(c));
    HADAL_TRY(mtp_->draft(decode, sequences));
    take_drafts(contexts, sequences);
  }
  seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return {};
}

MtpSequence Drafter::mtp_sequence(const DraftContext& context) {
  const Request& request = requests_[context.request];
  MtpSequence sequence;
  sequence.pages = context.pages, sequence.begin = context.begin;
  sequence.hidden_row = context.hidden_row, sequence.cache_rows = request.mtp_rows;
  sequence.next_ids = context.ids.subspan(context.begin + 1, context.pairs);
  if (ways_[way_].mtp && request.drafts.empty()) {
    sequence.depth = std::min(context.wanted, ways_[way_].depth);
  }
  return sequence;
}

void Drafter::take_drafts(std::span<const DraftContext> contexts,
                          std::span<const MtpSequence> sequences) {
  for (size_t i = 0; i < contexts.size(); ++i) {
    Request& request = requests_[contexts[i].request];
    request.mtp_rows += contexts[i].pairs;
    if (sequences[i].depth == 0) continue;
    request.drafts.assign(mtp_->drafts(i).begin(), mtp_->drafts(i).end());
  }
}

void Drafter::begin(RequestId id, uint32_t mtp_rows, std::span<const uint32_t> drafts) {
  Request& request = requests_[id];
  request.mtp_rows = mtp_rows;
  request.drafts.assign(drafts.begin(), drafts.end());
}

uint32_t Drafter::mtp_rows(RequestId request) const {
  const auto found = requests_.find(request);
  return found == requests_.end() ? 0 : found->second.mtp_rows;
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
