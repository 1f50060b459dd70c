#include "support/shape.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

namespace hadal::bench {
namespace {

std::optional<uint32_t> number(std::string_view text) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

}  // namespace

std::optional<Shape> Shape::parse(std::string_view text) {
  Shape shape;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view part = text.substr(0, comma);
    const size_t equals = part.find('=');
    if (equals == 0 || equals == part.npos || equals + 1 == part.size()) return {};
    if (shape.has(part.substr(0, equals))) return {};
    shape.dimensions_.emplace_back(part.substr(0, equals), part.substr(equals + 1));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  if (shape.dimensions_.empty()) return {};
  return shape;
}

bool Shape::has(std::string_view name) const {
  return std::any_of(dimensions_.begin(), dimensions_.end(),
                     [&](const Dimension& d) { return d.name == name; });
}

const std::string& Shape::word(std::string_view name) const {
  for (const Dimension& d : dimensions_) {
    if (d.name == name) return d.value;
  }
  fmt::print(stderr, "bench: shape {} lacks {}\n", to_string(), name);
  std::exit(2);
}

uint32_t Shape::operator[](std::string_view name) const {
  const std::string& text = word(name);
  const std::optional<uint32_t> value = number(text);
  if (value) return *value;
  fmt::print(stderr, "bench: {} must be a number below 2^32, got {}\n", name, text);
  std::exit(2);
}

std::optional<Shape> Shape::with(const Shape& other) const {
  Shape result = *this;
  for (const Dimension& d : other.dimensions_) {
    const auto mine = std::find_if(result.dimensions_.begin(), result.dimensions_.end(),
                                   [&](const Dimension& e) { return e.name == d.name; });
    if (mine == result.dimensions_.end()) return {};
    if (number(mine->value) && !number(d.value)) return {};
    mine->value = d.value;
  }
  return result;
}

std::string Shape::to_string() const {
  std::string text;
  for (const Dimension& d : dimensions_) {
    text += fmt::format("{}{}={}", text.empty() ? "" : ",", d.name, d.value);
  }
  return text;
}

}  // namespace hadal::bench
