// Tells a model's reasoning from its answer in text that comes in pieces: the reasoning ends at the
// first "</think>", which belongs to neither.
#pragma once

#include <string>
#include <string_view>

namespace hadal::examples {

// Whether a rendered template leaves the answer to begin with reasoning: it ends in "<think>".
[[nodiscard]] bool ends_in_open_thought(std::string_view text);

struct SplitText {
  std::string reasoning, answer;
};

class ReasoningSplitter {
 public:
  // `reasons`: the text begins with reasoning; else all of it is the answer.
  explicit ReasoningSplitter(bool reasons) : reasoning_(reasons) {}

  // What may be shown now: the end of a reasoning that the mark could begin in is held back.
  [[nodiscard]] SplitText push(std::string_view piece);
  // What is held back, when no text follows.
  [[nodiscard]] SplitText flush();
  // Also where the mark is a special token, which has no text.
  void end_reasoning() { reasoning_ = false; }
  [[nodiscard]] bool reasoning() const { return reasoning_; }

 private:
  bool reasoning_;
  std::string held_;
};

}  // namespace hadal::examples
