// What a user typed as a command or a message. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "chat/input.h"

namespace hadal::chat {

enum class CommandKind {
  kMessage,  // no command: text for the model
  kUnknown,  // begins like one
  kHelp,
  kQuit,
  kReset,
  kUndo,
  kRegenerate,
  kSystem,
  kThink,
  kSet,
  kStats,
  kSave,
  kLoad,
};

struct Command {
  CommandKind kind = CommandKind::kMessage;
  std::string argument;  // without white space around it; the text of a message, an unknown's word
};

// "//text" is the message "/text"; a literal input is always a message.
[[nodiscard]] Command parse_command(const Input& input);
// What /help says.
[[nodiscard]] std::string help_text();
// Whole commands that begin with `prefix`, for completion.
[[nodiscard]] std::vector<std::string> complete_command(std::string_view prefix);

}  // namespace hadal::chat
