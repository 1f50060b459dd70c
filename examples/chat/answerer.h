// What answers a prompt: the engine, or a test's stand-in.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "chat/conversation.h"
#include "chat/settings.h"
#include "common/reasoning.h"
#include "hadal/status.h"

namespace hadal::chat {

enum class AnswerEnd {
  kStop,         // the model has ended it
  kMaxTokens,    // Settings::max_tokens
  kContext,      // the context's end
  kInterrupted,  // by the user, or by on_piece
};

struct AnswerFigures {
  uint64_t prompt_tokens = 0, reused_tokens = 0, prefilled_tokens = 0;
  uint64_t generated_tokens = 0;
  uint64_t drafts = 0, accepted_drafts = 0;
  uint64_t seed = 0;
  double first_token_seconds = 0.0;  // from the question on
  double decode_seconds = 0.0;       // from the first token to the last

  // Without the first token, which comes from the prompt.
  [[nodiscard]] double tokens_per_second() const {
    if (generated_tokens < 2 || decode_seconds <= 0.0) return 0.0;
    return double(generated_tokens - 1) / decode_seconds;
  }
};

struct AnswerResult {
  AnswerEnd end = AnswerEnd::kStop;
  AnswerFigures figures;
};

// Text that has come, in whole characters, and a mark of reasoning without text behind it.
struct AnswerPiece {
  std::string text;
  examples::ReasoningMark mark = examples::ReasoningMark::kNone;
};

class Answerer {
 public:
  virtual ~Answerer() = default;
  [[nodiscard]] virtual uint32_t context() const = 0;
  [[nodiscard]] virtual bool speculates() const = 0;
  // Hands pieces to `on_piece` as they come; it returns false to end the answer. Errors:
  // kInvalidArgument for a prompt that does not fit, those of the engine.
  [[nodiscard]] virtual Result<AnswerResult> answer(
      const Prompt& prompt, const Settings& settings, uint64_t seed,
      const std::function<bool(const AnswerPiece&)>& on_piece) = 0;
};

}  // namespace hadal::chat
