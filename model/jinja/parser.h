// Template text to its tree. Private.
#pragma once

#include <string_view>

#include "jinja/ast.h"

namespace hadal::jinja {

// Throws Error with the line: broken syntax, or a tag, filter or test that is not implemented.
[[nodiscard]] Body parse(std::string_view source);

}  // namespace hadal::jinja
