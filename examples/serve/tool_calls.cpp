#include "serve/tool_calls.h"

#include <algorithm>
#include <span>
#include <utility>

namespace hadal::serve {
namespace {

constexpr size_t npos = std::string_view::npos;
constexpr std::string_view kFenceBegin = "```json\n", kFenceEnd = "\n```";
// What ends text, text between calls, arguments, and arguments behind a fence.
constexpr std::array kEndText = {kCallsBegin};
constexpr std::array kEndStray = {kCallBegin, kCallsEnd};
constexpr std::array kEndArguments = {kCallEnd, kCallsEnd};
constexpr std::array kEndFenced = {kCallEnd, kCallsEnd,
                                   std::string_view("\n```<｜tool▁call▁end｜>"),
                                   std::string_view("\n```<｜tool▁calls▁end｜>")};
// No name is longer, and no white space between calls: what is held back has a bound.
constexpr size_t kMostHeld = 256;

// The first mark in a text.
struct Found {
  size_t at = npos;
  std::string_view mark;
};

Found find_first(std::string_view text, std::span<const std::string_view> marks) {
  Found first;
  for (const std::string_view mark : marks) {
    const size_t at = text.find(mark);
    if (at < first.at) first = {at, mark};
  }
  return first;
}

// The size of the longest end of a text that one of the marks begins with.
size_t open_end(std::string_view text, std::span<const std::string_view> marks) {
  size_t longest = 0;
  for (const std::string_view mark : marks) {
    size_t size = std::min(text.size(), mark.size() - 1);
    while (!text.ends_with(mark.substr(0, size))) --size;
    longest = std::max(longest, size);
  }
  return longest;
}

// Where a name ends: at its first control character or "<", or npos.
size_t end_of_name(std::string_view text) {
  const auto ends = [](char c) { return c == '<' || (c >= 0 && c < ' ') || c == '\x7f'; };
  const auto end = std::find_if(text.begin(), text.end(), ends);
  return end == text.end() ? npos : size_t(end - text.begin());
}

// Whether `text` has come far enough to tell that it begins with `mark`, or that it does not.
enum class Match { kYes, kNo, kOpen };
Match match(std::string_view text, std::string_view mark) {
  if (text.starts_with(mark)) return Match::kYes;
  return mark.starts_with(text) ? Match::kOpen : Match::kNo;
}

}  // namespace

bool is_call_name(std::string_view name) {
  return !name.empty() && name.size() <= kMostHeld && end_of_name(name) == npos;
}

void TextAndCalls::add_arguments(uint32_t index, std::string_view arguments) {
  if (arguments.empty()) return;
  if (calls.empty() || calls.back().index != index) calls.push_back({index, false, {}, {}});
  calls.back().arguments += arguments;
}

void ToolCallSplitter::push(std::string_view piece, TextAndCalls& out) {
  held_ += piece;
  while (!held_.empty() && step(out)) {
  }
}

void ToolCallSplitter::flush(TextAndCalls& out) {
  const std::string held = std::exchange(held_, {});
  const std::string maybe = std::exchange(maybe_, {});
  switch (std::exchange(state_, State::kText)) {
    case State::kArguments:
      // The mark is missing, not the fence.
      if (!fenced_ || !held.starts_with(kFenceEnd)) out.add_arguments(calls_ - 1, held);
      return;
    case State::kSection:
      if (section_calls_ > 0 && held.find_first_not_of(" \t\r\n") == npos) return;
      [[fallthrough]];
    default: out.text += maybe + held;
  }
}

bool ToolCallSplitter::step(TextAndCalls& out) {
  switch (state_) {
    case State::kText:
    case State::kStray: return in_text(out);
    case State::kSection: return in_section(out);
    case State::kName: return in_name(out);
    case State::kFence: return in_fence(out);
    default: return in_arguments(out);
  }
}

bool ToolCallSplitter::in_text(TextAndCalls& out) {
  const bool stray = state_ == State::kStray;
  const std::span<const std::string_view> marks =
      stray ? std::span<const std::string_view>(kEndStray) : kEndText;
  const Found found = find_first(held_, marks);
  if (found.at == npos) {
    const size_t sure = held_.size() - open_end(held_, marks);
    out.text += held_.substr(0, sure);
    held_.erase(0, sure);
    return false;
  }
  out.text += held_.substr(0, found.at);
  held_.erase(0, found.at);
  if (stray) return go(State::kSection);
  section_calls_ = 0;
  keep(found.mark.size());
  return go(State::kSection);
}

bool ToolCallSplitter::in_section(TextAndCalls& out) {
  const size_t space = std::min(held_.find_first_not_of(" \t\r\n"), held_.size());
  const std::string_view rest = std::string_view(held_).substr(space);
  const Match begin = match(rest, kCallBegin), end = match(rest, kCallsEnd);
  if (space <= kMostHeld && begin == Match::kYes) {
    keep(space + kCallBegin.size());
    return go(State::kName);
  }
  if (section_calls_ == 0) {
    return space <= kMostHeld && begin == Match::kOpen ? false : give_up(out);
  }
  if (space <= kMostHeld && end == Match::kYes) {
    held_.erase(0, space + kCallsEnd.size());
    return go(State::kText);
  }
  if (space <= kMostHeld && (begin == Match::kOpen || end == Match::kOpen)) return false;
  return go(State::kStray);
}

bool ToolCallSplitter::in_name(TextAndCalls& out) {
  const size_t end = end_of_name(held_);
  if (std::min(end, held_.size()) > kMostHeld || end == 0) return give_up(out);
  if (end == npos) return false;
  const Match separator = match(std::string_view(held_).substr(end), kCallSeparator);
  if (separator == Match::kOpen) return false;
  if (separator == Match::kNo) return give_up(out);
  const std::string name = held_.substr(0, end);
  if (name != "function") return begin_call(name, end + kCallSeparator.size(), false, out);
  keep(end + kCallSeparator.size());
  return go(State::kFence);
}

bool ToolCallSplitter::in_fence(TextAndCalls& out) {
  if (held_[0] == '{') return begin_call("function", 0, false, out);  // V3.1, a tool of that name
  const size_t end = end_of_name(held_);
  if (std::min(end, held_.size()) > kMostHeld || end == 0) return give_up(out);
  if (end == npos) return false;
  const Match fence = match(std::string_view(held_).substr(end + 1), kFenceBegin);
  if (held_[end] != '\n' || fence == Match::kNo) return give_up(out);
  if (fence == Match::kOpen) return false;
  return begin_call(held_.substr(0, end), end + 1 + kFenceBegin.size(), true, out);
}

bool ToolCallSplitter::in_arguments(TextAndCalls& out) {
  const Found found = find_first(held_, kEndArguments);
  if (found.at != npos) {
    std::string_view arguments = std::string_view(held_).substr(0, found.at);
    if (fenced_ && arguments.ends_with(kFenceEnd)) arguments.remove_suffix(kFenceEnd.size());
    out.add_arguments(calls_ - 1, arguments);
    held_.erase(0, found.at + found.mark.size());
    return go(found.mark == kCallEnd ? State::kSection : State::kText);
  }
  const size_t sure =
      held_.size() - (fenced_ ? open_end(held_, kEndFenced) : open_end(held_, kEndArguments));
  out.add_arguments(calls_ - 1, std::string_view(held_).substr(0, sure));
  held_.erase(0, sure);
  return false;
}

void ToolCallSplitter::keep(size_t size) {
  maybe_ += held_.substr(0, size);
  held_.erase(0, size);
}

bool ToolCallSplitter::give_up(TextAndCalls& out) {
  out.text += std::exchange(maybe_, {});
  return go(section_calls_ > 0 ? State::kStray : State::kText);
}

bool ToolCallSplitter::begin_call(std::string_view name, size_t size, bool fenced,
                                  TextAndCalls& out) {
  out.calls.push_back({calls_++, true, std::string(name), {}});
  ++section_calls_;
  fenced_ = fenced;
  maybe_.clear();
  held_.erase(0, size);
  return go(State::kArguments);
}

bool ToolCallSplitter::go(State state) {
  state_ = state;
  return true;
}

}  // namespace hadal::serve
