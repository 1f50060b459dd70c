// Filters (filters.cpp), tests (tests.cpp), methods (methods.cpp) and global functions of jinja2
// that chat templates use. Private.
#pragma once

#include <string>
#include <string_view>

#include "jinja/arguments.h"
#include "jinja/value.h"

namespace hadal::jinja {

[[nodiscard]] bool is_filter(std::string_view name);
[[nodiscard]] bool is_test(std::string_view name);

// All throw Error where Python or jinja2 raises.
[[nodiscard]] Value apply_filter(std::string_view name, const Value& value, const Arguments& args);
[[nodiscard]] bool apply_test(std::string_view name, const Value& value, const Arguments& args);
// value.name(args); `found` false: no such method.
[[nodiscard]] Value call_method(const Value& value, std::string_view name, const Arguments& args,
                                bool& found);
// namespace, dict, range, raise_exception, strftime_now.
[[nodiscard]] bool is_global_function(std::string_view name);
[[nodiscard]] Value call_global(std::string_view name, const Arguments& args);

// value.name and value[key]: undefined where there is none.
[[nodiscard]] Value attribute(const Value& value, const std::string& name);
[[nodiscard]] Value item(const Value& value, const Value& key);
// value[from:to:step]; bounds that are undefined were left out.
[[nodiscard]] Value slice(const Value& value, const Value& from, const Value& to,
                          const Value& step);

}  // namespace hadal::jinja
