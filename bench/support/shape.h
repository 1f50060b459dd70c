// The sizes of one case as text: "m=128,n=4096,k=7168". Values are numbers or words
// ("weight=bf16"). The grammar of --shape and of the JSON's "shape".
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hadal::bench {

class Shape {
 public:
  struct Dimension {
    std::string name, value;
    template <std::integral T>
    Dimension(std::string_view n, T v) : name(n), value(std::to_string(v)) {}
    Dimension(std::string_view n, std::string_view v) : name(n), value(v) {}
    bool operator==(const Dimension&) const = default;
  };
  Shape() = default;
  Shape(std::initializer_list<Dimension> dimensions) : dimensions_(dimensions) {}

  // Empty when `text` breaks the grammar.
  [[nodiscard]] static std::optional<Shape> parse(std::string_view text);

  // The value of a dimension that this shape has; a number outside 32 bits ends the program.
  [[nodiscard]] uint32_t operator[](std::string_view name) const;
  [[nodiscard]] const std::string& word(std::string_view name) const;

  [[nodiscard]] size_t size() const { return dimensions_.size(); }
  [[nodiscard]] bool has(std::string_view name) const;
  // This shape with the values of `other`; empty when it has a dimension that this one lacks, or a
  // word in the place of a number.
  [[nodiscard]] std::optional<Shape> with(const Shape& other) const;

  [[nodiscard]] std::string to_string() const;
  bool operator==(const Shape&) const = default;

 private:
  std::vector<Dimension> dimensions_;
};

}  // namespace hadal::bench
