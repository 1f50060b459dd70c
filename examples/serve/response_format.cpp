#include "serve/response_format.h"

#include <algorithm>

namespace hadal::serve {

ResponseFormats::ResponseFormats(const model::Tokenizer& tokenizer,
                                 const std::vector<uint32_t>& end_ids)
    : vocabulary_(runtime::GrammarVocabulary::create(tokenizer, end_ids)) {}

Result<MaskMaker> ResponseFormats::masks(const ResponseFormat& format) const {
  if (format.type == ResponseFormat::Type::kText) return MaskMaker();
  if (!vocabulary_.ok()) return vocabulary_.status();
  HADAL_ASSIGN(const std::shared_ptr<const runtime::JsonGrammar> grammar,
               runtime::JsonGrammar::compile(format.schema, *vocabulary_));
  return MaskMaker([grammar] { return grammar->mask(); });
}

runtime::TokenMask behind_reasoning(runtime::TokenMask mask, uint32_t end_of_reasoning) {
  return [mask = std::move(mask), end_of_reasoning](std::span<const uint32_t> generated,
                                                    std::span<uint32_t> allowed) {
    const auto end = std::find(generated.begin(), generated.end(), end_of_reasoning);
    if (end == generated.end()) return false;
    return mask(generated.subspan(size_t(end - generated.begin()) + 1), allowed);
  };
}

}  // namespace hadal::serve
