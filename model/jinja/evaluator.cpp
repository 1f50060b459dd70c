#include "jinja/evaluator.h"

#include <fmt/format.h>

#include <cmath>
#include <map>

#include "jinja/builtins.h"
#include "jinja/text.h"

namespace hadal::jinja {
namespace {

using E = Expression::Kind;
using S = Statement::Kind;

constexpr uint64_t kMaxSteps = 2'000'000;  // expressions and statements of one rendering
constexpr uint32_t kMaxCalls = 50;         // of macros within each other

void check(bool overflow) {
  if (overflow) throw Error("a number is too large");
}

Value arithmetic(const std::string& op, const Value& a, const Value& b) {
  if (op == "/" || a.is<double>() || b.is<double>()) {
    const double x = a.to_double(), y = b.to_double();
    if (op == "+") return x + y;
    if (op == "-") return x - y;
    if (op == "*") return x * y;
    if (op == "**") return std::pow(x, y);
    if (y == 0.0) throw Error("division by zero");
    if (op == "/") return x / y;
    if (op == "//") return std::floor(x / y);
    const double rest = std::fmod(x, y);
    return rest != 0.0 && (rest < 0.0) != (y < 0.0) ? rest + y : rest;
  }
  const int64_t x = a.to_int(), y = b.to_int();
  int64_t result = 0;
  if (op == "+") return check(__builtin_add_overflow(x, y, &result)), result;
  if (op == "-") return check(__builtin_sub_overflow(x, y, &result)), result;
  if (op == "*") return check(__builtin_mul_overflow(x, y, &result)), result;
  if (op == "**") {
    if (y < 0) return std::pow(double(x), double(y));
    result = 1;
    for (int64_t i = 0; i < y && result != 0; ++i) {
      if (i > 64 && (x == 1 || x == -1 || x == 0)) return y % 2 ? x : x * x;
      check(__builtin_mul_overflow(result, x, &result));
    }
    return result;
  }
  if (y == 0) throw Error("division by zero");
  if (y == -1) return op == "//" ? arithmetic("-", int64_t{0}, a) : Value(int64_t{0});
  const int64_t quotient = x / y, rest = x % y;
  const bool down = rest != 0 && (rest < 0) != (y < 0);
  return op == "//" ? quotient - down : rest + (down ? y : 0);
}

Value repeated(const Value& value, int64_t count) {
  count = std::max<int64_t>(count, 0);
  if (const std::string* s = value.string()) {
    if (!s->empty() && uint64_t(count) > kMaxTextBytes / s->size()) {
      throw Error("a string is longer than 64 MiB");
    }
    std::string text;
    for (int64_t i = 0; i < count; ++i) text += *s;
    return text;
  }
  List list;
  if (!value.list()->empty() && uint64_t(count) > uint64_t(kMaxItems) / value.list()->size()) {
    throw Error("a list has more than a million items");
  }
  for (int64_t i = 0; i < count; ++i)
    list.insert(list.end(), value.list()->begin(), value.list()->end());
  return list;
}

Value binary(const std::string& op, const Value& a, const Value& b) {
  if (op == "~") return a.str() + b.str();
  for (const Value* v : {&a, &b}) {
    if (v->is_undefined()) throw Error(fmt::format("'{}' is undefined", v->undefined_name()));
  }
  if (op == "+" && a.string() && b.string()) return *a.string() + *b.string();
  if (op == "+" && a.list() && b.list() && a.type() == b.type()) {
    List list = *a.list();
    list.insert(list.end(), b.list()->begin(), b.list()->end());
    if (int64_t(list.size()) > kMaxItems) throw Error("a list has more than a million items");
    return a.is<Tuple>() ? Value::tuple(std::move(list)) : Value(std::move(list));
  }
  if (op == "*" && (a.string() || a.list()) && b.is_number()) return repeated(a, b.to_int());
  if (op == "*" && (b.string() || b.list()) && a.is_number()) return repeated(b, a.to_int());
  if (!a.is_number() || !b.is_number()) {
    throw Error(fmt::format("'{}' is not for values of type {} and {}", op, a.type(), b.type()));
  }
  return arithmetic(op, a, b);
}

bool compared(const std::string& op, const Value& a, const Value& b) {
  if (op == "==") return equal(a, b);
  if (op == "!=") return !equal(a, b);
  if (op == "in") return contains(b, a);
  if (op == "not in") return !contains(b, a);
  if (op == "<") return less(a, b);
  if (op == ">") return less(b, a);
  return op == "<=" ? !less(b, a) : !less(a, b);
}

class Evaluator {
 public:
  explicit Evaluator(const Dict& variables) : scopes_(1) {
    for (const auto& [name, value] : variables) scopes_[0][name] = value;
  }

  std::string run(const Body& body) {
    (void)execute(body);
    return std::move(out_);
  }

 private:
  enum class Flow { kNext, kBreak, kContinue };
  using Scope = std::map<std::string, Value, std::less<>>;

  void step(uint32_t line) {
    if (++steps_ > kMaxSteps) throw Error(fmt::format("line {}: the template runs too long", line));
  }
  void write(std::string_view text) {
    if (text.size() > kMaxTextBytes - out_.size()) throw Error("the text is longer than 64 MiB");
    out_ += text;
  }
  [[nodiscard]] Value variable(const std::string& name) const {
    for (size_t i = scopes_.size(); i-- > 0;) {
      const auto found = scopes_[i].find(name);
      if (found != scopes_[i].end()) return found->second;
    }
    return Undefined{name};
  }

  Flow execute(const Body& body) {
    for (const Statement& s : body) {
      step(s.line);
      const Flow flow = execute(s);
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  Flow execute(const Statement& s) {
    switch (s.kind) {
      case S::kText: write(s.name); return Flow::kNext;
      case S::kOutput: write(evaluate(*s.expressions[0]).str()); return Flow::kNext;
      case S::kIf: return if_(s);
      case S::kFor: for_(s); return Flow::kNext;
      case S::kSet: set(s); return Flow::kNext;
      case S::kSetBlock: set_block(s); return Flow::kNext;
      case S::kMacro: scopes_.back()[s.macro->name] = s.macro; return Flow::kNext;
      case S::kBlock: return execute(s.bodies[0]);
      case S::kBreak: return Flow::kBreak;
      case S::kContinue: return Flow::kContinue;
    }
    return Flow::kNext;
  }

  Flow if_(const Statement& s) {
    for (size_t i = 0; i < s.expressions.size(); ++i) {
      if (evaluate(*s.expressions[i]).truthy()) return execute(s.bodies[i]);
    }
    return s.bodies.size() > s.expressions.size() ? execute(s.bodies.back()) : Flow::kNext;
  }

  void bind(const std::vector<std::string>& targets, const Value& value, uint32_t line) {
    if (targets.size() == 1) {
      scopes_.back()[targets[0]] = value;
      return;
    }
    const List items = items_of(value);
    if (items.size() != targets.size()) {
      throw Error(
          fmt::format("line {}: {} values for {} names", line, items.size(), targets.size()));
    }
    for (size_t i = 0; i < items.size(); ++i) scopes_.back()[targets[i]] = items[i];
  }

  void for_(const Statement& s) {
    List items = located(s.line, [&] { return items_of(evaluate(*s.expressions[0])); });
    if (s.expressions[1]) {
      List kept;
      for (const Value& value : items) {
        step(s.line);
        scopes_.emplace_back();
        bind(s.targets, value, s.line);
        if (evaluate(*s.expressions[1]).truthy()) kept.push_back(value);
        scopes_.pop_back();
      }
      items = std::move(kept);
    }
    for (size_t i = 0; i < items.size(); ++i) {
      step(s.line);
      scopes_.emplace_back();
      bind(s.targets, items[i], s.line);
      scopes_.back()["loop"] = loop(items, i);
      const Flow flow = execute(s.bodies[0]);
      scopes_.pop_back();
      if (flow == Flow::kBreak) break;
    }
    if (items.empty() && s.bodies.size() > 1) (void)execute(s.bodies[1]);
  }

  static Value loop(const List& items, size_t i) {
    const int64_t index = int64_t(i), length = int64_t(items.size());
    return Dict{{"index0", index},
                {"index", index + 1},
                {"revindex0", length - index - 1},
                {"revindex", length - index},
                {"first", i == 0},
                {"last", index + 1 == length},
                {"length", length},
                {"previtem", i ? items[i - 1] : Value(Undefined{"previtem"})},
                {"nextitem", index + 1 < length ? items[i + 1] : Value(Undefined{"nextitem"})}};
  }

  void set(const Statement& s) {
    Value value = evaluate(*s.expressions[0]);
    if (s.attribute.empty()) return bind(s.targets, value, s.line);
    Dict* fields = variable(s.targets[0]).namespace_fields();
    if (!fields) {
      throw Error(fmt::format("line {}: '{}' is not a namespace", s.line, s.targets[0]));
    }
    if (value.holds_namespace()) {
      throw Error(fmt::format("line {}: a namespace cannot hold a namespace", s.line));
    }
    for (auto& field : *fields) {
      if (field.first == s.attribute) return void(field.second = std::move(value));
    }
    fields->emplace_back(s.attribute, std::move(value));
  }

  // The text that a body writes.
  std::string captured(const Body& body) {
    std::string outer = std::exchange(out_, {});
    (void)execute(body);
    return std::exchange(out_, std::move(outer));
  }

  void set_block(const Statement& s) {
    scopes_.emplace_back();
    scopes_.back()[""] = captured(s.bodies[0]);
    Value value = evaluate(*s.expressions[0]);
    scopes_.pop_back();
    scopes_.back()[s.targets[0]] = std::move(value);
  }

  // Adds the line to what goes wrong, unless it is known already.
  template <class F>
  auto located(uint32_t line, F f) -> decltype(f()) {
    try {
      return f();
    } catch (const Error& error) {
      if (std::string_view(error.what()).starts_with("line ")) throw;
      throw Error(fmt::format("line {}: {}", line, error.what()));
    }
  }

  Value evaluate(const Expression& e) {
    step(e.line);
    Value value = located(e.line, [&] { return compute(e); });
    if (value.string() && value.string()->size() > kMaxTextBytes) {
      throw Error(fmt::format("line {}: a string is longer than 64 MiB", e.line));
    }
    return value;
  }

  Value compute(const Expression& e) {
    const auto child = [&](size_t i) { return evaluate(*e.children[i]); };
    switch (e.kind) {
      case E::kLiteral: return e.literal;
      case E::kName: return variable(e.name);
      case E::kList: return all(e, 0);
      case E::kTuple: return Value::tuple(all(e, 0));
      case E::kDict: return dict(e);
      case E::kAttribute: return attribute(child(0), e.name);
      case E::kItem: return item(child(0), child(1));
      case E::kSlice: {
        const auto bound = [&](size_t i) { return e.children[i] ? child(i) : Value(None{}); };
        return slice(child(0), bound(1), bound(2), bound(3));
      }
      case E::kCall: return call(e);
      case E::kFilter: return apply_filter(e.name, child(0), arguments(e));
      case E::kTest: return apply_test(e.name, child(0), arguments(e));
      case E::kUnary: return unary(e.name, child(0));
      case E::kBinary: {
        Value left = child(0);
        if (e.name == "and") return left.truthy() ? child(1) : left;
        if (e.name == "or") return left.truthy() ? left : child(1);
        return binary(e.name, left, child(1));
      }
      case E::kCompare: return compare(e);
      case E::kCondition:
        if (child(1).truthy()) return child(0);
        return e.children[2] ? child(2) : Value(Undefined{"the value of an if without else"});
    }
    return {};
  }

  List all(const Expression& e, size_t from) {
    List list;
    for (size_t i = from; i < e.children.size(); ++i) list.push_back(evaluate(*e.children[i]));
    return list;
  }

  Arguments arguments(const Expression& e) {
    Arguments args{all(e, 1), {}};
    for (const auto& [name, value] : e.named) args.named.emplace_back(name, evaluate(*value));
    return args;
  }

  Value dict(const Expression& e) {
    Dict dict;
    for (size_t i = 0; i < e.children.size(); i += 2) {
      const Value key = evaluate(*e.children[i]);
      if (!key.string()) throw Error("the keys of a dict must be strings");
      Value value = evaluate(*e.children[i + 1]);
      const auto known = std::find_if(dict.begin(), dict.end(), [&](const auto& field) {
        return field.first == *key.string();
      });
      if (known == dict.end()) {
        dict.emplace_back(*key.string(), std::move(value));
      } else {
        known->second = std::move(value);
      }
    }
    return dict;
  }

  static Value unary(const std::string& op, const Value& value) {
    if (op == "not") return !value.truthy();
    if (value.is<double>()) return op == "-" ? -value.to_double() : value.to_double();
    return arithmetic(op, int64_t{0}, value);
  }

  Value compare(const Expression& e) {
    Value left = evaluate(*e.children[0]);
    for (size_t i = 0; i < e.operators.size(); ++i) {
      Value right = evaluate(*e.children[i + 1]);
      if (!compared(e.operators[i], left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  Value call(const Expression& e) {
    const Expression& callee = *e.children[0];
    if (callee.kind == E::kAttribute) {
      const Value self = evaluate(*callee.children[0]);
      const Value member = self.is_undefined() ? Value() : attribute(self, callee.name);
      const Arguments args = arguments(e);
      bool found = false;
      Value result = call_method(self, callee.name, args, found);
      if (found) return result;
      if (const Macro* macro = member.macro()) return call_macro(*macro, args);
      throw Error(fmt::format("{} has no method '{}'", self.type(), callee.name));
    }
    if (callee.kind == E::kName) {
      const Value function = variable(callee.name);
      if (function.is_undefined() && is_global_function(callee.name)) {
        return call_global(callee.name, arguments(e));
      }
    }
    const Value function = evaluate(callee);
    if (const Macro* macro = function.macro()) return call_macro(*macro, arguments(e));
    if (function.is_undefined()) {
      throw Error(fmt::format("'{}' is undefined", function.undefined_name()));
    }
    throw Error(fmt::format("a value of type {} cannot be called", function.type()));
  }

  // A macro sees the template's own variables, not those of loops around its call.
  Value call_macro(const Macro& macro, const Arguments& args) {
    if (++calls_ > kMaxCalls) throw Error("macros call each other too deeply");
    if (args.positional.size() > macro.parameters.size()) {
      throw Error(fmt::format("macro '{}': at most {} arguments, got {}", macro.name,
                              macro.parameters.size(), args.positional.size()));
    }
    for (const auto& field : args.named) {
      if (std::find(macro.parameters.begin(), macro.parameters.end(), field.first) ==
          macro.parameters.end()) {
        throw Error(fmt::format("macro '{}': no argument is named '{}'", macro.name, field.first));
      }
    }
    std::vector<Scope> outer(std::make_move_iterator(scopes_.begin() + 1),
                             std::make_move_iterator(scopes_.end()));
    scopes_.resize(1);
    scopes_.emplace_back();
    const size_t required = macro.parameters.size() - macro.defaults.size();
    for (size_t i = 0; i < macro.parameters.size(); ++i) {
      const std::string& name = macro.parameters[i];
      const Value* given = args.get(i, name);
      Value value = given           ? *given
                    : i >= required ? evaluate(*macro.defaults[i - required])
                                    : Value(Undefined{name});
      scopes_.back()[name] = std::move(value);
    }
    std::string text = captured(macro.body);
    scopes_.resize(1);
    scopes_.insert(scopes_.end(), std::make_move_iterator(outer.begin()),
                   std::make_move_iterator(outer.end()));
    --calls_;
    return text;
  }

  std::vector<Scope> scopes_;
  std::string out_;
  uint64_t steps_ = 0;
  uint32_t calls_ = 0;
};

}  // namespace

std::string render(const Body& body, const Dict& variables) {
  return Evaluator(variables).run(body);
}

}  // namespace hadal::jinja
