#include "jinja/builtins.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <ctime>
#include <map>

#include "jinja/text.h"

namespace hadal::jinja {
namespace {

constexpr int64_t kMaxItems = 1'000'000;  // of range() and the like

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

Value strings(std::vector<std::string> parts) {
  List list;
  for (std::string& part : parts) list.emplace_back(std::move(part));
  return list;
}

// `a.b.0` of a value, as map(attribute=...) and the like name it.
Value path(Value value, std::string_view names) {
  for (const std::string& name : split(names, ".", -1, false)) {
    int64_t index = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
    const bool number = error == std::errc() && end == name.data() + name.size();
    value = number ? item(value, index) : item(value, name);
  }
  return value;
}

// How sort, unique, min and max compare: strings without case unless told otherwise.
Value sort_key(const Value& value, const Arguments& args, size_t case_index) {
  const Value* name = args.get(case_index + 1, "attribute");
  Value key = name && !name->is<None>() ? path(value, name->str()) : value;
  if (key.string() && !bool_argument(args, case_index, "case_sensitive", false)) {
    return lower(*key.string());
  }
  return key;
}

// ---- filters ----

Value filter_default(const Value& v, const Arguments& args) {
  args.check("default", {"default_value", "boolean"});
  const bool absent = v.is_undefined() || (bool_argument(args, 1, "boolean", false) && !v.truthy());
  if (!absent) return v;
  const Value* otherwise = args.get(0, "default_value");
  return otherwise ? *otherwise : Value("");
}

Value filter_tojson(const Value& v, const Arguments& args) {
  args.check("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
  // jinja2's own tojson has indent first; Hugging Face's has it second, and templates name it.
  const Value* first = args.positional.empty() ? nullptr : &args.positional[0];
  const bool indent_first = first && first->is<int64_t>();
  const int64_t indent = int_argument(args, indent_first ? 0 : 1, "indent", -1);
  if (indent > 32) throw Error("tojson: indent must be at most 32");
  return to_json(v, int(indent), bool_argument(args, 3, "sort_keys", false));
}

Value filter_join(const Value& v, const Arguments& args) {
  args.check("join", {"d", "attribute"});
  const std::string between = string_argument("join", args, 0, "d", "");
  const Value* name = args.get(1, "attribute");
  std::string text;
  bool first = true;
  for (const Value& part : items_of(v)) {
    if (!first) text += between;
    text += name ? path(part, name->str()).str() : part.str();
    if (text.size() > kMaxTextBytes) throw Error("a string is longer than 64 MiB");
    first = false;
  }
  return text;
}

Value filter_int(const Value& v, const Arguments& args) {
  args.check("int", {"default", "base"});
  const int64_t otherwise = int_argument(args, 0, "default", 0);
  if (v.is<double>()) {
    const double d = v.to_double();
    if (!(std::abs(d) < 9.2e18)) return otherwise;
    return int64_t(d);
  }
  if (v.is_number()) return v.to_int();
  if (!v.string()) return otherwise;
  const std::string text(stripped(*v.string()));
  int64_t value = 0;
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const auto [end, error] = std::from_chars(begin, text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? value : otherwise;
}

Value filter_float(const Value& v, const Arguments& args) {
  args.check("float", {"default"});
  const Value* otherwise = args.get(0, "default");
  if (v.is_number()) return v.to_double();
  if (v.string()) {
    const std::string text(stripped(*v.string()));
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size()) return value;
  }
  return otherwise ? *otherwise : Value(0.0);
}

Value filter_abs(const Value& v, const Arguments& args) {
  args.check("abs", {});
  if (v.is<double>()) return std::abs(v.to_double());
  const int64_t i = v.to_int();
  if (i == INT64_MIN) throw Error("abs: the number is too large");
  return i < 0 ? -i : i;
}

Value filter_items(const Value& v, const Arguments& args) {
  args.check("items", {});
  if (v.is_undefined()) return List{};
  const Dict* dict = v.dict();
  if (!dict || v.is<Namespace>())
    throw Error(fmt::format("items: a dict is needed, got {}", v.type()));
  List list;
  for (const auto& [key, value] : *dict) list.push_back(Value::tuple({key, value}));
  return list;
}

Value filter_dictsort(const Value& v, const Arguments& args) {
  args.check("dictsort", {"case_sensitive", "by", "reverse"});
  const size_t by = string_argument("dictsort", args, 1, "by", "key") == "value";
  const bool exact = bool_argument(args, 0, "case_sensitive", false);
  List list = *filter_items(v, {}).list();
  const auto key = [&](const Value& pair) -> Value {
    const Value& k = (*pair.list())[by];
    return k.string() && !exact ? Value(lower(*k.string())) : k;
  };
  std::stable_sort(list.begin(), list.end(),
                   [&](const Value& a, const Value& b) { return less(key(a), key(b)); });
  if (bool_argument(args, 2, "reverse", false)) std::reverse(list.begin(), list.end());
  return list;
}

Value filter_sort(const Value& v, const Arguments& args) {
  args.check("sort", {"reverse", "case_sensitive", "attribute"});
  List list = items_of(v);
  const bool reverse = bool_argument(args, 0, "reverse", false);
  std::stable_sort(list.begin(), list.end(), [&](const Value& a, const Value& b) {
    return reverse ? less(sort_key(b, args, 1), sort_key(a, args, 1))
                   : less(sort_key(a, args, 1), sort_key(b, args, 1));
  });
  return list;
}

Value filter_unique(const Value& v, const Arguments& args) {
  args.check("unique", {"case_sensitive", "attribute"});
  List list, keys;
  for (const Value& value : items_of(v)) {
    Value key = sort_key(value, args, 0);
    const bool known = std::any_of(keys.begin(), keys.end(),
                                   [&](const Value& other) { return equal(key, other); });
    if (known) continue;
    keys.push_back(std::move(key));
    list.push_back(value);
  }
  return list;
}

template <bool kLargest>
Value filter_extreme(const Value& v, const Arguments& args) {
  args.check(kLargest ? "max" : "min", {"case_sensitive", "attribute"});
  const List list = items_of(v);
  if (list.empty()) return Undefined{"an item of an empty sequence"};
  const auto before = [&](const Value& a, const Value& b) {
    const Value x = sort_key(a, args, 0), y = sort_key(b, args, 0);
    return kLargest ? less(y, x) : less(x, y);
  };
  return *std::min_element(list.begin(), list.end(), before);
}

Value filter_sum(const Value& v, const Arguments& args) {
  args.check("sum", {"attribute", "start"});
  const Value* name = args.get(0, "attribute");
  const Value* start = args.get(1, "start");
  double real = start ? start->to_double() : 0.0;
  int64_t whole = start && !start->is<double>() ? start->to_int() : 0;
  bool exact = !start || !start->is<double>();
  for (const Value& value : items_of(v)) {
    const Value number = name && !name->is<None>() ? path(value, name->str()) : value;
    real += number.to_double();
    if (number.is<double>()) exact = false;
    if (exact && __builtin_add_overflow(whole, number.to_int(), &whole)) {
      throw Error("sum: the number is too large");
    }
  }
  return exact ? Value(whole) : Value(real);
}

Value filter_round(const Value& v, const Arguments& args) {
  args.check("round", {"precision", "method"});
  const double scale = std::pow(10.0, double(int_argument(args, 0, "precision", 0)));
  const std::string method = string_argument("round", args, 1, "method", "common");
  const double d = v.to_double() * scale;
  if (method == "ceil") return std::ceil(d) / scale;
  if (method == "floor") return std::floor(d) / scale;
  return std::nearbyint(d) / scale;  // to even, as Python's round
}

Value filter_map(const Value& v, const Arguments& args) {
  List list;
  if (const Value* name = args.get(SIZE_MAX, "attribute")) {
    args.check("map", {"attribute", "default"});
    const Value* otherwise = args.get(SIZE_MAX, "default");
    for (const Value& value : items_of(v)) {
      Value found = path(value, name->str());
      list.push_back(found.is_undefined() && otherwise ? *otherwise : std::move(found));
    }
    return list;
  }
  if (args.positional.empty()) throw Error("map: a filter or an attribute is needed");
  const std::string& name = need_string("map", args.positional[0]);
  if (!is_filter(name)) throw Error(fmt::format("the filter '{}' is not implemented here", name));
  const Arguments rest{{args.positional.begin() + 1, args.positional.end()}, args.named};
  for (const Value& value : items_of(v)) list.push_back(apply_filter(name, value, rest));
  return list;
}

// select, reject, selectattr, rejectattr.
template <bool kKeep, bool kAttribute>
Value filter_select(const Value& v, const Arguments& args) {
  List rest = args.positional;
  std::string name;
  if (kAttribute) {
    if (rest.empty()) throw Error("selectattr: an attribute is needed");
    name = rest[0].str();
    rest.erase(rest.begin());
  }
  std::string test;
  if (!rest.empty()) {
    test = need_string("select", rest[0]);
    rest.erase(rest.begin());
    if (!is_test(test)) throw Error(fmt::format("the test '{}' is not implemented here", test));
  }
  List list;
  for (const Value& value : items_of(v)) {
    const Value tested = kAttribute ? path(value, name) : value;
    const bool passes = test.empty() ? tested.truthy() : apply_test(test, tested, {rest, {}});
    if (passes == kKeep) list.push_back(value);
  }
  return list;
}

Value filter_reverse(const Value& v, const Arguments& args) {
  args.check("reverse", {});
  List list = items_of(v);
  std::reverse(list.begin(), list.end());
  if (!v.string()) return list;
  std::string text;
  for (const Value& character : list) text += character.str();
  return text;
}

Value filter_indent(const Value& v, const Arguments& args) {
  args.check("indent", {"width", "first", "blank"});
  const Value* width = args.get(0, "width");
  if (width && width->is_number() && (width->to_int() < 0 || width->to_int() > 1000)) {
    throw Error("indent: width must be 0 to 1000");
  }
  const std::string indent = width && width->string()
                                 ? *width->string()
                                 : std::string(size_t(width ? width->to_int() : 4), ' ');
  return indented(need_string("indent", v), indent, bool_argument(args, 1, "first", false),
                  bool_argument(args, 2, "blank", false));
}

Value filter_replace(const Value& v, const Arguments& args) {
  args.check("replace", {"old", "new", "count"});
  const Value *from = args.get(0, "old"), *to = args.get(1, "new");
  if (!from || !to) throw Error("replace: what, and by what, is needed");
  return replaced(v.str(), from->str(), to->str(), int_argument(args, 2, "count", -1));
}

template <bool kLast>
Value filter_end(const Value& v, const Arguments& args) {
  args.check(kLast ? "last" : "first", {});
  const List list = items_of(v);
  if (list.empty()) return Undefined{"an item of an empty sequence"};
  return kLast ? list.back() : list.front();
}

template <std::string (*kFunction)(std::string)>
Value filter_text(const Value& v, const Arguments& args) {
  args.check("the filter", {});
  return kFunction(v.str());
}

Value filter_trim(const Value& v, const Arguments& args) {
  args.check("trim", {"chars"});
  const Value* characters = args.get(0, "chars");
  if (!characters || characters->is<None>()) return std::string(stripped(v.str()));
  return std::string(stripped(v.str(), characters->str()));
}

Value filter_batch(const Value& v, const Arguments& args) {
  args.check("batch", {"linecount", "fill_with"});
  const int64_t size = int_argument(args, 0, "linecount", 0);
  const Value* fill = args.get(1, "fill_with");
  if (size < 1 || size > kMaxItems) throw Error("batch: linecount must be at least 1");
  List batches, batch;
  for (const Value& value : items_of(v)) {
    if (int64_t(batch.size()) == size) batches.emplace_back(std::exchange(batch, {}));
    batch.push_back(value);
  }
  if (batch.empty()) return batches;
  if (fill && !fill->is<None>()) batch.resize(size_t(size), *fill);
  batches.emplace_back(std::move(batch));
  return batches;
}

Value identity(const Value& v, const Arguments&) {
  return v;
}

using Filter = Value (*)(const Value&, const Arguments&);
const std::map<std::string_view, Filter>& filters() {
  static const std::map<std::string_view, Filter> table = {
      {"abs", filter_abs},
      {"batch", filter_batch},
      {"capitalize", filter_text<capitalized>},
      {"count", [](const Value& v, const Arguments&) { return Value(length_of(v)); }},
      {"d", filter_default},
      {"default", filter_default},
      {"dictsort", filter_dictsort},
      {"e", identity},  // nothing is escaped: the text is not HTML
      {"escape", identity},
      {"first", filter_end<false>},
      {"float", filter_float},
      {"indent", filter_indent},
      {"int", filter_int},
      {"items", filter_items},
      {"join", filter_join},
      {"last", filter_end<true>},
      {"length", [](const Value& v, const Arguments&) { return Value(length_of(v)); }},
      {"list", [](const Value& v, const Arguments&) { return Value(items_of(v)); }},
      {"lower", filter_text<lower>},
      {"map", filter_map},
      {"max", filter_extreme<true>},
      {"min", filter_extreme<false>},
      {"reject", filter_select<false, false>},
      {"rejectattr", filter_select<false, true>},
      {"replace", filter_replace},
      {"reverse", filter_reverse},
      {"round", filter_round},
      {"safe", identity},
      {"select", filter_select<true, false>},
      {"selectattr", filter_select<true, true>},
      {"sort", filter_sort},
      {"string", [](const Value& v, const Arguments&) { return Value(v.str()); }},
      {"sum", filter_sum},
      {"title", filter_text<titled>},
      {"tojson", filter_tojson},
      {"trim", filter_trim},
      {"unique", filter_unique},
      {"upper", filter_text<upper>},
  };
  return table;
}

// ---- tests ----

const Value& other(std::string_view test, const Arguments& args) {
  if (args.positional.empty()) throw Error(fmt::format("{}: a value to test with is needed", test));
  return args.positional[0];
}

using Test = bool (*)(const Value&, const Arguments&);
bool test_equal(const Value& v, const Arguments& args) {
  return equal(v, other("eq", args));
}
bool test_not_equal(const Value& v, const Arguments& args) {
  return !equal(v, other("ne", args));
}
bool test_less(const Value& v, const Arguments& args) {
  return less(v, other("lt", args));
}
bool test_greater(const Value& v, const Arguments& args) {
  return less(other("gt", args), v);
}
bool test_at_most(const Value& v, const Arguments& args) {
  return !less(other("le", args), v);
}
bool test_at_least(const Value& v, const Arguments& args) {
  return !less(v, other("ge", args));
}
bool is_integer(const Value& v) {
  return v.is<int64_t>();
}
bool is_mapping(const Value& v) {
  return v.dict() && !v.is<Namespace>();
}

const std::map<std::string_view, Test>& tests() {
  static const std::map<std::string_view, Test> table = {
      {"boolean", [](const Value& v, const Arguments&) { return v.is<bool>(); }},
      {"callable", [](const Value& v, const Arguments&) { return v.macro() != nullptr; }},
      {"defined", [](const Value& v, const Arguments&) { return !v.is_undefined(); }},
      {"divisibleby",
       [](const Value& v, const Arguments& args) {
         const int64_t by = other("divisibleby", args).to_int();
         if (by == 0) throw Error("division by zero");
         return by == -1 || v.to_int() % by == 0;
       }},
      {"eq", test_equal},
      {"equalto", test_equal},
      {"even", [](const Value& v, const Arguments&) { return v.to_int() % 2 == 0; }},
      {"false", [](const Value& v, const Arguments&) { return v.is<bool>() && !v.truthy(); }},
      {"float", [](const Value& v, const Arguments&) { return v.is<double>(); }},
      {"ge", test_at_least},
      {"greaterthan", test_greater},
      {"gt", test_greater},
      {"in", [](const Value& v, const Arguments& args) { return contains(other("in", args), v); }},
      {"integer", [](const Value& v, const Arguments&) { return is_integer(v); }},
      {"iterable",
       [](const Value& v, const Arguments&) {
         return v.list() || v.string() || is_mapping(v) || v.is_undefined();
       }},
      {"le", test_at_most},
      {"lessthan", test_less},
      {"lower",
       [](const Value& v, const Arguments&) {
         const std::string s = v.str();
         return s == lower(s) && s != upper(s);
       }},
      {"lt", test_less},
      {"mapping", [](const Value& v, const Arguments&) { return is_mapping(v); }},
      {"ne", test_not_equal},
      {"none", [](const Value& v, const Arguments&) { return v.is<None>(); }},
      {"number", [](const Value& v, const Arguments&) { return v.is_number(); }},
      {"odd", [](const Value& v, const Arguments&) { return v.to_int() % 2 != 0; }},
      {"sameas",
       [](const Value& v, const Arguments& args) {
         return v.type() == other("sameas", args).type() && v.list() == args.positional[0].list() &&
                v.dict() == args.positional[0].dict() && equal(v, args.positional[0]);
       }},
      {"sequence",
       [](const Value& v, const Arguments&) { return v.list() || v.string() || is_mapping(v); }},
      {"string", [](const Value& v, const Arguments&) { return v.is_string(); }},
      {"true", [](const Value& v, const Arguments&) { return v.is<bool>() && v.truthy(); }},
      {"undefined", [](const Value& v, const Arguments&) { return v.is_undefined(); }},
      {"upper",
       [](const Value& v, const Arguments&) {
         const std::string s = v.str();
         return s == upper(s) && s != lower(s);
       }},
  };
  return table;
}

// ---- methods ----

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
  if (name == "join") return filter_join(first(), {{Value(s)}, {}});
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
  if (name == "items") return filter_items(v, args);
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

// ---- global functions ----

Value fields(const Arguments& args, std::string_view what) {
  Dict dict;
  if (args.positional.size() > 1) throw Error(fmt::format("{}: one dict at most", what));
  if (!args.positional.empty()) {
    if (!is_mapping(args.positional[0])) throw Error(fmt::format("{}: a dict is needed", what));
    dict = *args.positional[0].dict();
  }
  for (const auto& [name, value] : args.named) {
    const auto known = std::find_if(dict.begin(), dict.end(),
                                    [&](const auto& field) { return field.first == name; });
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

bool is_filter(std::string_view name) {
  return filters().count(name);
}
bool is_test(std::string_view name) {
  return tests().count(name);
}

Value apply_filter(std::string_view name, const Value& value, const Arguments& args) {
  return filters().at(name)(value, args);
}

bool apply_test(std::string_view name, const Value& value, const Arguments& args) {
  return tests().at(name)(value, args);
}

Value call_method(const Value& value, std::string_view name, const Arguments& args, bool& found) {
  found = true;
  if (const std::string* s = value.string()) return string_method(*s, name, args, found);
  if (is_mapping(value)) return dict_method(value, name, args, found);
  if (const List* list = value.list()) return list_method(*list, name, args, found);
  found = false;
  return {};
}

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
