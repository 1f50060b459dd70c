#include "chat/command.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace hadal::chat {
namespace {

struct Entry {
  std::string_view word;
  CommandKind kind;
  std::string_view argument, help;  // no help: another word for the entry above
};

constexpr std::array kEntries = {
    Entry{"help", CommandKind::kHelp, "", "this text"},
    Entry{"?", CommandKind::kHelp, "", ""},
    Entry{"regenerate", CommandKind::kRegenerate, "", "answer the last question again"},
    Entry{"retry", CommandKind::kRegenerate, "", ""},
    Entry{"undo", CommandKind::kUndo, "", "take the last question and its answer back"},
    Entry{"reset", CommandKind::kReset, "", "begin a new conversation; the system message stays"},
    Entry{"clear", CommandKind::kReset, "", ""},
    Entry{"system", CommandKind::kSystem, "[TEXT]",
          "set the system message, \"\" for none; alone: show it"},
    Entry{"think", CommandKind::kThink, "[on|off]", "let the model reason before it answers"},
    Entry{"set", CommandKind::kSet, "[NAME VALUE]",
          "change how tokens are drawn; alone: show the settings"},
    Entry{"stats", CommandKind::kStats, "[on|off]",
          "figures of the last answer and of all; on, off: the line behind each answer"},
    Entry{"save", CommandKind::kSave, "FILE",
          "write the conversation, in the form that hadal-serve takes"},
    Entry{"load", CommandKind::kLoad, "FILE", "go on with a conversation from such a file"},
    Entry{"quit", CommandKind::kQuit, "", "leave (also Ctrl-D)"},
    Entry{"exit", CommandKind::kQuit, "", ""},
    Entry{"bye", CommandKind::kQuit, "", ""},
};

std::string trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\v\f\r";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin));
}

}  // namespace

Command parse_command(const Input& input) {
  const std::string_view text = input.text;
  if (input.literal || !text.starts_with('/')) return {CommandKind::kMessage, input.text};
  if (text.starts_with("//")) return {CommandKind::kMessage, input.text.substr(1)};
  const size_t end = std::min(text.find_first_of(" \t\n"), text.size());
  const std::string_view word = text.substr(1, end - 1);
  const auto entry = std::find_if(kEntries.begin(), kEntries.end(),
                                  [&](const Entry& e) { return e.word == word; });
  if (entry == kEntries.end()) return {CommandKind::kUnknown, std::string(text.substr(0, end))};
  return {entry->kind, trimmed(text.substr(end))};
}

std::string help_text() {
  std::string text = "Commands:\n";
  for (const Entry& entry : kEntries) {
    if (entry.help.empty()) continue;
    text += fmt::format("  {:<18}  {}\n", fmt::format("/{} {}", entry.word, entry.argument),
                        entry.help);
  }
  text +=
      "Input:\n"
      "  A line that ends in a backslash goes on in the next one. \"\"\" begins a block of lines, "
      "\"\"\"\n"
      "  at a line's end ends it. A text that begins with / is written with another one before "
      "it.\n"
      "Keys:\n"
      "  Ctrl-C stops an answer (what was said stays), clears the line, and leaves when it is "
      "pressed\n"
      "  again; Ctrl-D leaves; arrows and Ctrl-R go through earlier lines; Tab completes "
      "commands.\n";
  return text;
}

std::vector<std::string> complete_command(std::string_view prefix) {
  std::vector<std::string> found;
  if (!prefix.starts_with('/')) return found;
  for (const Entry& entry : kEntries) {
    if (entry.word.starts_with(prefix.substr(1))) found.push_back(fmt::format("/{}", entry.word));
  }
  return found;
}

}  // namespace hadal::chat
