// A request in the engine: its answers, and the coroutine that waits for them.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "serve/answer.h"
#include "serve/answer_json.h"
#include "serve/core.h"

namespace hadal::serve {

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  // `news` is notified; it must live until detach() or the end.
  Generation(Core& core, Job job, Time arrived, Signal& news);

  // Hands the answers to the engine. Of several of one long prompt the others follow behind the
  // first one's first token, when the prompt's pages are known. Errors: those of the engine; 429
  // when too many requests are there.
  [[nodiscard]] std::optional<ApiError> submit(int32_t priority);
  // What has not ended ends as cancelled.
  void cancel();
  // Nobody wants the rest: what has not ended is cancelled, and `news` is not touched any more.
  void abandon();
  // Of the mailbox.
  void take(uint32_t answer, const runtime::EngineToken& token, Time time);

  [[nodiscard]] std::vector<Answer>& answers() { return answers_; }
  [[nodiscard]] const GenerateRequest& asked() const { return job_.asked; }
  [[nodiscard]] bool ended() const { return live_ == 0; }
  [[nodiscard]] bool has_news() const;
  [[nodiscard]] size_t waiting_bytes() const;
  // Why there is no answer to give, once it is known: a failed one, or a time that was over before
  // the first token.
  [[nodiscard]] std::optional<ApiError> failure() const;
  [[nodiscard]] Usage usage() const;
  // For the log.
  [[nodiscard]] std::string finish_words() const;
  [[nodiscard]] std::optional<double> first_token_seconds() const;

 private:
  // Gives the answer `index` to the engine.
  [[nodiscard]] Status add(uint32_t index);
  void add_others(uint32_t first);
  struct Live {
    runtime::RequestId id = 0;  // 0: the engine has not seen it
    bool ended = false;
    std::optional<Time> last_token;
  };
  void count_token(Live& live, Time time);

  Core& core_;
  Job job_;
  Time arrived_;
  std::optional<Time> first_token_;
  Signal* news_;
  std::vector<Answer> answers_;
  std::vector<Live> live_requests_;
  uint32_t live_ = 0;
  bool abandoned_ = false;
};

}  // namespace hadal::serve
