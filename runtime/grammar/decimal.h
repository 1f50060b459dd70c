// Numbers of a schema, exactly.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace hadal::runtime::grammar {

__extension__ using SignedWide = __int128;

inline constexpr uint32_t kFractionDigits = 15;
inline constexpr SignedWide kUnitsPerOne = SignedWide{1'000'000'000'000'000};

// A JSON number in units of 10^-15; beyond +-10^20 that. None where it has more digits behind the
// point.
[[nodiscard]] std::optional<SignedWide> parse_decimal(std::string_view text);

}  // namespace hadal::runtime::grammar
