// Conversations with the templates of tests/chat_templates, and their marks.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>

#include "chat/conversation.h"
#include "support/safetensors_writer.h"

namespace hadal::chat {

inline constexpr const char* kUser = "<｜User｜>";
inline constexpr const char* kAssistant = "<｜Assistant｜>";
inline constexpr const char* kEnd = "<｜end▁of▁sentence｜>";  // as the templates write it

// Without a name: one without a template.
inline Conversation conversation(const std::string& name) {
  if (name.empty()) return Conversation(std::nullopt);
  const std::string source =
      hadal::testing::read_file(HADAL_SOURCE_DIR "/tests/chat_templates/" + name + ".jinja");
  Result<model::ChatTemplate> chat = model::ChatTemplate::parse(source, name, "<b>", kEnd);
  EXPECT_TRUE(chat.ok()) << chat.status().message();
  return Conversation(std::move(*chat));
}

}  // namespace hadal::chat
