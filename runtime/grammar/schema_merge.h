// Schemas that hold together (allOf, keywords beside $ref or anyOf) as one schema.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "schema_value.h"

namespace hadal::runtime::grammar {

// Without effect on which documents a schema allows.
[[nodiscard]] bool is_annotation(std::string_view keyword);

// "json_schema: POINTER: TEXT".
[[nodiscard]] Status schema_error(Errc code, const std::string& pointer, std::string_view text);

class SchemaMerger {
 public:
  explicit SchemaMerger(const Value& root) : root_(root) {}

  // The value behind a $ref. Errors: kInvalidArgument, kUnsupported for other documents' schemas.
  [[nodiscard]] Result<const Value*> resolve(const Value& reference,
                                             const std::string& pointer) const;
  // The same documents without $ref, allOf and annotations at the top; a boolean stays one. Errors:
  // kUnsupported where two keywords cannot be merged and for schemas that need themselves to be
  // merged.
  [[nodiscard]] Result<Value> expand(const Value& schema, const std::string& pointer,
                                     size_t depth = 0) const;
  // Counts work that grows with what schemas refer to, not with their text. Errors: kUnsupported
  // where it is too much.
  [[nodiscard]] Status charge(size_t units, const std::string& pointer) const;

 private:
  static constexpr size_t kMaxWork = size_t{1} << 22;
  [[nodiscard]] Result<Value> merge(const Value& a, const Value& b,
                                    const std::string& pointer) const;
  [[nodiscard]] Status merge_keyword(Value& into, const std::string& key, const Value& value,
                                     const std::string& pointer) const;
  const Value& root_;
  mutable size_t work_ = 0;
};

// {"allOf": [a, b]}, or one of them where that is the same.
[[nodiscard]] Value both(const Value& a, const Value& b);

// True where a value is shown to satisfy at most one of two expanded schemas.
[[nodiscard]] bool exclude_each_other(const SchemaMerger& merger, const Value& a, const Value& b);

// The types that a schema allows, "number" standing for integers, too: all without "type".
[[nodiscard]] std::set<std::string> allowed_types(const Value& schema);

}  // namespace hadal::runtime::grammar
