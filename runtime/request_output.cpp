#include "hadal/runtime/request_output.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace hadal::runtime {

RequestOutput::RequestOutput(RequestId request, uint32_t max_tokens, std::vector<uint32_t> stop_ids,
                             std::optional<TextStream> text)
    : request_(request),
      tokens_left_(max_tokens),
      stop_ids_(std::move(stop_ids)),
      text_(std::move(text)) {}

EngineToken RequestOutput::token(uint32_t id) {
  assert(tokens_left_ > 0);
  --tokens_left_;
  EngineToken token{request_, id};
  if (std::find(stop_ids_.begin(), stop_ids_.end(), id) != stop_ids_.end()) {
    token.finish = FinishReason::kStop;
  } else if (tokens_left_ == 0) {
    token.finish = FinishReason::kLength;
  }
  if (!text_) return token;
  Result<std::string> text = text_->push(id);
  if (text.ok()) {
    token.text = std::move(text).value();
    if (text_->stopped()) token.finish = FinishReason::kStop;
  } else {
    token.finish = FinishReason::kFailed, token.status = text.status();
  }
  if (token.finish != FinishReason::kNone) token.text += text_->flush();
  return token;
}

EngineToken RequestOutput::end(FinishReason reason, const Status& status) {
  EngineToken token{request_};
  token.has_token = false, token.finish = reason, token.status = status;
  if (text_) token.text = text_->flush();
  return token;
}

}  // namespace hadal::runtime
