// Template text to tokens, with jinja2's white space rules under trim_blocks and lstrip_blocks,
// as Hugging Face renders chat templates. Private.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hadal::jinja {

struct Token {
  enum class Kind {
    kText,    // outside of tags
    kOutput,  // {{
    kBlock,   // {%
    kEndTag,  // }} or %}
    kName,
    kString,  // decoded
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  };
  Kind kind = Kind::kEnd;
  std::string text;
  uint32_t line = 1;
};

// Throws Error with the line.
[[nodiscard]] std::vector<Token> tokenize(std::string_view source);

}  // namespace hadal::jinja
