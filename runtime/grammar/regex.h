// Regular expressions of JSON Schema (ECMA-262, matching anywhere in the string unless anchored) as
// automata. Understood: characters, ., classes, \d \w \s and their complements, \t \n \r \f \v \0
// \xHH \uHHHH \u{H} \cX, escaped punctuation, groups (named ones, too), |, * + ? {n} {n,} {n,m}
// also lazy, ^ and $ anywhere. Refused: look-around, back references, \b \B, \p \P \k.
#pragma once

#include <string_view>

#include "byte_dfa.h"

namespace hadal::runtime::grammar {

inline constexpr size_t kMaxRegexStates = 4096;  // of the automaton that tries all at once
inline constexpr size_t kMaxRegexNesting = 64;
inline constexpr size_t kMaxRegexDfaStates = 4096;
inline constexpr size_t kMaxRegexSteps = size_t{1} << 23;  // of making it deterministic

// Errors: kInvalidArgument for what is no regular expression, kUnsupported for what is not
// understood and beyond the limits. Messages start with what is wrong: "pattern: ...".
[[nodiscard]] Result<CodePointDfa> compile_regex(std::string_view pattern);

}  // namespace hadal::runtime::grammar
