// Speculation: which tokens are guessed for the requests of an engine, from which source, and
// whether guessing pays. The engine computes guesses beside a request's own row and takes those
// that are right.
//
// Why the distribution stays what it is: a guess d at a position is taken if and only if it equals
// the token x that the sampler draws there, from p given the tokens before, with a seed that
// depends on request and position only; what is emitted is x either way. Tokens are therefore those
// of the plain loop, draw by draw. It is rejection sampling for a guess without randomness of its
// own (q(d) = 1): d is accepted with probability P(x = d) = p(d) = min(1, p(d) / q(d)), and upon
// rejection x has p(x) / (1 - p(d)) over x != d, the normalised max(0, p - q).
//
// Source: Leviathan et al., "Fast Inference from Transformers via Speculative Decoding" (2023).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "hadal/runtime/draft_policy.h"
#include "hadal/runtime/mtp_drafter.h"
#include "hadal/runtime/ngram_drafter.h"
#include "hadal/runtime/scheduler.h"

namespace hadal::runtime {

enum class DraftSource {
  kMtp,    // the checkpoint's MTP layer
  kNgram,  // what followed the last tokens before (ngram_drafter.h); for any model
  kBoth,   // that where there is such a place, else the MTP layer
};

inline constexpr uint32_t kMaxDraftDepth = 8;

struct DraftOptions {
  DraftSource source = DraftSource::kMtp;
  uint32_t depth = 1;     // guesses of a request at most
  uint32_t max_rows = 0;  // positions of a decode step
  bool always = false;    // also where measured step times say that it does not pay
};

// What a pass computed of a request: positions [begin, begin + pairs), whose next tokens are known,
// with hidden states from row `hidden_row` on.
struct DraftContext {
  RequestId request = 0;
  SequencePages* pages = nullptr;
  std::span<const uint32_t> ids;  // prompt and generated
  uint32_t begin = 0, pairs = 0, hidden_row = 0;
  uint32_t wanted = 0;  // guesses of what follows ids that are of use
};

class Drafter {
 public:
  // Not thread-safe. Errors: kUnsupported for a source that needs the MTP layer without one.
  [[nodiscard]] static Result<Drafter> create(Device& device, const model::Model& model,
                                              const model::Pass& decode, const KvCache& cache,
                                              const DraftOptions& options,
                                              const RecorderOptions& recorder = {});

  // Behind a prefill pass over these chunks, in its order, before anything else overwrites the
  // pass's hidden states. `decode` is the pass of the decode pipeline, which is idle.
  [[nodiscard]] Status prefilled(PrefillPipeline& pipeline, model::Pass& decode,
                                 std::span<const DraftContext> chunks);
  // Behind a decode step, likewise; one entry for each request that goes on.
  [[nodiscard]] Status decoded(model::Pass& decode, std::span<const DraftContext> requests);
  // The request's guesses until the next call about it.
  [[nodiscard]] std::span<const uint32_t> drafts(RequestId request) const;
  void end(RequestId request) { requests_.erase(request); }
  // A request that another engine began, with the guesses from there. The first `mtp_rows` rows of
  // the MTP layer in its pages are those of its first positions.
  void begin(RequestId request, uint32_t mtp_rows, std::span<const uint32_t> drafts);
  // Pairs of the request that the MTP layer's cache holds, in its first rows.
  [[nodiscard]] uint32_t mtp_rows(RequestId request) const;
  // Whether there are such rows: the pages of every prompt then have them.
  [[nodiscard]] bool writes_rows() const { return mtp_.has_value(); }
  // Host seconds inside waits for the device so far, the prefill pipeline's not among them.
  [[nodiscard]] double waited_seconds() const { return mtp_ ? mtp_->waited_seconds() : 0.0; }
  // For warm-ups; null without the layer.
  [[nodiscard]] MtpDrafter* mtp() { return mtp_ ? &*mtp_ : nullptr; }
  // Of guesses behind decode steps.
  [[nodiscard]] RecordingStats recordings() const {
    return mtp_ ? mtp_->recordings() : RecordingStats();
  }
  // As DecodePipeline::set_trace.
  void set_trace(Trace* trace) {
    if (mtp_) mtp_->set_trace(trace);
  }
  // What a decode step of `requests` did that computed the guesses: its seconds without drafting,
  // and its tokens for each request. Called before decoded().
  void measured(uint32_t requests, double seconds, double tokens_per_request);

 private:
  struct Request {
    uint32_t mtp_rows = 0;  // pairs that the MTP layer's cache holds
    std::vector<uint32_t> drafts;
    NgramDrafter ngrams;
  };
  // How guesses are made: what the policy chooses among.
  struct Way {
    bool mtp = false, ngrams = false;
    uint32_t depth = 0;
  };
  Drafter(const DraftOptions& options, std::optional<MtpDrafter> mtp);
  // N-gram guesses of a request, where the way has them.
  void look_up(const DraftContext& context);
  // What the MTP layer gets of a request, and what is known then.
  [[nodiscard]] MtpSequence mtp_sequence(const DraftContext& context);
  void take_drafts(std::span<const DraftContext> contexts, std::span<const MtpSequence> sequences);

  bool always_;
  std::optional<MtpDrafter> mtp_;
  std::vector<Way> ways_;  // [0]: no guesses
  DraftPolicy policy_;
  uint32_t way_ = 0;  // of the guesses of the step to come
  std::unordered_map<RequestId, Request> requests_;
  double seconds_ = 0.0;  // of drafting for the step to come
};

}  // namespace hadal::runtime
