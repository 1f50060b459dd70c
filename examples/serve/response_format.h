// response_format as the engine understands it: a mask of the tokens that may follow.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "hadal/model/tokenizer.h"
#include "hadal/runtime/json_grammar.h"
#include "hadal/runtime/sampling_options.h"
#include "hadal/status.h"
#include "serve/generate_request.h"

namespace hadal::serve {

// A mask for each answer: one keeps where its answer is. Empty: everything is allowed.
using MaskMaker = std::function<runtime::TokenMask()>;

// Turns formats into masks. Thread-safe.
class ResponseFormats {
 public:
  // `end_ids` end an answer.
  ResponseFormats(const model::Tokenizer& tokenizer, const std::vector<uint32_t>& end_ids);

  // Errors: kUnsupported, kInvalidArgument naming the place in the schema.
  [[nodiscard]] Result<MaskMaker> masks(const ResponseFormat& format) const;

 private:
  Result<std::shared_ptr<const runtime::GrammarVocabulary>> vocabulary_;  // or why there is none
};

// `mask` for what comes behind the token `end_of_reasoning`; everything is allowed before it.
[[nodiscard]] runtime::TokenMask behind_reasoning(runtime::TokenMask mask,
                                                  uint32_t end_of_reasoning);

}  // namespace hadal::serve
