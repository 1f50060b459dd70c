// jinja2's filters, by name.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "jinja/builtins.h"
#include "jinja/text.h"

namespace hadal::jinja {
namespace {

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

}  // namespace

bool is_filter(std::string_view name) {
  return filters().count(name);
}

Value apply_filter(std::string_view name, const Value& value, const Arguments& args) {
  return filters().at(name)(value, args);
}

}  // namespace hadal::jinja
