// What hadal-chat has instead of edited_lines.cpp where it is built without libedit.
#include "chat/lines.h"

namespace hadal::chat {

std::unique_ptr<LineReader> edited_lines(const std::filesystem::path& /*history_file*/) {
  return nullptr;
}

}  // namespace hadal::chat
