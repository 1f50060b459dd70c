#include "decimal.h"

#include <algorithm>
#include <string>

namespace hadal::runtime::grammar {

std::optional<SignedWide> parse_decimal(std::string_view text) {
  const bool negative = text.starts_with('-');
  std::string digits;
  int64_t exponent = 0;  // of the last digit
  bool behind_point = false;
  size_t at = negative;
  for (; at < text.size() && text[at] != 'e' && text[at] != 'E'; ++at) {
    if (text[at] == '.') {
      behind_point = true;
    } else {
      digits += text[at];
      exponent -= behind_point;
    }
  }
  if (at < text.size()) {
    ++at;
    const bool down = text[at] == '-';
    if (down || text[at] == '+') ++at;
    int64_t value = 0;
    for (; at < text.size(); ++at)
      value = std::min<int64_t>(value * 10 + (text[at] - '0'), 1 << 30);
    exponent += down ? -value : value;
  }
  digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size()));
  while (!digits.empty() && digits.back() == '0') digits.pop_back(), ++exponent;
  if (digits.empty()) return 0;
  constexpr int64_t kMostDigits = 20;
  SignedWide value = 0;
  if (int64_t(digits.size()) + exponent > kMostDigits) {
    value = kUnitsPerOne * 10'000'000'000 * 10'000'000'000;
  } else if (exponent < -int64_t{kFractionDigits}) {
    return std::nullopt;
  } else {
    for (const char d : digits) value = value * 10 + (d - '0');
    for (int64_t i = -int64_t{kFractionDigits}; i < exponent; ++i) value *= 10;
  }
  return negative ? -value : value;
}

}  // namespace hadal::runtime::grammar
