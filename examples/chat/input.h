// Lines put together to inputs: a line that ends in a backslash goes on in the next one, and """
// begins a block that ends behind the next """. Pure.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace hadal::chat {

struct Input {
  std::string text;
  bool literal = false;  // a block: never a command
};

class InputAssembler {
 public:
  // The input that this line (without its end) completes, if it does. Ones of white space only are
  // nothing. `/command """` begins a block, too, whose text is the command's.
  [[nodiscard]] std::optional<Input> push(std::string_view line);
  // Whether an input has begun that the next line continues.
  [[nodiscard]] bool pending() const { return open_ != Open::kNone; }
  [[nodiscard]] bool in_block() const { return open_ == Open::kBlock; }
  // No line follows: what a last backslash left. A block without an end is nothing (in_block()).
  [[nodiscard]] std::optional<Input> finish();
  void clear();

 private:
  enum class Open { kNone, kLine, kBlock };
  [[nodiscard]] std::optional<Input> complete();
  Open open_ = Open::kNone;
  Input input_;
  bool first_line_ = false;  // the next line is the first of a block
};

}  // namespace hadal::chat
