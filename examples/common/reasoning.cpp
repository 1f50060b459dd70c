#include "common/reasoning.h"

#include <algorithm>

namespace hadal::examples {
namespace {

constexpr std::string_view kMark = "</think>";

}  // namespace

bool ends_in_open_thought(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  return text.ends_with("<think>");
}

SplitText ReasoningSplitter::push(std::string_view piece) {
  SplitText split;
  if (!reasoning_) {
    split = flush();  // of reasoning that a token ended
    split.answer = piece;
    return split;
  }
  held_ += piece;
  if (const size_t mark = held_.find(kMark); mark != held_.npos) {
    split.reasoning = held_.substr(0, mark);
    split.answer = held_.substr(mark + kMark.size());
    held_.clear();
    reasoning_ = false;
    return split;
  }
  size_t keep = std::min(held_.size(), kMark.size() - 1);
  while (!held_.ends_with(kMark.substr(0, keep))) --keep;
  split.reasoning = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return split;
}

SplitText ReasoningSplitter::flush() {
  SplitText split;
  split.reasoning.swap(held_);  // only reasoning is ever held back
  return split;
}

}  // namespace hadal::examples
