#include "jinja/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "jinja/text.h"

namespace hadal::jinja {
namespace {

void check_size(const std::string& text) {
  if (text.size() > kMaxTextBytes) throw Error("a string is longer than 64 MiB");
}

std::string float_repr(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d > 0 ? "inf" : "-inf";
  std::string text = fmt::format("{}", d);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string quoted_repr(std::string_view s) {
  const bool double_quotes =
      s.find('\'') != std::string_view::npos && s.find('"') == std::string_view::npos;
  const char quote = double_quotes ? '"' : '\'';
  std::string text(1, quote);
  for (const char c : s) {
    if (c == quote || c == '\\') {
      text += '\\', text += c;
    } else if (c == '\n') {
      text += "\\n";
    } else if (c == '\r') {
      text += "\\r";
    } else if (c == '\t') {
      text += "\\t";
    } else if (uint8_t(c) < 0x20 || c == 0x7f) {
      text += fmt::format("\\x{:02x}", uint8_t(c));
    } else {
      text += c;
    }
  }
  return text + quote;
}

template <class Items, class Write>
void append_all(std::string& out, std::string_view open, const Items& items, std::string_view close,
                Write write) {
  out += open;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i) out += ", ";
    write(items[i]);
    check_size(out);
  }
  out += close;
}

// repr() into one string, so that values nested in each other cost what they print.
void append_repr(const Value& v, std::string& out) {
  const auto item = [&](const Value& i) { append_repr(i, out); };
  const auto field = [&](const auto& f) {
    out += quoted_repr(f.first) + ": ";
    append_repr(f.second, out);
  };
  if (v.is_undefined()) {
    out += "Undefined";
  } else if (v.is<None>()) {
    out += "None";
  } else if (v.is<bool>()) {
    out += v.truthy() ? "True" : "False";
  } else if (v.is<int64_t>()) {
    out += fmt::format("{}", v.to_int());
  } else if (v.is<double>()) {
    out += float_repr(v.to_double());
  } else if (const std::string* s = v.string()) {
    out += quoted_repr(*s);
  } else if (v.is<Tuple>()) {
    append_all(out, "(", *v.list(), v.list()->size() == 1 ? ",)" : ")", item);
  } else if (const List* l = v.list()) {
    append_all(out, "[", *l, "]", item);
  } else if (const Dict* d = v.dict()) {
    const bool space = v.is<Namespace>();
    append_all(out, space ? "<Namespace {" : "{", *d, space ? "}>" : "}", field);
  } else {
    out += "<Macro>";
  }
}

void json_string(std::string_view s, std::string& out) {
  using Json = nlohmann::json;
  out += Json(s).dump(-1, ' ', false, Json::error_handler_t::replace);
}

struct JsonWriter {
  int indent;
  bool sort_keys;
  std::string out;

  void line(int depth) {
    if (indent >= 0) out += '\n', out.append(size_t(indent) * size_t(depth), ' ');
  }
  template <class Items, class Write>
  void group(char open, const Items& items, char close, int depth, Write write) {
    out += open;
    for (size_t i = 0; i < items.size(); ++i) {
      if (i) out += indent >= 0 ? "," : ", ";
      line(depth + 1);
      write(items[i]);
    }
    if (!items.empty()) line(depth);
    out += close;
  }
  void write(const Value& v, int depth) {
    check_size(out);
    if (v.is<None>()) {
      out += "null";
    } else if (v.is<bool>()) {
      out += v.truthy() ? "true" : "false";
    } else if (v.is<double>() && !std::isfinite(v.to_double())) {
      out += std::isnan(v.to_double()) ? "NaN" : v.to_double() > 0 ? "Infinity" : "-Infinity";
    } else if (v.is_number()) {
      out += v.str();
    } else if (const std::string* s = v.string()) {
      json_string(*s, out);
    } else if (const List* l = v.list()) {
      group('[', *l, ']', depth, [&](const Value& item) { write(item, depth + 1); });
    } else if (const Dict* d = v.dict(); d && !v.is<Namespace>()) {
      Dict sorted = *d;
      if (sort_keys) {
        std::stable_sort(sorted.begin(), sorted.end(),
                         [](const auto& a, const auto& b) { return a.first < b.first; });
      }
      group('{', sorted, '}', depth, [&](const auto& field) {
        json_string(field.first, out);
        out += ": ";
        write(field.second, depth + 1);
      });
    } else {
      throw Error(fmt::format("tojson: a value of type {} is not JSON", v.type()));
    }
  }
};

}  // namespace

void Value::contain(const Value& item) {
  depth_ = std::max(depth_, item.depth_ + 1);
  holds_namespace_ |= item.holds_namespace_;
  if (depth_ > kMaxDepth) throw Error("lists and dicts are nested too deeply");
}

Value::Value(List list) {
  for (const Value& item : list) contain(item);
  data_ = std::make_shared<List>(std::move(list));
}

Value::Value(Dict dict) {
  for (const auto& field : dict) contain(field.second);
  data_ = std::make_shared<Dict>(std::move(dict));
}

Value Value::tuple(List items) {
  Value value(std::move(items));
  value.data_ = Tuple{std::get<std::shared_ptr<List>>(value.data_)};
  return value;
}

Value Value::from_json(const nlohmann::ordered_json& json) {
  if (json.is_null()) return None{};
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_unsigned() && json.get<uint64_t>() > uint64_t(INT64_MAX)) {
    return json.get<double>();
  }
  if (json.is_number_integer()) return json.get<int64_t>();
  if (json.is_number()) return json.get<double>();
  if (json.is_string()) return json.get<std::string>();
  if (json.is_array()) {
    List list;
    for (const auto& item : json) list.push_back(from_json(item));
    return list;
  }
  Dict dict;
  for (const auto& [key, item] : json.items()) dict.emplace_back(key, from_json(item));
  return dict;
}

const List* Value::list() const {
  if (const auto* list = std::get_if<std::shared_ptr<List>>(&data_)) return list->get();
  const auto* tuple = std::get_if<Tuple>(&data_);
  return tuple ? tuple->items.get() : nullptr;
}

const Dict* Value::dict() const {
  if (const auto* dict = std::get_if<std::shared_ptr<Dict>>(&data_)) return dict->get();
  return namespace_fields();
}

Dict* Value::namespace_fields() const {
  const auto* space = std::get_if<Namespace>(&data_);
  return space ? space->fields.get() : nullptr;
}

const Macro* Value::macro() const {
  const auto* macro = std::get_if<std::shared_ptr<const Macro>>(&data_);
  return macro ? macro->get() : nullptr;
}

bool Value::truthy() const {
  if (is_undefined() || is<None>()) return false;
  if (const bool* b = std::get_if<bool>(&data_)) return *b;
  if (is_number()) return to_double() != 0.0;
  if (const std::string* s = string()) return !s->empty();
  if (const List* l = list()) return !l->empty();
  if (is<Namespace>()) return true;
  if (const Dict* d = dict()) return !d->empty();
  return true;
}

std::string_view Value::type() const {
  constexpr std::string_view names[] = {"Undefined", "NoneType",  "bool", "int",
                                        "float",     "str",       "list", "dict",
                                        "tuple",     "Namespace", "Macro"};
  return names[data_.index()];
}

int64_t Value::to_int() const {
  if (const bool* b = std::get_if<bool>(&data_)) return *b;
  if (const int64_t* i = std::get_if<int64_t>(&data_)) return *i;
  throw Error(fmt::format("an integer is needed, got {}", type()));
}

double Value::to_double() const {
  if (const double* d = std::get_if<double>(&data_)) return *d;
  if (is_number()) return double(to_int());
  throw Error(fmt::format("a number is needed, got {}", type()));
}

std::string Value::str() const {
  if (is_undefined()) return "";
  const std::string* s = string();
  return s ? *s : repr();
}

std::string Value::repr() const {
  std::string text;
  append_repr(*this, text);
  return text;
}

const Value* find(const Dict& dict, std::string_view key) {
  for (const auto& [name, value] : dict) {
    if (name == key) return &value;
  }
  return nullptr;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (!a.is<double>() && !b.is<double>()) return a.to_int() == b.to_int();
    return a.to_double() == b.to_double();
  }
  if (a.type() != b.type()) return false;
  if (a.is_undefined() || a.is<None>()) return true;
  if (const std::string* s = a.string()) return *s == *b.string();
  if (const List* l = a.list()) {
    return std::equal(l->begin(), l->end(), b.list()->begin(), b.list()->end(), equal);
  }
  if (a.is<Namespace>()) return a.namespace_fields() == b.namespace_fields();
  if (const Dict* d = a.dict()) {
    if (d->size() != b.dict()->size()) return false;
    return std::all_of(d->begin(), d->end(), [&](const auto& field) {
      const Value* other = find(*b.dict(), field.first);
      return other && equal(field.second, *other);
    });
  }
  return a.macro() == b.macro();
}

bool less(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (!a.is<double>() && !b.is<double>()) return a.to_int() < b.to_int();
    return a.to_double() < b.to_double();
  }
  // Bytes of UTF-8 have the order of their characters.
  if (a.string() && b.string()) return *a.string() < *b.string();
  if (a.list() && b.list() && a.type() == b.type()) {
    const List &x = *a.list(), &y = *b.list();
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(x[i], y[i])) return less(x[i], y[i]);
    }
    return x.size() < y.size();
  }
  throw Error(fmt::format("values of type {} and {} have no order", a.type(), b.type()));
}

bool contains(const Value& container, const Value& item) {
  if (const std::string* s = container.string()) {
    if (!item.string())
      throw Error(fmt::format("'in <string>' needs a string, got {}", item.type()));
    return s->find(*item.string()) != std::string::npos;
  }
  if (const Dict* d = container.dict(); d && !container.is<Namespace>()) {
    return item.string() && find(*d, *item.string());
  }
  const List items = items_of(container);
  return std::any_of(items.begin(), items.end(), [&](const Value& v) { return equal(v, item); });
}

List items_of(const Value& value) {
  if (value.is_undefined()) return {};
  if (const List* l = value.list()) return *l;
  if (const std::string* s = value.string()) {
    List characters;
    for (std::string_view c : characters_of(*s)) characters.emplace_back(std::string(c));
    return characters;
  }
  if (const Dict* d = value.dict(); d && !value.is<Namespace>()) {
    List keys;
    for (const auto& field : *d) keys.emplace_back(field.first);
    return keys;
  }
  throw Error(fmt::format("a value of type {} cannot be iterated", value.type()));
}

int64_t length_of(const Value& value) {
  if (const std::string* s = value.string()) return int64_t(character_count(*s));
  if (const List* l = value.list()) return int64_t(l->size());
  if (const Dict* d = value.dict(); d && !value.is<Namespace>()) return int64_t(d->size());
  if (value.is_undefined()) return 0;
  throw Error(fmt::format("a value of type {} has no length", value.type()));
}

std::string to_json(const Value& value, int indent, bool sort_keys) {
  JsonWriter writer{indent, sort_keys, {}};
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace hadal::jinja
