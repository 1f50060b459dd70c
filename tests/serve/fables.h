// The small checkpoint as hadal-serve knows it, with V3.1's chat template or without one.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>

#include "serve/served_model.h"
#include "support/safetensors_writer.h"

namespace hadal::serve {

inline ServedModel fables(bool with_template) {
  Result<model::Tokenizer> tokenizer =
      model::Tokenizer::load(HADAL_SOURCE_DIR "/examples/models/fables");
  EXPECT_TRUE(tokenizer.ok());
  std::optional<model::ChatTemplate> chat;
  if (with_template) {
    const std::string source =
        hadal::testing::read_file(HADAL_SOURCE_DIR "/tests/chat_templates/v31.jinja");
    Result<model::ChatTemplate> parsed = model::ChatTemplate::parse(source, "v31", "<b>", "<e>");
    EXPECT_TRUE(parsed.ok());
    chat.emplace(std::move(*parsed));
  }
  return {std::move(*tokenizer),
          std::move(chat),
          {.name = "fables", .context = 2048, .vocab = 2048, .end_ids = {1}, .created = 7}};
}

}  // namespace hadal::serve
