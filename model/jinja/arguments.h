// What is given to filters, tests, methods and global functions. Private.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/value.h"

namespace hadal::jinja {

struct Arguments {
  List positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at `index` or of the name; nullptr when it was not given.
  [[nodiscard]] const Value* get(size_t index, std::string_view name) const;
  // Throws Error for more arguments than names, and for names that are not among them.
  void check(std::string_view what, std::initializer_list<std::string_view> names) const;
};

// The value's string; throws Error naming `what` needs one.
[[nodiscard]] const std::string& need_string(std::string_view what, const Value& value);
// An argument, or `otherwise` when it was not given.
[[nodiscard]] std::string string_argument(std::string_view what, const Arguments& args,
                                          size_t index, std::string_view name,
                                          std::string otherwise);
[[nodiscard]] int64_t int_argument(const Arguments& args, size_t index, std::string_view name,
                                   int64_t otherwise);
[[nodiscard]] bool bool_argument(const Arguments& args, size_t index, std::string_view name,
                                 bool otherwise);

}  // namespace hadal::jinja
