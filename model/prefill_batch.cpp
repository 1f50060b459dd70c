#include "hadal/model/prefill_batch.h"

#include <algorithm>
#include <cassert>

namespace hadal::model {
namespace {

constexpr uint32_t kBlock = 64;  // keys are folded in blocks; a chunk begins at one

}  // namespace

PrefillExpansion PrefillExpansion::plan(std::span<const PrefillSequence> sequences, uint32_t rows) {
  assert(rows > 0 && rows % kBlock == 0);
  PrefillExpansion plan;
  uint32_t q_row = 0;
  for (uint32_t i = 0; i < sequences.size(); ++i) {
    const PrefillSequence& s = sequences[i];
    const uint32_t kv_len = s.begin + s.tokens;
    for (uint32_t begin = 0; begin < kv_len;) {
      const uint32_t room = plan.windows.empty() ? 0 : rows - plan.windows.back().kv_rows;
      uint32_t count = std::min(kv_len - begin, room);
      if (begin + count < kv_len) count = count / kBlock * kBlock;
      if (count == 0) {
        plan.windows.push_back({uint32_t(plan.pieces.size()), 0, 0, 0});
        continue;
      }
      Window& window = plan.windows.back();
      const uint32_t flags = (begin == 0 ? MlaPrefillSequence::kFirst : 0) |
                             (begin + count == kv_len ? MlaPrefillSequence::kLast : 0);
      plan.pieces.push_back({q_row, s.tokens, s.begin, window.kv_rows, count, begin, flags});
      plan.sequences.push_back(i);
      ++window.pieces, window.kv_rows += count;
      window.max_q_len = std::max(window.max_q_len, s.tokens);
      begin += count;
    }
    q_row += s.tokens;
  }
  return plan;
}

}  // namespace hadal::model
