// Translates a regular expression of a tokenizer.json (Oniguruma's Ruby syntax, which the
// tokenizers library matches with) to one for PCRE2 that matches the same texts. Private to the
// tokenizer.
#pragma once

#include <string>
#include <string_view>

#include "hadal/status.h"

namespace hadal::model::detail {

// Options that the result must be compiled with: PCRE2_UTF, PCRE2_UCP, PCRE2_MULTILINE, newline LF.
// Accepts what both dialects mean alike, rewrites what they spell differently, and refuses the rest
// by name (kUnsupported). `where` starts the message.
[[nodiscard]] Result<std::string> translate_onig(std::string_view pattern,
                                                 const std::string& where);

}  // namespace hadal::model::detail
