// The text of one request as its tokens come: whole characters only, and nothing that could still
// turn out to be part of a stop string. Pure host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/model/tokenizer.h"
#include "hadal/status.h"

namespace hadal::runtime {

// Ok, or kInvalidArgument: every stop string must have a character and be UTF-8.
[[nodiscard]] Status check_stop_strings(const model::Tokenizer& tokenizer,
                                        const std::vector<std::string>& stops);

// Looks for stop strings in a text that comes in pieces. The match that ends first wins, and of
// those that end at the same byte the longest: the outcome does not depend on where pieces end.
class StopMatcher {
 public:
  // No string may be empty.
  explicit StopMatcher(std::vector<std::string> stops);

  // The text that may be shown now: it ends in front of the longest end of the text so far that a
  // stop string begins with. Once a stop string has appeared, the text in front of it was the last.
  [[nodiscard]] std::string push(std::string_view piece);
  // What is held back; nothing after a stop string.
  [[nodiscard]] std::string flush();
  // Index of the stop string that appeared.
  [[nodiscard]] std::optional<size_t> matched() const { return matched_; }

 private:
  struct Stop {
    std::string text;
    std::vector<size_t> border;  // of text[0, i]: its longest proper prefix that is its end, too
    size_t length = 0;           // of the longest prefix that the text so far ends with
    explicit Stop(std::string string);
    void advance(char next);
  };
  std::vector<Stop> stops_;
  std::string held_;
  std::optional<size_t> matched_;
};

// push() with a request's tokens gives pieces whose concatenation, flush() included, is
// Tokenizer::decode of all ids up to the first stop string. Not thread-safe; many streams may share
// a tokenizer.
class TextStream {
 public:
  // Errors: kInvalidArgument (check_stop_strings).
  [[nodiscard]] static Result<TextStream> create(const model::Tokenizer& tokenizer,
                                                 std::vector<std::string> stops,
                                                 bool skip_special = true);

  // Text that may be shown now, often empty. Errors: kInvalidArgument for an id outside the
  // tokenizer's vocabulary. After stopped() there is no more text.
  [[nodiscard]] Result<std::string> push(uint32_t id);
  // The rest, when no token follows; U+FFFD for a character that has not ended.
  [[nodiscard]] std::string flush();
  [[nodiscard]] bool stopped() const { return matcher_.matched().has_value(); }
  // Index of the stop string that appeared.
  [[nodiscard]] std::optional<size_t> stop() const { return matcher_.matched(); }

 private:
  TextStream(const model::Tokenizer& tokenizer, std::vector<std::string> stops, bool skip_special);
  model::StreamDecoder decoder_;
  StopMatcher matcher_;
};

}  // namespace hadal::runtime
