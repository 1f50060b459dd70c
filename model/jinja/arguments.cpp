#include "jinja/arguments.h"

#include <fmt/format.h>

#include <algorithm>

namespace hadal::jinja {

const Value* Arguments::get(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Arguments::check(std::string_view what, std::initializer_list<std::string_view> names) const {
  if (positional.size() > names.size()) {
    throw Error(
        fmt::format("{}: at most {} arguments, got {}", what, names.size(), positional.size()));
  }
  for (const auto& field : named) {
    if (std::find(names.begin(), names.end(), field.first) != names.end()) continue;
    throw Error(fmt::format("{}: no argument is named '{}'", what, field.first));
  }
}

const std::string& need_string(std::string_view what, const Value& value) {
  if (const std::string* s = value.string()) return *s;
  throw Error(fmt::format("{}: a string is needed, got {}", what, value.type()));
}

std::string string_argument(std::string_view what, const Arguments& args, size_t index,
                            std::string_view name, std::string otherwise) {
  const Value* value = args.get(index, name);
  return value ? need_string(what, *value) : std::move(otherwise);
}

int64_t int_argument(const Arguments& args, size_t index, std::string_view name,
                     int64_t otherwise) {
  const Value* value = args.get(index, name);
  return value && !value->is<None>() ? value->to_int() : otherwise;
}

bool bool_argument(const Arguments& args, size_t index, std::string_view name, bool otherwise) {
  const Value* value = args.get(index, name);
  return value ? value->truthy() : otherwise;
}

}  // namespace hadal::jinja
