#include "hadal/runtime/request_sampling.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>

#include "hadal/types.h"

namespace hadal::runtime {

RequestSampling::RequestSampling(SamplingOptions options, std::optional<uint32_t> logprobs,
                                 TokenMask mask, std::span<const uint32_t> prompt, uint32_t vocab)
    : options_(std::move(options)),
      logprobs_(logprobs),
      mask_(std::move(mask)),
      prompt_tokens_(uint32_t(prompt.size())),
      vocab_(vocab),
      adjusts_(mask_ || adjusts_logits(options_)),
      history_(options_, prompt) {}

void RequestSampling::seek(std::span<const uint32_t> ids, std::span<const uint32_t> drafts,
                           uint32_t position) {
  for (; drafts_ > 0; --drafts_) history_.pop();
  const size_t wanted = position + 1 - prompt_tokens_, known = ids.size() - prompt_tokens_;
  while (history_.generated().size() > std::min(wanted, known)) history_.pop();
  while (history_.generated().size() < std::min(wanted, known)) {
    history_.push(ids[prompt_tokens_ + history_.generated().size()]);
  }
  for (; known + drafts_ < wanted; ++drafts_) history_.push(drafts[drafts_]);
}

Status RequestSampling::ask_mask() {
  const auto error = [](std::string text) {
    return Status(Errc::kInvalidArgument, "sampling: the mask must " + std::move(text));
  };
  bits_.assign(ceil_div(vocab_, 32u), 0);
  try {
    masked_ = mask_(history_.generated(), bits_);
  } catch (const std::exception& e) {
    return error(fmt::format("not throw, got \"{}\"", e.what()));
  } catch (...) {
    return error("not throw, got an unknown exception");
  }
  if (!masked_) return {};
  if (vocab_ % 32) bits_.back() &= (1u << vocab_ % 32) - 1;
  const bool any = std::any_of(bits_.begin(), bits_.end(), [](uint32_t word) { return word != 0; });
  return any ? Status() : error("allow a token, got none");
}

Status RequestSampling::set_row(Sampler& sampler, uint32_t row, std::span<const uint32_t> ids,
                                std::span<const uint32_t> drafts, uint32_t position) {
  sampler.set_row(row, options_, position + 1);
  if (logprobs_) sampler.want_logprobs(row, *logprobs_);
  if (!adjusts_) return {};
  seek(ids, drafts, position);
  if (mask_) {
    // A draft that its own row's mask forbids is not drawn: the rows behind it are never used.
    reachable_ = drafts_ == 0 || (reachable_ && (!masked_ || allows(history_.generated().back())));
    if (!reachable_) return {};
    if (Status status = ask_mask(); !status.ok()) {
      reachable_ = false;
      return status;
    }
  }
  sampler.adjust_row(row, options_, history_.edits(),
                     masked_ ? std::span<const uint32_t>(bits_) : std::span<const uint32_t>());
  return {};
}

std::optional<TokenLogprobs> RequestSampling::logprobs(const Sampler& sampler, uint32_t row) const {
  if (!logprobs_) return {};
  TokenLogprobs result = sampler.logprobs(row);
  result.top.resize(std::min<size_t>(result.top.size(), *logprobs_));
  return result;
}

}  // namespace hadal::runtime
