// Answers from an engine, one at a time on the thread that asks.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "chat/answerer.h"
#include "hadal/model/tokenizer.h"
#include "hadal/runtime/engine.h"

namespace hadal::chat {

class EngineAnswerer : public Answerer {
 public:
  struct Options {
    uint32_t context = 0;
    std::vector<uint32_t> end_ids;  // that end an answer
    std::vector<std::string> stop;  // strings that do
    bool speculates = false;
    std::function<bool()> interrupted;  // asked between steps
  };
  // Both must outlive the answerer; the engine has the tokenizer, too.
  EngineAnswerer(runtime::Engine& engine, const model::Tokenizer& tokenizer, Options options);

  [[nodiscard]] uint32_t context() const override { return options_.context; }
  [[nodiscard]] bool speculates() const override { return options_.speculates; }
  [[nodiscard]] Result<AnswerResult> answer(
      const Prompt& prompt, const Settings& settings, uint64_t seed,
      const std::function<bool(const AnswerPiece&)>& on_piece) override;

 private:
  [[nodiscard]] Result<runtime::EngineRequest> request(const Prompt& prompt,
                                                       const Settings& settings,
                                                       uint64_t seed) const;
  runtime::Engine& engine_;
  const model::Tokenizer& tokenizer_;
  Options options_;
  examples::SpecialMarks marks_;
};

}  // namespace hadal::chat
