// How models write calls of tools, for the tests of those who read them.
#pragma once

#include <string>
#include <vector>

namespace hadal::serve {

// The marks once more, so that a wrong one in the source cannot agree with itself.
inline const std::string kBegin = "<｜tool▁calls▁begin｜>", kEnd = "<｜tool▁calls▁end｜>";
inline const std::string kCall = "<｜tool▁call▁begin｜>", kDone = "<｜tool▁call▁end｜>";
inline const std::string kSep = "<｜tool▁sep｜>";

inline std::string v31(const std::string& name, const std::string& arguments) {
  return kCall + name + kSep + arguments + kDone;
}

inline std::string v3(const std::string& name, const std::string& arguments) {
  return kCall + "function" + kSep + name + "\n```json\n" + arguments + "\n```" + kDone;
}

// As the engine gives text: whole characters.
inline std::vector<std::string> characters_of(const std::string& text) {
  std::vector<std::string> characters;
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) characters.emplace_back();
    characters.back() += c;
  }
  return characters;
}

}  // namespace hadal::serve
