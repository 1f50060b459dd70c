#include "hadal/runtime/text_stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace hadal::runtime {

Status check_stop_strings(const model::Tokenizer& tokenizer,
                          const std::vector<std::string>& stops) {
  for (size_t i = 0; i < stops.size(); ++i) {
    if (stops[i].empty()) {
      return {
          Errc::kInvalidArgument,
          fmt::format("stop: strings must have at least one character, got none at index {}", i)};
    }
    // Text is UTF-8: what is not would never appear.
    if (const Status status = tokenizer.encode(stops[i], false).status(); !status.ok()) {
      return {status.code(), fmt::format("stop: string {}: {}", i, status.message())};
    }
  }
  return {};
}

StopMatcher::Stop::Stop(std::string string) : text(std::move(string)), border(text.size(), 0) {
  for (size_t i = 1; i < text.size(); ++i) {
    size_t shorter = border[i - 1];
    while (shorter > 0 && text[shorter] != text[i]) shorter = border[shorter - 1];
    border[i] = shorter + (text[shorter] == text[i]);
  }
}

// Knuth, Morris and Pratt: on a mismatch the next shorter prefix that the text ends with is tried.
void StopMatcher::Stop::advance(char next) {
  while (length > 0 && text[length] != next) length = border[length - 1];
  length += text[length] == next;
}

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (std::string& stop : stops) stops_.emplace_back(std::move(stop));
}

std::string StopMatcher::push(std::string_view piece) {
  if (matched_) return {};
  size_t open = 0;
  for (const char next : piece) {
    held_ += next;
    open = 0;
    for (size_t i = 0; i < stops_.size(); ++i) {
      Stop& stop = stops_[i];
      stop.advance(next);
      open = std::max(open, stop.length);
      if (stop.length == stop.text.size() &&
          (!matched_ || stop.text.size() > stops_[*matched_].text.size())) {
        matched_ = i;
      }
    }
    if (matched_) {
      held_.resize(held_.size() - stops_[*matched_].text.size());
      return std::exchange(held_, {});
    }
  }
  if (piece.empty()) return {};
  std::string shown = held_.substr(0, held_.size() - open);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopMatcher::flush() {
  for (Stop& stop : stops_) stop.length = 0;
  return std::exchange(held_, {});
}

TextStream::TextStream(const model::Tokenizer& tokenizer, std::vector<std::string> stops,
                       bool skip_special)
    : decoder_(tokenizer, skip_special), matcher_(std::move(stops)) {}

Result<TextStream> TextStream::create(const model::Tokenizer& tokenizer,
                                      std::vector<std::string> stops, bool skip_special) {
  HADAL_TRY(check_stop_strings(tokenizer, stops));
  return TextStream(tokenizer, std::move(stops), skip_special);
}

Result<std::string> TextStream::push(uint32_t id) {
  HADAL_ASSIGN(const std::string text, decoder_.push(id));
  return matcher_.push(text);
}

std::string TextStream::flush() {
  std::string text = matcher_.push(decoder_.flush());
  return text + matcher_.flush();
}

}  // namespace hadal::runtime
