// See byte_level.h.
#include "byte_level.h"

#include <array>

#include "hadal/model/tokenizer.h"

namespace hadal::model::detail {
namespace {

constexpr bool stands_for_itself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<char32_t, 256> to_char{};
  std::array<int16_t, 0x144> to_byte{};  // 68 bytes do not stand for themselves: U+0100 .. U+0143
};

constexpr Alphabet make_alphabet() {
  Alphabet a;
  for (auto& b : a.to_byte) b = -1;
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t c = stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++;
    a.to_char[static_cast<size_t>(byte)] = c;
    a.to_byte[c] = static_cast<int16_t>(byte);
  }
  return a;
}

constexpr Alphabet kAlphabet = make_alphabet();

// The first character's length as its lead byte promises (0: not a lead byte), and the range of the
// second byte, which rules out overlong forms, surrogates and values above U+10FFFF.
struct Lead {
  size_t length;
  uint8_t second_min, second_max;
};

Lead classify(uint8_t lead) {
  if (lead < 0x80) return {1, 0, 0};
  if (lead < 0xC2) return {0, 0, 0};
  if (lead < 0xE0) return {2, 0x80, 0xBF};
  if (lead < 0xF0) {
    return {3, static_cast<uint8_t>(lead == 0xE0 ? 0xA0 : 0x80),
            static_cast<uint8_t>(lead == 0xED ? 0x9F : 0xBF)};
  }
  if (lead < 0xF5) {
    return {4, static_cast<uint8_t>(lead == 0xF0 ? 0x90 : 0x80),
            static_cast<uint8_t>(lead == 0xF4 ? 0x8F : 0xBF)};
  }
  return {0, 0, 0};
}

// Length of the longest prefix of `text` that starts a character, and whether it is a whole one.
struct Prefix {
  size_t length;
  bool whole;
};

Prefix scan_char(std::string_view text) {
  const Lead lead = classify(static_cast<uint8_t>(text[0]));
  if (lead.length == 0) return {1, false};
  for (size_t i = 1; i < lead.length; ++i) {
    const uint8_t min = i == 1 ? lead.second_min : 0x80;
    const uint8_t max = i == 1 ? lead.second_max : 0xBF;
    if (i == text.size() || static_cast<uint8_t>(text[i]) < min ||
        static_cast<uint8_t>(text[i]) > max) {
      return {i, false};
    }
  }
  return {lead.length, true};
}

}  // namespace

char32_t byte_to_char(uint8_t byte) {
  return kAlphabet.to_char[byte];
}

std::optional<std::string> token_to_bytes(std::string_view token) {
  std::string bytes;
  bytes.reserve(token.size());
  for (size_t pos = 0; pos < token.size();) {
    const char32_t c = utf8_code_point(token.substr(pos));
    if (c >= kAlphabet.to_byte.size() || kAlphabet.to_byte[c] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kAlphabet.to_byte[c]));
    pos += utf8_char_length(token.substr(pos));
  }
  return bytes;
}

size_t utf8_char_length(std::string_view text) {
  if (text.empty()) return 0;
  const Prefix prefix = scan_char(text);
  return prefix.whole ? prefix.length : 0;
}

char32_t utf8_code_point(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<uint8_t>(text[i])); };
  switch (classify(static_cast<uint8_t>(text[0])).length) {
    case 1: return byte(0);
    case 2: return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3: return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 |
             (byte(3) & 0x3F);
  }
}

void append_utf8(char32_t c, std::string& out) {
  if (c < 0x80) {
    out.push_back(static_cast<char>(c));
    return;
  }
  if (c < 0x800) {
    out.push_back(static_cast<char>(0xC0 | c >> 6));
  } else {
    if (c < 0x10000) {
      out.push_back(static_cast<char>(0xE0 | c >> 12));
    } else {
      out.push_back(static_cast<char>(0xF0 | c >> 18));
      out.push_back(static_cast<char>(0x80 | (c >> 12 & 0x3F)));
    }
    out.push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
  }
  out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
}

size_t append_lossy(std::string_view bytes, bool keep_tail, std::string& out) {
  size_t pos = 0;
  while (pos < bytes.size()) {
    const Prefix prefix = scan_char(bytes.substr(pos));
    if (prefix.whole) {
      out.append(bytes.substr(pos, prefix.length));
    } else {
      // A proper prefix of a character that runs into the end may still be finished by later bytes.
      const bool at_end = pos + prefix.length == bytes.size() &&
                          classify(static_cast<uint8_t>(bytes[pos])).length > prefix.length;
      if (keep_tail && at_end) break;
      out.append("\xEF\xBF\xBD");
    }
    pos += prefix.length;
  }
  return pos;
}

}  // namespace hadal::model::detail

namespace hadal::model {

size_t find_invalid_utf8(std::string_view text) {
  for (size_t pos = 0; pos < text.size();) {
    if (static_cast<uint8_t>(text[pos]) < 0x80) {
      ++pos;
      continue;
    }
    const size_t length = detail::utf8_char_length(text.substr(pos));
    if (length == 0) return pos;
    pos += length;
  }
  return std::string_view::npos;
}

}  // namespace hadal::model
