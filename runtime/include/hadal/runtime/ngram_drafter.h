// Drafts by looking up how the sequence went on where its last tokens stood before (prompt lookup).
// Pure host; good where text repeats itself: code, quotations, summaries.
//
// Of the earlier places of the last two tokens the one is taken that agrees with the sequence's end
// over the most tokens (up to kLongest), the latest of those. The places of a pair of tokens form a
// chain, as in LZ77 encoders, of which the latest kMostPlaces are looked at: a look-up costs at
// most kMostPlaces * kLongest comparisons, an added token one hash entry and 4 bytes.
//
// Source: "Prompt Lookup Decoding" (Saxena, 2023); hash chains as in RFC 1951, section 4.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace hadal::runtime {

class NgramDrafter {
 public:
  static constexpr uint32_t kShortest = 2, kLongest = 4, kMostPlaces = 64;

  // Up to `depth` guesses of what follows `ids`, which must begin with the ids of the last call;
  // empty where the last kShortest tokens stood nowhere before.
  [[nodiscard]] std::vector<uint32_t> draft(std::span<const uint32_t> ids, uint32_t depth);

 private:
  // Where a pair's second token stands, as index + 1; 0: nowhere (before).
  std::unordered_map<uint64_t, uint32_t> latest_;  // of each pair of tokens
  std::vector<uint32_t> before_;                   // of each token: the same pair's place before
};

}  // namespace hadal::runtime
