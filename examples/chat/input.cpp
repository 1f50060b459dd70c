#include "chat/input.h"

#include <utility>

namespace hadal::chat {
namespace {

constexpr std::string_view kQuotes = "\"\"\"";

// Where a block's text begins in the line that opens it: behind the quotes, which stand at its
// begin or behind a command.
std::optional<size_t> block_begin(std::string_view line) {
  const size_t quotes = line.find(kQuotes);
  if (quotes == line.npos) return {};
  const std::string_view before = line.substr(0, quotes);
  const bool behind_command =
      before.starts_with('/') && !before.starts_with("//") && before.find(' ') == before.size() - 1;
  if (before.empty() || behind_command) return quotes + kQuotes.size();
  return {};
}

}  // namespace

std::optional<Input> InputAssembler::push(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (open_ == Open::kNone) {
    if (const auto begin = block_begin(line)) {
      open_ = Open::kBlock;
      input_.text = line.substr(0, *begin - kQuotes.size());
      input_.literal = input_.text.empty();
      line.remove_prefix(*begin);
      first_line_ = true;
      if (line.empty()) return {};  // the text begins in the next line
    }
  } else if (!first_line_) {
    input_.text += '\n';
  }
  first_line_ = false;
  if (open_ == Open::kBlock) {
    const bool ends = line.ends_with(kQuotes);
    if (ends) line.remove_suffix(kQuotes.size());
    input_.text += line;
    if (!ends) return {};
    if (line.empty() && input_.text.ends_with('\n')) input_.text.pop_back();  // quotes on their own
    return complete();
  }
  open_ = line.ends_with('\\') ? Open::kLine : Open::kNone;
  if (open_ == Open::kLine) line.remove_suffix(1);
  input_.text += line;
  if (open_ == Open::kLine) return {};
  return complete();
}

std::optional<Input> InputAssembler::complete() {
  open_ = Open::kNone;
  Input input = std::exchange(input_, {});
  if (input.text.find_first_not_of(" \t\n\v\f\r") == std::string::npos) return {};
  return input;
}

std::optional<Input> InputAssembler::finish() {
  if (open_ != Open::kLine) return {};
  return complete();
}

void InputAssembler::clear() {
  open_ = Open::kNone;
  input_ = {};
  first_line_ = false;
}

}  // namespace hadal::chat
