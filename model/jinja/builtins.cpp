// Global functions, and what brackets and points after a value mean.
#include "jinja/builtins.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

namespace hadal::jinja {
namespace {

Value fields(const Arguments& args, std::string_view what) {
  Dict dict;
  if (args.positional.size() > 1) throw Error(fmt::format("{}: one dict at most", what));
  if (!args.positional.empty()) {
    if (!is_mapping(args.positional[0])) throw Error(fmt::format("{}: a dict is needed", what));
    dict = *args.positional[0].dict();
  }
  for (const auto& [name, value] : args.named) {
    const auto known = std::find_if(
        dict.begin(), dict.end(), [&key = name](const auto& field) { return field.first == key; });
    if (known == dict.end()) {
      dict.emplace_back(name, value);
    } else {
      known->second = value;
    }
  }
  return dict;
}

Value range(const Arguments& args) {
  if (args.positional.empty() || args.positional.size() > 3) throw Error("range: 1 to 3 numbers");
  const bool one = args.positional.size() == 1;
  const int64_t from = one ? 0 : args.positional[0].to_int();
  const int64_t to = args.positional[one ? 0 : 1].to_int();
  const int64_t step = int_argument(args, 2, "step", 1);
  if (step == 0) throw Error("range: step must not be zero");
  List list;
  for (int64_t i = from; step > 0 ? i < to : i > to;) {
    if (int64_t(list.size()) == kMaxItems) throw Error("range: more than a million numbers");
    list.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return list;
}

Value strftime_now(const Arguments& args) {
  const std::string format = string_argument("strftime_now", args, 0, "format", "");
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[256];
  const size_t length = std::strftime(text, sizeof text, format.c_str(), &local);
  return std::string(text, length);
}

}  // namespace

bool is_global_function(std::string_view name) {
  for (std::string_view known : {"namespace", "dict", "range", "raise_exception", "strftime_now"}) {
    if (name == known) return true;
  }
  return false;
}

Value call_global(std::string_view name, const Arguments& args) {
  if (name == "range") return range(args);
  if (name == "strftime_now") return strftime_now(args);
  if (name == "raise_exception") {
    const Value* message = args.get(0, "message");
    throw Error(message ? message->str() : "the template refuses the messages");
  }
  const Value dict = fields(args, name);
  if (name == "dict") return dict;
  if (dict.holds_namespace()) throw Error("a namespace cannot hold a namespace");
  return Namespace{std::make_shared<Dict>(*dict.dict())};
}

Value attribute(const Value& value, const std::string& name) {
  if (value.is_undefined()) {
    throw Error(fmt::format("'{}' is undefined, so it has no '{}'", value.undefined_name(), name));
  }
  const Dict* dict = value.dict();
  const Value* found = dict ? find(*dict, name) : nullptr;
  return found ? *found : Value(Undefined{name});
}

Value item(const Value& value, const Value& key) {
  if (key.string()) return attribute(value, *key.string());
  if (value.is_undefined()) {
    throw Error(fmt::format("'{}' is undefined, so it has no items", value.undefined_name()));
  }
  const Undefined none{key.repr()};
  if (!key.is_number() || key.is<double>()) return none;
  const List list = value.list() ? *value.list() : value.string() ? items_of(value) : List();
  const int64_t index = key.to_int(), size = int64_t(list.size());
  const int64_t at = index < 0 ? index + size : index;
  return at >= 0 && at < size ? list[size_t(at)] : Value(none);
}

Value slice(const Value& value, const Value& from, const Value& to, const Value& step) {
  if (!value.list() && !value.string()) {
    throw Error(fmt::format("a value of type {} cannot be sliced", value.type()));
  }
  const List list = items_of(value);
  const int64_t size = int64_t(list.size());
  const auto given = [](const Value& v) { return !v.is_undefined() && !v.is<None>(); };
  const int64_t by = given(step) ? step.to_int() : 1;
  if (by == 0) throw Error("slice step cannot be zero");
  const auto bound = [&](const Value& v, int64_t otherwise) {
    if (!given(v)) return otherwise;
    const int64_t at =
        v.to_int() < 0 ? std::max<int64_t>(v.to_int(), -size - 1) + size : v.to_int();
    return std::clamp<int64_t>(at, by < 0 ? -1 : 0, by < 0 ? size - 1 : size);
  };
  List cut;
  const int64_t begin = bound(from, by < 0 ? size - 1 : 0), end = bound(to, by < 0 ? -1 : size);
  for (int64_t i = begin; by > 0 ? i < end : i > end;) {
    cut.push_back(list[size_t(i)]);
    if (__builtin_add_overflow(i, by, &i)) break;
  }
  if (!value.string()) return cut;
  std::string text;
  for (const Value& character : cut) text += character.str();
  return text;
}

}  // namespace hadal::jinja
