// Puts answers on an output: reasoning apart from the answer, and on a terminal nothing that could
// steer it. Pure but for the function that writes.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace hadal::chat {

// Control characters but \n and \t in a form that can be seen: ^[ for escape, \u009B for the
// 8-bit one. The text must not end within a character.
[[nodiscard]] std::string visible_controls(std::string_view text);

struct PrinterOptions {
  bool terminal = false;  // control characters are made visible
  bool colour = false;    // reasoning is dim; else it stands between lines <think> and </think>
};

class Printer {
 public:
  // False: nothing can be written any more.
  using Write = std::function<bool(std::string_view)>;
  Printer(PrinterOptions options, Write write);

  // Of one answer, in this order: pieces of its reasoning, then of itself, then end(), which begins
  // a new line. What is empty leaves no trace.
  void reasoning(std::string_view piece);
  void answer(std::string_view piece);
  void end();
  [[nodiscard]] bool failed() const { return failed_; }

 private:
  enum class Part { kNone, kReasoning, kBetween, kAnswer };
  void put(std::string_view text);      // of the model
  void put_own(std::string_view text);  // of ours
  void close_reasoning();

  PrinterOptions options_;
  Write write_;
  Part part_ = Part::kNone;
  bool at_line_begin_ = true, failed_ = false;
};

}  // namespace hadal::chat
