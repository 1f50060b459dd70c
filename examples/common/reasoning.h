// Tells a model's reasoning from its answer in text that comes in pieces. Reasoning stands between
// "<think>", which a prompt may end in, and the first "</think>"; the marks belong to neither.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "hadal/model/tokenizer.h"

namespace hadal::examples {

// Whether a text begins with reasoning.
enum class Reasoning {
  kNever,     // all of it is the answer
  kPossible,  // if its first text that is not blank is "<think>"
  kOpen,      // the prompt has opened it
};

// Of what follows a prompt that a chat template made: kOpen if that ends in "<think>".
[[nodiscard]] Reasoning reasoning_behind(std::string_view prompt);

enum class ReasoningMark { kNone, kBegin, kEnd };

// Which tokens are marks without text: special ones, which decoders leave out. Where the marks are
// other tokens the text has them.
class SpecialMarks {
 public:
  SpecialMarks() = default;
  explicit SpecialMarks(const model::Tokenizer& tokenizer);
  [[nodiscard]] ReasoningMark of(uint32_t id) const;

 private:
  std::optional<uint32_t> begin_, end_;
};

struct SplitText {
  std::string reasoning, answer;
};

class ReasoningSplitter {
 public:
  explicit ReasoningSplitter(Reasoning reasoning)
      : state_(reasoning), has_begun_(reasoning == Reasoning::kOpen) {}

  // What may be shown now, of `piece` with a mark without text `behind` it. Held back is what may
  // still become a mark: the end of a reasoning, and the beginning of a text that may begin with
  // one, blanks included. Those, and one newline behind them, go with the mark.
  [[nodiscard]] SplitText push(std::string_view piece, ReasoningMark behind = ReasoningMark::kNone);
  // What is held back, when no text follows.
  [[nodiscard]] SplitText flush();
  // Whether what follows is reasoning.
  [[nodiscard]] bool reasoning() const { return state_ == Reasoning::kOpen; }
  // Whether there was a beginning of reasoning, in the prompt or in the text.
  [[nodiscard]] bool has_begun() const { return has_begun_; }

 private:
  void begin(size_t mark_end);
  void look_for_begin();
  void look_for_end(SplitText& split);

  Reasoning state_;
  bool has_begun_;
  bool skips_newline_ = false;  // right behind the mark
  std::string held_;
};

}  // namespace hadal::examples
