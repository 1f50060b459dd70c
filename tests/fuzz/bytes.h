// What every fuzz target is made of: it takes bytes, and says whether the library took them, and
// what it did wrong. A fuzzer may feed it; the tests feed it kept seeds and random bytes, so that
// both run the same code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

namespace hadal::fuzz {

struct Outcome {
  bool accepted = false;
  std::string fault{};  // empty: nothing is wrong
};

using Bytes = std::span<const uint8_t>;

// Bytes as a source of 32-bit numbers; zeros when they have been used up.
class ByteSource {
 public:
  explicit ByteSource(Bytes bytes) : bytes_(bytes) {}
  uint32_t operator()() {
    uint32_t word = 0;
    const size_t count = bytes_.size() < 4 ? bytes_.size() : 4;
    if (count > 0) std::memcpy(&word, bytes_.data(), count);
    bytes_ = bytes_.subspan(count);
    return word;
  }
  // Those that are left, as a text or numbers of another size.
  [[nodiscard]] Bytes rest() const { return bytes_; }

 private:
  Bytes bytes_;
};

}  // namespace hadal::fuzz
