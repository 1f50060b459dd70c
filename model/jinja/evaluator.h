// Renders a template's tree over variables. Private.
#pragma once

#include <string>

#include "jinja/ast.h"

namespace hadal::jinja {

// The text of `body` with `variables`. Work is bounded (steps, bytes of output), so that no
// template runs forever. Throws Error with the line. Thread-safe.
[[nodiscard]] std::string render(const Body& body, const Dict& variables);

}  // namespace hadal::jinja
