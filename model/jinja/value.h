// Values of template expressions, with Python's meaning: what jinja2 computes with. Private to the
// chat template.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace hadal::jinja {

// Bounds that no honest template comes near: of nested lists and dicts, and of one string.
inline constexpr uint32_t kMaxDepth = 100;
inline constexpr size_t kMaxTextBytes = size_t{64} << 20;
inline constexpr int64_t kMaxItems = 1'000'000;  // of one list

// Why a template cannot be read or rendered. Does not leave the chat template.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Value;
struct Macro;
using List = std::vector<Value>;
// In order of insertion, as Python's dict; keys are strings.
using Dict = std::vector<std::pair<std::string, Value>>;

struct Undefined {
  std::string name;  // for messages
};
struct None {};
// A list that `==` and printing tell apart from a list.
struct Tuple {
  std::shared_ptr<List> items;
};
// namespace(...): the one value that a template can change.
struct Namespace {
  std::shared_ptr<Dict> fields;
};

class Value {
 public:
  Value() : data_(Undefined{}) {}
  Value(Undefined u) : data_(std::move(u)) {}      // NOLINT: implicit by design, as all below
  Value(None n) : data_(n) {}                      // NOLINT
  Value(bool b) : data_(b) {}                      // NOLINT
  Value(int64_t i) : data_(i) {}                   // NOLINT
  Value(double d) : data_(d) {}                    // NOLINT
  Value(std::string s) : data_(std::move(s)) {}    // NOLINT
  Value(const char* s) : data_(std::string(s)) {}  // NOLINT
  Value(List list);                                // NOLINT
  Value(Dict dict);                                // NOLINT
  Value(Namespace n) : data_(std::move(n)), holds_namespace_(true) {}  // NOLINT
  Value(std::shared_ptr<const Macro> m) : data_(std::move(m)) {}       // NOLINT
  [[nodiscard]] static Value tuple(List items);
  [[nodiscard]] static Value from_json(const nlohmann::ordered_json& json);

  template <class T>
  [[nodiscard]] bool is() const {
    return std::holds_alternative<T>(data_);
  }
  [[nodiscard]] bool is_undefined() const { return is<Undefined>(); }
  [[nodiscard]] bool is_string() const { return is<std::string>(); }
  [[nodiscard]] bool is_number() const { return is<int64_t>() || is<double>() || is<bool>(); }
  // nullptr where it is of another kind. list() also looks into tuples, dict() into namespaces.
  [[nodiscard]] const std::string* string() const { return std::get_if<std::string>(&data_); }
  [[nodiscard]] const List* list() const;
  [[nodiscard]] const Dict* dict() const;
  [[nodiscard]] Dict* namespace_fields() const;
  [[nodiscard]] const Macro* macro() const;
  [[nodiscard]] std::string_view undefined_name() const { return std::get<Undefined>(data_).name; }
  // A namespace that held one could hold itself.
  [[nodiscard]] bool holds_namespace() const { return holds_namespace_; }

  [[nodiscard]] bool truthy() const;
  // Python's type name.
  [[nodiscard]] std::string_view type() const;
  // As an integer or float; throws Error for what Python does not count as a number.
  [[nodiscard]] int64_t to_int() const;
  [[nodiscard]] double to_double() const;
  // str() and repr().
  [[nodiscard]] std::string str() const;
  [[nodiscard]] std::string repr() const;

 private:
  std::variant<Undefined, None, bool, int64_t, double, std::string, std::shared_ptr<List>,
               std::shared_ptr<Dict>, Tuple, Namespace, std::shared_ptr<const Macro>>
      data_;
  void contain(const Value& item);
  uint32_t depth_ = 0;  // of lists and dicts below
  bool holds_namespace_ = false;
};

// nullptr when the key is absent.
[[nodiscard]] const Value* find(const Dict& dict, std::string_view key);
[[nodiscard]] bool equal(const Value& a, const Value& b);
// a < b; throws Error where Python has no order.
[[nodiscard]] bool less(const Value& a, const Value& b);
// `item in container`.
[[nodiscard]] bool contains(const Value& container, const Value& item);
// The items that a loop over the value visits: a list's, a dict's keys, a string's characters.
[[nodiscard]] List items_of(const Value& value);
// len(value), in characters for strings.
[[nodiscard]] int64_t length_of(const Value& value);

// json.dumps(value, ensure_ascii=False): "a": 1, with spaces, or over lines with `indent` >= 0.
[[nodiscard]] std::string to_json(const Value& value, int indent = -1, bool sort_keys = false);

// A dict, and not one of namespace().
[[nodiscard]] inline bool is_mapping(const Value& value) {
  return value.dict() && !value.is<Namespace>();
}

}  // namespace hadal::jinja
