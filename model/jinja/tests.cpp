// jinja2's tests (`x is defined`), by name.
#include <fmt/format.h>

#include <map>

#include "jinja/builtins.h"
#include "jinja/text.h"

namespace hadal::jinja {
namespace {

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

}  // namespace

bool is_test(std::string_view name) {
  return tests().count(name);
}

bool apply_test(std::string_view name, const Value& value, const Arguments& args) {
  return tests().at(name)(value, args);
}

}  // namespace hadal::jinja
