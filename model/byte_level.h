// The byte-level alphabet of GPT-2 (one printable character per byte value, so that a vocabulary
// file is text), and UTF-8 checking and repair. Private to the tokenizer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hadal::model::detail {

// Character that stands for `byte` in vocabulary files: itself for ! .. ~, 0xA1 .. 0xAC and
// 0xAE .. 0xFF, else U+0100 + n for the n-th of the others.
[[nodiscard]] char32_t byte_to_char(uint8_t byte);

// Bytes that the characters of `token` stand for; none when one is outside the alphabet.
[[nodiscard]] std::optional<std::string> token_to_bytes(std::string_view token);

// Length of the first character, 1 to 4; 0 when `text` is empty or does not start with a whole one
// (RFC 3629: shortest form, no surrogates, at most U+10FFFF).
[[nodiscard]] size_t utf8_char_length(std::string_view text);

// Code point of the first character, which must be whole.
[[nodiscard]] char32_t utf8_code_point(std::string_view text);

void append_utf8(char32_t c, std::string& out);

// Appends `bytes` to `out`, each maximal ill-formed subsequence replaced by one U+FFFD (the
// practice of the Unicode standard, chapter 3.9, and of Rust's String::from_utf8_lossy). With
// `keep_tail`, stops before an unfinished character at the end. Returns the number of bytes
// consumed.
size_t append_lossy(std::string_view bytes, bool keep_tail, std::string& out);

}  // namespace hadal::model::detail
