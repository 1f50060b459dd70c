// A chat: takes inputs, asks the answerer, prints answers, carries out commands. It knows neither
// terminal nor engine.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "chat/answerer.h"
#include "chat/command.h"
#include "chat/conversation.h"
#include "chat/printer.h"
#include "chat/settings.h"

namespace hadal::chat {

// Where a session's own words go, a whole line or lines each; and its files.
struct SessionHost {
  std::function<void(std::string_view)> show;     // what was asked for: help, settings
  std::function<void(std::string_view)> notice;   // what is worth knowing
  std::function<void(std::string_view)> figures;  // of an answer
  std::function<void(std::string_view)> error;    // one line without its end
  std::function<Result<std::string>(const std::string& file)> read;
  std::function<Status(const std::string& file, std::string_view text)> write;
  std::function<bool(const std::string& file)> exists;
  std::function<uint64_t()> random;
};

class Session {
 public:
  // All must outlive the session.
  Session(Conversation& conversation, Settings& settings, Answerer& answerer, Printer& printer,
          SessionHost host);

  enum class Next {
    kGoOn,
    kLeave,   // /quit
    kFailed,  // nothing can be printed or answered any more
  };
  [[nodiscard]] Next take(const Input& input);
  // Whether anything was refused or has failed so far.
  [[nodiscard]] bool failed() const { return failed_; }

 private:
  void refuse(const std::string& message);
  void refuse(const Status& status) { refuse(status.message()); }
  [[nodiscard]] Next ask(const std::string& text);
  [[nodiscard]] Next regenerate();
  // Of the conversation, which is `before` again when nothing came of it.
  [[nodiscard]] Next answer(Conversation before);
  void count(const AnswerFigures& figures);
  void say_end(const AnswerResult& result);
  void run(const Command& command);
  void set_system(const std::string& argument);
  void set_thinking(const std::string& argument);
  void show_stats(const std::string& argument);
  void set(const std::string& argument);
  void save(const std::string& file);
  void load(const std::string& file);

  Conversation& conversation_;
  Settings& settings_;
  Answerer& answerer_;
  Printer& printer_;
  SessionHost host_;
  bool failed_ = false, shows_figures_ = true;
  std::optional<AnswerFigures> last_;
  AnswerFigures all_;
  uint64_t answers_ = 0;
};

// "prompt 133 (128 reused, 5 prefilled), first token 0.12 s, answer 42 tokens, 80.1/s", and
// guesses: right ones of all.
[[nodiscard]] std::string figures_text(const AnswerFigures& figures, bool speculates);

}  // namespace hadal::chat
