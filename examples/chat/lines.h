// Lines from a person or a pipe.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

namespace hadal::chat {

enum class LineEnd { kLine, kEnd, kInterrupted, kFailed };

class LineReader {
 public:
  virtual ~LineReader() = default;
  // A line without its end. kInterrupted: Ctrl-C; `line` is then what had been typed, as far as
  // that is known.
  [[nodiscard]] virtual LineEnd read(const std::string& prompt, std::string& line) = 0;
};

// Standard input as it is; prompts go to standard error when `prompts`. A SIGINT that comes while
// it waits gives kInterrupted; `interrupted` tells and forgets that one came.
[[nodiscard]] std::unique_ptr<LineReader> plain_lines(bool prompts, bool (*interrupted)());

// With editing and history (libedit); the latter stays in `history_file` where that can be written,
// readable for its owner only. Null where hadal-chat is built without libedit or the terminal
// cannot be edited on.
[[nodiscard]] std::unique_ptr<LineReader> edited_lines(const std::filesystem::path& history_file);

// $XDG_STATE_HOME/hadal/chat_history, or in ~/.local/state; empty when neither is known.
[[nodiscard]] std::filesystem::path default_history_file();

}  // namespace hadal::chat
