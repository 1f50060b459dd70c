// A recursive descent over the lexer's tokens, from statements down to atoms. Longer than other
// files: its functions call each other. What becomes of the tree is evaluator.cpp's.
#include "jinja/parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <initializer_list>

#include "jinja/builtins.h"
#include "jinja/lexer.h"

namespace hadal::jinja {
namespace {

using Kind = Token::Kind;
using E = Expression::Kind;
using S = Statement::Kind;

// Of nested expressions and blocks, and of an expression's tree (a chain of operators is as deep as
// it is long), so that no template overflows the stack.
constexpr uint32_t kMaxNesting = 64, kMaxTreeDepth = 500;

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)) {}

  Body run() {
    Body body = body_until({});
    if (peek().kind != Kind::kEnd) fail("the template should end here");
    return body;
  }

 private:
  [[noreturn]] void fail(std::string_view why) const {
    throw Error(fmt::format("line {}: {}", peek().line, why));
  }
  [[nodiscard]] const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  const Token& take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  [[nodiscard]] bool is_operator(std::string_view op) const {
    return peek().kind == Kind::kOperator && peek().text == op;
  }
  [[nodiscard]] bool is_name(std::string_view name, size_t ahead = 0) const {
    return peek(ahead).kind == Kind::kName && peek(ahead).text == name;
  }
  bool take_operator(std::string_view op) { return is_operator(op) && (take(), true); }
  bool take_name(std::string_view name) { return is_name(name) && (take(), true); }
  void expect_operator(std::string_view op) {
    if (!take_operator(op)) fail(fmt::format("'{}' expected", op));
  }
  void expect_name(std::string_view name) {
    if (!take_name(name)) fail(fmt::format("'{}' expected", name));
  }
  void expect_end_tag() {
    if (take().kind != Kind::kEndTag) --at_, fail("the tag should end here");
  }
  std::string take_any_name() {
    if (peek().kind != Kind::kName) fail("a name is expected");
    return take().text;
  }
  // Counts nesting while it lives.
  struct Nested {
    explicit Nested(Parser& p) : parser(p) {
      if (++parser.nesting_ > kMaxNesting) parser.fail("nested too deeply");
    }
    ~Nested() { --parser.nesting_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;
    Parser& parser;
  };

  [[nodiscard]] ExpressionPtr make(E kind, std::string name = "") const {
    auto e = std::make_unique<Expression>();
    e->kind = kind, e->line = peek().line, e->name = std::move(name);
    return e;
  }
  template <class... Children>
  [[nodiscard]] ExpressionPtr make_of(E kind, std::string name, Children... children) const {
    ExpressionPtr e = make(kind, std::move(name));
    (adopt(*e, std::move(children)), ...);
    return e;
  }
  ExpressionPtr& adopt(Expression& parent, ExpressionPtr child) const {
    if (child) parent.depth = std::max(parent.depth, child->depth + 1);
    if (parent.depth > kMaxTreeDepth) fail("an expression is too long");
    return parent.children.emplace_back(std::move(child));
  }

  // ---- statements ----

  // Stops in front of a block that begins with one of `ends`, or at the end of the text.
  Body body_until(std::initializer_list<std::string_view> ends) {
    const Nested nested(*this);
    Body body;
    while (true) {
      if (peek().kind == Kind::kEnd) return body;
      Statement s;
      s.line = peek().line;
      if (peek().kind == Kind::kText) {
        s.kind = S::kText, s.name = take().text;
      } else if (peek().kind == Kind::kOutput) {
        take();
        s.kind = S::kOutput;
        s.expressions.push_back(tuple());
        expect_end_tag();
      } else {
        const std::string& name = peek(1).text;
        if (std::find(ends.begin(), ends.end(), name) != ends.end()) return body;
        take();
        statement(s);
      }
      body.push_back(std::move(s));
    }
  }
  // The end of a body: takes {% name and leaves what follows.
  std::string take_end(std::string_view open) {
    if (peek().kind != Kind::kBlock) fail(fmt::format("the block '{}' does not end", open));
    take();
    return take_any_name();
  }

  void statement(Statement& s) {
    const std::string name = take_any_name();
    if (name == "if") return if_(s);
    if (name == "for") return for_(s);
    if (name == "set") return set(s);
    if (name == "macro") return macro(s);
    if (name == "break" || name == "continue") {
      if (loops_ == 0) fail(fmt::format("'{}' outside of a loop", name));
      s.kind = name == "break" ? S::kBreak : S::kContinue;
      return expect_end_tag();
    }
    // Marks what the assistant wrote, for training; says nothing about the text.
    if (name == "generation") {
      s.kind = S::kBlock;
      expect_end_tag();
      s.bodies.push_back(body_until({"endgeneration"}));
      take_end(name);
      return expect_end_tag();
    }
    --at_;
    fail(fmt::format("the tag '{}' is not implemented here", name));
  }

  void if_(Statement& s) {
    s.kind = S::kIf;
    while (true) {
      s.expressions.push_back(expression());
      expect_end_tag();
      s.bodies.push_back(body_until({"elif", "else", "endif"}));
      const std::string end = take_end("if");
      if (end == "elif") continue;
      expect_end_tag();
      if (end == "endif") return;
      break;
    }
    s.bodies.push_back(body_until({"endif"}));
    take_end("if");
    expect_end_tag();
  }

  void for_(Statement& s) {
    s.kind = S::kFor;
    s.targets = targets();
    expect_name("in");
    s.expressions.push_back(or_());
    s.expressions.push_back(take_name("if") ? expression() : nullptr);
    if (is_name("recursive")) fail("recursive loops are not implemented here");
    expect_end_tag();
    ++loops_;
    s.bodies.push_back(body_until({"else", "endfor"}));
    --loops_;
    if (take_end("for") == "else") {
      expect_end_tag();
      s.bodies.push_back(body_until({"endfor"}));
      take_end("for");
    }
    expect_end_tag();
  }

  std::vector<std::string> targets() {
    const bool bracket = take_operator("(");
    std::vector<std::string> names{take_any_name()};
    while (take_operator(",")) names.push_back(take_any_name());
    if (bracket) expect_operator(")");
    return names;
  }

  void set(Statement& s) {
    s.targets = targets();
    if (s.targets.size() == 1 && take_operator(".")) s.attribute = take_any_name();
    if (take_operator("=")) {
      s.kind = S::kSet;
      s.expressions.push_back(tuple());
      return expect_end_tag();
    }
    s.kind = S::kSetBlock;
    if (s.targets.size() != 1) fail("'=' expected");
    ExpressionPtr filtered = make(E::kName, "");
    if (is_operator("|")) filtered = filters(std::move(filtered));
    s.expressions.push_back(std::move(filtered));
    expect_end_tag();
    s.bodies.push_back(body_until({"endset"}));
    take_end("set");
    expect_end_tag();
  }

  void macro(Statement& s) {
    s.kind = S::kMacro;
    auto macro = std::make_shared<Macro>();
    macro->name = take_any_name();
    expect_operator("(");
    while (!take_operator(")")) {
      if (!macro->parameters.empty()) expect_operator(",");
      macro->parameters.push_back(take_any_name());
      if (take_operator("=")) {
        macro->defaults.push_back(expression());
      } else if (!macro->defaults.empty()) {
        fail("a parameter without a default follows one with a default");
      }
    }
    expect_end_tag();
    const uint32_t loops = std::exchange(loops_, 0);
    macro->body = body_until({"endmacro"});
    loops_ = loops;
    take_end("macro");
    if (peek().kind == Kind::kName) take();
    expect_end_tag();
    s.macro = std::move(macro);
  }

  // ---- expressions, from the loosest operator to the tightest ----

  // One expression, or several with commas between: a tuple.
  ExpressionPtr tuple() {
    ExpressionPtr first = expression();
    if (!is_operator(",")) return first;
    ExpressionPtr all = make_of(E::kTuple, "", std::move(first));
    while (take_operator(",")) {
      if (peek().kind == Kind::kEndTag || is_operator(")")) break;
      adopt(*all, expression());
    }
    return all;
  }

  ExpressionPtr expression() {
    const Nested nested(*this);
    ExpressionPtr e = or_();
    while (take_name("if")) {
      ExpressionPtr condition = or_();
      ExpressionPtr otherwise = take_name("else") ? expression() : nullptr;
      e = make_of(E::kCondition, "", std::move(e), std::move(condition), std::move(otherwise));
    }
    return e;
  }

  ExpressionPtr or_() {
    ExpressionPtr e = and_();
    while (take_name("or")) e = make_of(E::kBinary, "or", std::move(e), and_());
    return e;
  }

  ExpressionPtr and_() {
    ExpressionPtr e = not_();
    while (take_name("and")) e = make_of(E::kBinary, "and", std::move(e), not_());
    return e;
  }

  ExpressionPtr not_() {
    const Nested nested(*this);
    if (take_name("not")) return make_of(E::kUnary, "not", not_());
    return compare();
  }

  [[nodiscard]] std::string comparison() {
    for (std::string_view op : {"==", "!=", "<", "<=", ">", ">="}) {
      if (take_operator(op)) return std::string(op);
    }
    if (take_name("in")) return "in";
    if (is_name("not") && is_name("in", 1)) return take(), take(), "not in";
    return "";
  }

  ExpressionPtr compare() {
    ExpressionPtr e = sum();
    std::string op = comparison();
    if (op.empty()) return e;
    e = make_of(E::kCompare, "", std::move(e));
    for (; !op.empty(); op = comparison()) {
      e->operators.push_back(op);
      adopt(*e, sum());
    }
    return e;
  }

  ExpressionPtr left_to_right(std::initializer_list<std::string_view> operators,
                              ExpressionPtr (Parser::*operand)()) {
    ExpressionPtr e = (this->*operand)();
    while (true) {
      const auto op = std::find_if(operators.begin(), operators.end(),
                                   [&](std::string_view o) { return is_operator(o); });
      if (op == operators.end()) return e;
      take();
      e = make_of(E::kBinary, std::string(*op), std::move(e), (this->*operand)());
    }
  }
  ExpressionPtr sum() { return left_to_right({"+", "-"}, &Parser::concatenation); }
  ExpressionPtr concatenation() { return left_to_right({"~"}, &Parser::product); }
  ExpressionPtr product() { return left_to_right({"*", "/", "//", "%"}, &Parser::power); }
  ExpressionPtr power() { return left_to_right({"**"}, &Parser::signed_); }

  // Filters and tests bind looser than a sign: -1|abs is (-1)|abs.
  ExpressionPtr signed_() { return filters(unfiltered()); }

  ExpressionPtr unfiltered() {
    const Nested nested(*this);
    if (take_operator("-")) return make_of(E::kUnary, "-", unfiltered());
    if (take_operator("+")) return make_of(E::kUnary, "+", unfiltered());
    return postfix(primary());
  }

  ExpressionPtr filters(ExpressionPtr e) {
    while (true) {
      if (take_operator("|")) {
        std::string name = take_any_name();
        if (!is_filter(name)) fail(fmt::format("the filter '{}' is not implemented here", name));
        e = make_of(E::kFilter, std::move(name), std::move(e));
        if (take_operator("(")) arguments(*e);
      } else if (take_name("is")) {
        const bool negated = take_name("not");
        e = test(std::move(e));
        if (negated) e = make_of(E::kUnary, "not", std::move(e));
      } else {
        return e;
      }
    }
  }

  ExpressionPtr test(ExpressionPtr e) {
    std::string name = take_any_name();
    if (!is_test(name)) fail(fmt::format("the test '{}' is not implemented here", name));
    e = make_of(E::kTest, std::move(name), std::move(e));
    if (take_operator("(")) {
      arguments(*e);
    } else if (peek().kind == Kind::kString || peek().kind == Kind::kInteger ||
               peek().kind == Kind::kFloat || is_operator("[") || is_operator("{") ||
               (peek().kind == Kind::kName && !is_keyword(peek().text))) {
      adopt(*e, postfix(primary()));
    }
    return e;
  }
  [[nodiscard]] static bool is_keyword(std::string_view name) {
    for (std::string_view k : {"else", "or", "and", "is", "if", "not", "in", "recursive"}) {
      if (name == k) return true;
    }
    return false;
  }

  // Behind an opening bracket.
  void arguments(Expression& call) {
    for (bool first = true; !take_operator(")"); first = false) {
      if (!first) {
        expect_operator(",");
        if (take_operator(")")) return;
      }
      const bool named =
          peek().kind == Kind::kName && peek(1).kind == Kind::kOperator && peek(1).text == "=";
      if (named) {
        std::string name = take().text;
        take();
        ExpressionPtr value = std::move(adopt(call, expression()));
        call.children.pop_back();
        call.named.emplace_back(std::move(name), std::move(value));
      } else if (!call.named.empty()) {
        fail("a positional argument follows a named one");
      } else {
        adopt(call, expression());
      }
    }
  }

  ExpressionPtr postfix(ExpressionPtr e) {
    while (true) {
      if (take_operator(".")) {
        if (peek().kind == Kind::kInteger) {
          e = make_of(E::kItem, "", std::move(e), literal());
        } else {
          std::string name = take_any_name();
          e = make_of(E::kAttribute, std::move(name), std::move(e));
        }
      } else if (take_operator("[")) {
        e = subscript(std::move(e));
      } else if (take_operator("(")) {
        e = make_of(E::kCall, "", std::move(e));
        arguments(*e);
      } else {
        return e;
      }
    }
  }

  ExpressionPtr subscript(ExpressionPtr e) {
    ExpressionPtr bounds[3];
    bool slice = false;
    for (int i = 0; i < 3; ++i) {
      if (!is_operator(":") && !is_operator("]")) bounds[i] = tuple();
      if (!take_operator(":")) break;
      slice = true;
    }
    expect_operator("]");
    if (slice) {
      return make_of(E::kSlice, "", std::move(e), std::move(bounds[0]), std::move(bounds[1]),
                     std::move(bounds[2]));
    }
    if (!bounds[0]) fail("an index is expected");
    return make_of(E::kItem, "", std::move(e), std::move(bounds[0]));
  }

  ExpressionPtr literal() {
    ExpressionPtr e = make(E::kLiteral);
    const Token token = take();
    const char *begin = token.text.data(), *end = begin + token.text.size();
    if (token.kind == Kind::kInteger) {
      int64_t value = 0;
      if (std::from_chars(begin, end, value).ec != std::errc()) fail("an integer is too large");
      e->literal = value;
    } else {
      double value = 0;
      (void)std::from_chars(begin, end, value);
      e->literal = value;
    }
    return e;
  }

  ExpressionPtr primary() {
    const Token& token = peek();
    switch (token.kind) {
      case Kind::kInteger:
      case Kind::kFloat: return literal();
      case Kind::kString: {
        ExpressionPtr e = make(E::kLiteral);
        std::string text;
        while (peek().kind == Kind::kString) text += take().text;
        e->literal = std::move(text);
        return e;
      }
      case Kind::kName: return name();
      default: break;
    }
    if (take_operator("(")) {
      if (take_operator(")")) return make(E::kTuple);
      ExpressionPtr e = tuple();
      expect_operator(")");
      return e;
    }
    if (take_operator("[")) return list();
    if (take_operator("{")) return dict();
    fail("an expression is expected");
  }

  ExpressionPtr name() {
    const std::string text = take().text;
    const auto constant = [&](Value value) {
      ExpressionPtr e = make(E::kLiteral);
      e->literal = std::move(value);
      return e;
    };
    if (text == "true" || text == "True") return constant(true);
    if (text == "false" || text == "False") return constant(false);
    if (text == "none" || text == "None") return constant(None{});
    return make(E::kName, text);
  }

  ExpressionPtr list() {
    ExpressionPtr e = make(E::kList);
    while (!take_operator("]")) {
      if (!e->children.empty()) {
        expect_operator(",");
        if (take_operator("]")) break;
      }
      adopt(*e, expression());
    }
    return e;
  }

  ExpressionPtr dict() {
    ExpressionPtr e = make(E::kDict);
    while (!take_operator("}")) {
      if (!e->children.empty()) {
        expect_operator(",");
        if (take_operator("}")) break;
      }
      adopt(*e, expression());
      expect_operator(":");
      adopt(*e, expression());
    }
    return e;
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  uint32_t nesting_ = 0, loops_ = 0;
};

}  // namespace

Body parse(std::string_view source) {
  return Parser(source).run();
}

}  // namespace hadal::jinja
