// What becomes of the ids drawn for one request: tokens, text, and the end. Pure host.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "hadal/runtime/engine_token.h"
#include "hadal/runtime/text_stream.h"

namespace hadal::runtime {

class RequestOutput {
 public:
  // `max_tokens` of generation at most, at least 1. Without `text` the entries have none.
  RequestOutput(RequestId request, uint32_t max_tokens, std::vector<uint32_t> stop_ids,
                std::optional<TextStream> text);

  // The entry of the next id. Once its `finish` is not kNone nothing more may be asked. It is
  // kStop for a stop id or behind a stop string, else kLength for the last token; kFailed for an id
  // that the tokenizer does not know.
  [[nodiscard]] EngineToken token(uint32_t id);
  // The entry of an end that no token brought, with the text that was held back.
  [[nodiscard]] EngineToken end(FinishReason reason, const Status& status);

 private:
  RequestId request_;
  uint32_t tokens_left_;
  std::vector<uint32_t> stop_ids_;
  std::optional<TextStream> text_;
};

}  // namespace hadal::runtime
