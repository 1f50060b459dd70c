#include "common/reasoning.h"

#include <algorithm>
#include <array>
#include <utility>

namespace hadal::examples {
namespace {

constexpr std::string_view kBegin = "<think>", kEnd = "</think>", kBlanks = " \t\n\v\f\r";

std::optional<uint32_t> without_text(const model::Tokenizer& tokenizer, std::string_view name) {
  const std::optional<uint32_t> id = tokenizer.token_to_id(name);
  if (!id) return {};
  const Result<std::string> text = tokenizer.decode(std::array{*id});
  return text.ok() && text->empty() ? id : std::nullopt;
}

}  // namespace

Reasoning reasoning_behind(std::string_view prompt) {
  while (!prompt.empty() && (prompt.back() == '\n' || prompt.back() == ' '))
    prompt.remove_suffix(1);
  return prompt.ends_with(kBegin) ? Reasoning::kOpen : Reasoning::kPossible;
}

SpecialMarks::SpecialMarks(const model::Tokenizer& tokenizer)
    : begin_(without_text(tokenizer, kBegin)), end_(without_text(tokenizer, kEnd)) {}

ReasoningMark SpecialMarks::of(uint32_t id) const {
  if (id == begin_) return ReasoningMark::kBegin;
  return id == end_ ? ReasoningMark::kEnd : ReasoningMark::kNone;
}

// R1's template has the mark and a newline where the model is not left to write them.
void ReasoningSplitter::begin(size_t mark_end) {
  held_.erase(0, mark_end);
  state_ = Reasoning::kOpen;
  has_begun_ = skips_newline_ = true;
}

void ReasoningSplitter::look_for_begin() {
  const size_t first = std::min(held_.find_first_not_of(kBlanks), held_.size());
  const std::string_view text = std::string_view(held_).substr(first);
  if (text.starts_with(kBegin)) return begin(first + kBegin.size());
  if (!kBegin.starts_with(text)) state_ = Reasoning::kNever;
}

void ReasoningSplitter::look_for_end(SplitText& split) {
  if (skips_newline_ && !held_.empty()) {
    if (held_.front() == '\n') held_.erase(0, 1);
    skips_newline_ = false;
  }
  if (const size_t mark = held_.find(kEnd); mark != held_.npos) {
    split.reasoning = held_.substr(0, mark);
    held_.erase(0, mark + kEnd.size());
    state_ = Reasoning::kNever;
    return;
  }
  size_t keep = std::min(held_.size(), kEnd.size() - 1);
  while (!held_.ends_with(kEnd.substr(0, keep))) --keep;
  split.reasoning = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
}

SplitText ReasoningSplitter::push(std::string_view piece, ReasoningMark behind) {
  SplitText split;
  held_ += piece;
  if (state_ == Reasoning::kPossible) look_for_begin();
  if (state_ == Reasoning::kOpen) look_for_end(split);
  if (behind == ReasoningMark::kEnd && state_ == Reasoning::kOpen) {
    split.reasoning += std::exchange(held_, {});
    state_ = Reasoning::kNever;
  } else if (behind == ReasoningMark::kBegin && state_ == Reasoning::kPossible) {
    if (held_.find_first_not_of(kBlanks) == held_.npos) {
      begin(held_.size());
    } else {
      state_ = Reasoning::kNever;  // "<thi"
    }
  }
  if (state_ == Reasoning::kNever) split.answer = std::exchange(held_, {});
  return split;
}

SplitText ReasoningSplitter::flush() {
  SplitText split;
  (reasoning() ? split.reasoning : split.answer).swap(held_);
  return split;
}

}  // namespace hadal::examples
