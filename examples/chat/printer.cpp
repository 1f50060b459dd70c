#include "chat/printer.h"

#include <fmt/format.h>

#include <cstdint>
#include <utility>

namespace hadal::chat {
namespace {

constexpr std::string_view kDim = "\033[2m", kPlain = "\033[0m";

// Models put empty lines between the parts; how far apart they stand is ours to say.
std::string_view without_leading_lines(std::string_view text) {
  while (!text.empty() && (text.front() == '\n' || text.front() == '\r')) text.remove_prefix(1);
  return text;
}

}  // namespace

std::string visible_controls(std::string_view text) {
  std::string seen;
  seen.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = uint8_t(text[i]);
    const bool second = byte == 0xC2 && i + 1 < text.size();  // of U+0080 to U+00BF
    if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7F) {
      seen += '^';
      seen += char(byte ^ 0x40);
    } else if (second && uint8_t(text[i + 1]) < 0xA0) {
      seen += fmt::format("\\u{:04X}", uint8_t(text[++i]));
    } else {
      seen += text[i];
    }
  }
  return seen;
}

Printer::Printer(PrinterOptions options, Write write)
    : options_(options), write_(std::move(write)) {}

void Printer::put_own(std::string_view text) {
  if (text.empty() || failed_) return;
  failed_ = !write_(text);
}

void Printer::put(std::string_view text) {
  if (text.empty()) return;
  put_own(options_.terminal ? visible_controls(text) : std::string(text));
  at_line_begin_ = text.back() == '\n';
}

void Printer::reasoning(std::string_view piece) {
  if (part_ == Part::kNone) {
    piece = without_leading_lines(piece);
    if (piece.empty()) return;
    put_own(options_.colour ? kDim : "<think>\n");
    part_ = Part::kReasoning;
  }
  put(piece);
}

void Printer::close_reasoning() {
  if (!at_line_begin_) put_own("\n");
  put_own(options_.colour ? std::string(kPlain) + "\n" : "</think>\n");
  at_line_begin_ = true;
  part_ = Part::kBetween;
}

void Printer::answer(std::string_view piece) {
  if (piece.empty()) return;
  if (part_ == Part::kReasoning) close_reasoning();
  if (part_ == Part::kBetween) piece = without_leading_lines(piece);
  if (piece.empty()) return;
  put(piece);
  part_ = Part::kAnswer;
}

void Printer::end() {
  if (part_ == Part::kReasoning) close_reasoning();
  if (part_ != Part::kBetween && (!at_line_begin_ || part_ == Part::kNone)) put_own("\n");
  part_ = Part::kNone;
  at_line_begin_ = true;
}

}  // namespace hadal::chat
