// Methods of Python's strings, dicts and lists.
#include <fmt/format.h>

#include <algorithm>

#include "jinja/builtins.h"
#include "jinja/text.h"

namespace hadal::jinja {
namespace {

Value strings(std::vector<std::string> parts) {
  List list;
  for (std::string& part : parts) list.emplace_back(std::move(part));
  return list;
}

bool any_of(std::string_view what, const Value& fixes,
            bool (*matches)(std::string_view, std::string_view), std::string_view text) {
  if (const List* list = fixes.list()) {
    return std::any_of(list->begin(), list->end(),
                       [&](const Value& v) { return matches(text, need_string(what, v)); });
  }
  return matches(text, need_string(what, fixes));
}

Value string_method(const std::string& s, std::string_view name, const Arguments& args,
                    bool& found) {
  const auto first = [&]() -> const Value& {
    if (args.positional.empty()) throw Error(fmt::format("{}: an argument is needed", name));
    return args.positional[0];
  };
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    args.check(name, {"chars"});
    const Value* set = args.get(0, "chars");
    const bool space = !set || set->is<None>();
    return std::string(stripped(s, space ? kSpace : std::string_view(need_string(name, *set)),
                                name != "rstrip", name != "lstrip"));
  }
  if (name == "split" || name == "rsplit") {
    args.check(name, {"sep", "maxsplit"});
    const Value* separator = args.get(0, "sep");
    const int64_t most = int_argument(args, 1, "maxsplit", -1);
    if (!separator || separator->is<None>()) {
      if (name == "rsplit" && most >= 0) throw Error("rsplit: a separator is needed here");
      return strings(split_space(s, most));
    }
    if (need_string(name, *separator).empty()) throw Error("split: empty separator");
    return strings(split(s, *separator->string(), most, name == "rsplit"));
  }
  if (name == "startswith") {
    return any_of(
        name, first(), [](std::string_view a, std::string_view b) { return a.starts_with(b); }, s);
  }
  if (name == "endswith") {
    return any_of(
        name, first(), [](std::string_view a, std::string_view b) { return a.ends_with(b); }, s);
  }
  if (name == "replace") {
    if (args.positional.size() < 2) throw Error("replace: what, and by what, is needed");
    return replaced(s, need_string(name, first()), need_string(name, args.positional[1]),
                    int_argument(args, 2, "count", -1));
  }
  if (name == "removeprefix") {
    const std::string& fix = need_string(name, first());
    return s.starts_with(fix) ? s.substr(fix.size()) : s;
  }
  if (name == "removesuffix") {
    const std::string& fix = need_string(name, first());
    return s.ends_with(fix) ? s.substr(0, s.size() - fix.size()) : s;
  }
  if (name == "find" || name == "rfind") {
    const std::string& what = need_string(name, first());
    const size_t at = name == "find" ? s.find(what) : s.rfind(what);
    if (at == std::string::npos) return int64_t{-1};
    return int64_t(character_count(std::string_view(s).substr(0, at)));
  }
  if (name == "count") {
    const std::string& what = need_string(name, first());
    if (what.empty()) return int64_t(character_count(s)) + 1;
    return int64_t(split(s, what, -1, false).size()) - 1;
  }
  if (name == "join") return apply_filter("join", first(), {{Value(s)}, {}});
  if (name == "upper") return upper(s);
  if (name == "lower") return lower(s);
  if (name == "capitalize") return capitalized(s);
  if (name == "title") return titled(s);
  if (name == "splitlines") {
    std::vector<std::string> lines =
        split(replaced(replaced(s, "\r\n", "\n"), "\r", "\n"), "\n", -1, false);
    if (lines.back().empty()) lines.pop_back();
    return strings(std::move(lines));
  }
  if (name == "isdigit") {
    return !s.empty() &&
           std::all_of(s.begin(), s.end(), [](char c) { return c >= '0' && c <= '9'; });
  }
  if (name == "isspace") return !s.empty() && stripped(s).empty();
  found = false;
  return {};
}

Value dict_method(const Value& v, std::string_view name, const Arguments& args, bool& found) {
  const Dict& dict = *v.dict();
  if (name == "items") return apply_filter("items", v, args);
  if (name == "keys") return items_of(v);
  if (name == "values") {
    List list;
    for (const auto& field : dict) list.push_back(field.second);
    return list;
  }
  if (name == "get") {
    const Value* key = args.get(0, "key");
    if (!key) throw Error("get: a key is needed");
    const Value* value = key->string() ? find(dict, *key->string()) : nullptr;
    const Value* otherwise = args.get(1, "default");
    return value ? *value : otherwise ? *otherwise : Value(None{});
  }
  found = false;
  return {};
}

Value list_method(const List& list, std::string_view name, const Arguments& args, bool& found) {
  if ((name == "index" || name == "count") && args.positional.size() == 1) {
    const auto is_it = [&](const Value& v) { return equal(v, args.positional[0]); };
    if (name == "count") return int64_t(std::count_if(list.begin(), list.end(), is_it));
    const auto at = std::find_if(list.begin(), list.end(), is_it);
    if (at == list.end()) throw Error("index: the value is not in the list");
    return int64_t(at - list.begin());
  }
  found = false;
  return {};
}

}  // namespace

Value call_method(const Value& value, std::string_view name, const Arguments& args, bool& found) {
  found = true;
  if (const std::string* s = value.string()) return string_method(*s, name, args, found);
  if (is_mapping(value)) return dict_method(value, name, args, found);
  if (const List* list = value.list()) return list_method(*list, name, args, found);
  found = false;
  return {};
}

}  // namespace hadal::jinja
