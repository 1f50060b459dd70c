// The tree of a template. Private.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "jinja/value.h"

namespace hadal::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Expression {
  enum class Kind {
    kLiteral,    // literal
    kName,       // name
    kList,       // children
    kTuple,      // children
    kDict,       // children: key, value, key, value ...
    kAttribute,  // children[0].name
    kItem,       // children[0][children[1]]
    kSlice,      // children[0][children[1]:children[2]:children[3]], each of 1 to 3 may be null
    kCall,       // children[0](children[1..], named)
    kFilter,     // children[0] | name(children[1..], named)
    kTest,       // children[0] is name(children[1..], named)
    kUnary,      // name: "-", "+", "not"
    kBinary,     // name: an arithmetic operator, "~", "and", "or"
    kCompare,    // children[0] operators[0] children[1] operators[1] children[2] ...
    kCondition,  // children[0] if children[1] else children[2], which may be null
  };
  Kind kind = Kind::kLiteral;
  uint32_t line = 0;
  uint32_t depth = 1;  // of the tree below
  std::string name;
  Value literal;
  std::vector<ExpressionPtr> children;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  std::vector<std::string> operators;
};

struct Statement;
using Body = std::vector<Statement>;

struct Statement {
  enum class Kind {
    kText,      // name: the text
    kOutput,    // expressions[0]
    kIf,        // expressions[i] guards bodies[i]; one body more: else
    kFor,       // targets, expressions[0]: what is visited, [1]: condition or null; bodies[1]: else
    kSet,       // targets = expressions[0]; an attribute of a namespace: `attribute`
    kSetBlock,  // targets[0] = text of bodies[0] (through filters: expressions[0] over the name "")
    kMacro,     // macro
    kBlock,     // bodies[0]
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kText;
  uint32_t line = 0;
  std::string name;
  std::string attribute;
  std::vector<std::string> targets;
  std::vector<ExpressionPtr> expressions;
  std::vector<Body> bodies;
  std::shared_ptr<const Macro> macro;
};

struct Macro {
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExpressionPtr> defaults;  // of the last ones
  Body body;
};

}  // namespace hadal::jinja
