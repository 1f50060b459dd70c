// Byte-pair encoding of one word: which token ids its bytes become. Private to the tokenizer.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace hadal::model::detail {

class Bpe {
 public:
  static constexpr uint32_t kNoToken = UINT32_MAX;

  // Pairs of token ids that may be merged; `id` is the merged token, the lowest `rank` goes first.
  struct Merge {
    uint32_t rank = kNoToken;
    uint32_t id = kNoToken;
  };

  Bpe() = default;
  explicit Bpe(size_t merge_count);
  void set_byte_token(uint8_t byte, uint32_t id) { byte_tokens_[byte] = id; }
  void add_merge(uint32_t left, uint32_t right,
                 Merge merge);  // a later one replaces an earlier one

  // Appends the ids of `word`: again and again the adjacent pair of lowest rank, leftmost among
  // equals, is merged. A byte without a token disappears before the first merge (what the
  // tokenizers library does without an unknown token). O(n log n).
  void encode(std::string_view word, std::vector<uint32_t>& ids) const;

 private:
  // Open addressing at a load of at most one half; an empty slot has left == kNoToken.
  struct Slot {
    uint32_t left = kNoToken;
    uint32_t right = 0;
    Merge merge;
  };
  struct Symbol;

  [[nodiscard]] size_t slot_of(uint32_t left, uint32_t right) const;
  [[nodiscard]] Merge find(uint32_t left, uint32_t right) const {
    return slots_[slot_of(left, right)].merge;
  }
  void merge_short(uint32_t* symbols, size_t count, std::vector<uint32_t>& ids) const;
  void merge_long(const std::vector<uint32_t>& symbols, std::vector<uint32_t>& ids) const;

  std::array<uint32_t, 256> byte_tokens_{};
  std::vector<Slot> slots_;
  uint32_t slot_mask_ = 0;
};

}  // namespace hadal::model::detail
