// A schema to nodes.
#pragma once

#include <string>
#include <string_view>

#include "nodes.h"

namespace hadal::runtime::grammar {

// An empty text: any object. Errors: those of JsonGrammar::compile.
[[nodiscard]] Result<Nodes> compile_schema(std::string_view text, uint32_t max_whitespace);

}  // namespace hadal::runtime::grammar
