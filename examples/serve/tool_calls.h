// Tells calls of tools from the text around them in what a model writes, which comes in pieces. Two
// forms, those in which the models' chat templates write calls into a prompt:
//
//   V3.1 <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>ARGUMENTS<｜tool▁call▁end｜>
//            ... <｜tool▁calls▁end｜>
//   V3, R1   the same with a line end between calls, and in each
//            function<｜tool▁sep｜>NAME\n```json\nARGUMENTS\n```
//
// Arguments are passed on as they are written, JSON or not. What begins like a call and is none (no
// name, another mark) is text, marks included, and so is what stands between calls and is not
// white space. A call that the end cuts has the arguments that came; one that is cut before its
// name has ended is text. Pure: what comes out does not depend on where the pieces end.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hadal::serve {

inline constexpr std::string_view kCallsBegin = "<｜tool▁calls▁begin｜>";
inline constexpr std::string_view kCallsEnd = "<｜tool▁calls▁end｜>";
inline constexpr std::string_view kCallBegin = "<｜tool▁call▁begin｜>";
inline constexpr std::string_view kCallEnd = "<｜tool▁call▁end｜>";
inline constexpr std::string_view kCallSeparator = "<｜tool▁sep｜>";
inline constexpr std::array kCallMarks = {kCallsBegin, kCallsEnd, kCallBegin, kCallEnd,
                                          kCallSeparator};

// A mark of calls that is a special token, which has no text.
struct SilentMark {
  uint32_t id = 0;
  std::string_view text;
};

// Whether a call of a tool with this name can be told from a text: of 1 to 256 bytes without
// control characters and "<".
[[nodiscard]] bool is_call_name(std::string_view name);

// What came of a call.
struct ToolCall {
  uint32_t index = 0;   // in the answer
  bool begins = false;  // and then has its name
  std::string name, arguments;
};

struct TextAndCalls {
  std::string text;
  std::vector<ToolCall> calls;  // each once, in order
  void add_arguments(uint32_t index, std::string_view arguments);
};

class ToolCallSplitter {
 public:
  // Adds to `out` what is known now. Held back is what could still be a mark or a name.
  void push(std::string_view piece, TextAndCalls& out);
  // What is held back, when no text follows.
  void flush(TextAndCalls& out);
  // Calls that have begun.
  [[nodiscard]] uint32_t calls() const { return calls_; }

 private:
  enum class State {
    kText,
    kSection,    // behind kCallsBegin or a call: only white space comes before the next mark
    kStray,      // text between calls
    kName,       // behind kCallBegin
    kFence,      // behind "function" and kCallSeparator
    kArguments,  // behind the name
  };
  // One step each on what is held; false: more has to come.
  [[nodiscard]] bool step(TextAndCalls& out);
  [[nodiscard]] bool in_text(TextAndCalls& out);
  [[nodiscard]] bool in_section(TextAndCalls& out);
  [[nodiscard]] bool in_name(TextAndCalls& out);
  [[nodiscard]] bool in_fence(TextAndCalls& out);
  [[nodiscard]] bool in_arguments(TextAndCalls& out);

  // Moves the first `size` held bytes to maybe_.
  void keep(size_t size);
  // It is no call: maybe_ is text, and what is held is looked at anew.
  bool give_up(TextAndCalls& out);
  bool begin_call(std::string_view name, size_t size, bool fenced, TextAndCalls& out);
  bool go(State state);

  State state_ = State::kText;
  std::string held_;   // has not been looked at to its end
  std::string maybe_;  // in front of it: a call's beginning, or text
  bool fenced_ = false;
  uint32_t calls_ = 0, section_calls_ = 0;
};

}  // namespace hadal::serve
