#include "chat/session.h"

#include <fmt/format.h>

#include <utility>

#include "common/reasoning.h"
#include "hadal/model/tokenizer.h"

namespace hadal::chat {
namespace {

constexpr const char* kFull =
    "/reset begins a new conversation, /undo takes the last question back";

std::optional<bool> on_or_off(const std::string& word) {
  if (word == "on") return true;
  if (word == "off") return false;
  return {};
}

std::string questions_text(const Conversation& conversation) {
  const size_t count = conversation.questions();
  return fmt::format("{} question{}", count, count == 1 ? "" : "s");
}

}  // namespace

std::string figures_text(const AnswerFigures& f, bool speculates) {
  std::string text = fmt::format("prompt {} ({} reused, {} prefilled)", f.prompt_tokens,
                                 f.reused_tokens, f.prefilled_tokens);
  if (f.generated_tokens > 0) {
    text += fmt::format(", first token {:.2f} s, answer {} tokens", f.first_token_seconds,
                        f.generated_tokens);
  }
  if (f.tokens_per_second() > 0.0) text += fmt::format(", {:.1f}/s", f.tokens_per_second());
  if (speculates) text += fmt::format(", guesses {}/{}", f.accepted_drafts, f.drafts);
  return text;
}

Session::Session(Conversation& conversation, Settings& settings, Answerer& answerer,
                 Printer& printer, SessionHost host)
    : conversation_(conversation),
      settings_(settings),
      answerer_(answerer),
      printer_(printer),
      host_(std::move(host)) {}

void Session::refuse(const std::string& message) {
  failed_ = true;
  host_.error(message);
}

Session::Next Session::take(const Input& input) {
  if (const size_t bad = model::find_invalid_utf8(input.text); bad != input.text.npos) {
    refuse(fmt::format("input: must be UTF-8, got another byte at offset {}", bad));
    return Next::kGoOn;
  }
  const Command command = parse_command(input);
  switch (command.kind) {
    case CommandKind::kMessage: return ask(command.argument);
    case CommandKind::kQuit: return Next::kLeave;
    case CommandKind::kRegenerate: return regenerate();
    default: run(command); return Next::kGoOn;
  }
}

void Session::run(const Command& command) {
  switch (command.kind) {
    case CommandKind::kHelp: return host_.show(help_text());
    case CommandKind::kReset:
      conversation_.reset();
      return host_.notice("the conversation is empty\n");
    case CommandKind::kUndo:
      if (!conversation_.undo()) return refuse("/undo: there must be a question, got none");
      return host_.notice("the last question and its answer are taken back\n");
    case CommandKind::kSystem: return set_system(command.argument);
    case CommandKind::kThink: return set_thinking(command.argument);
    case CommandKind::kSet: return set(command.argument);
    case CommandKind::kStats: return show_stats(command.argument);
    case CommandKind::kSave: return save(command.argument);
    case CommandKind::kLoad: return load(command.argument);
    default: break;
  }
  refuse(
      fmt::format("{}: must be a command (/help lists them); //... sends a text that begins with /",
                  visible_controls(command.argument.substr(0, 80))));
}

Session::Next Session::ask(const std::string& text) {
  Conversation before = conversation_;
  conversation_.ask(text);
  return answer(std::move(before));
}

Session::Next Session::regenerate() {
  Conversation before = conversation_;
  if (conversation_.take_answer_back()) return answer(std::move(before));
  refuse("/regenerate: there must be a question, got none");
  return Next::kGoOn;
}

Session::Next Session::answer(Conversation before) {
  const auto give_up = [&](const Status& status) {
    conversation_ = std::move(before);
    refuse(status);
    return status.code() == Errc::kDeviceLost ? Next::kFailed : Next::kGoOn;
  };
  const Result<Prompt> prompt = conversation_.prompt();
  if (!prompt.ok()) return give_up(prompt.status());
  examples::ReasoningSplitter splitter(prompt->reasoning);
  std::string text, reasoning;
  const auto show = [&](const examples::SplitText& split) {
    printer_.reasoning(split.reasoning);
    printer_.answer(split.answer);
    reasoning += split.reasoning, text += split.answer;
  };
  const uint64_t seed = settings_.seed ? *settings_.seed : host_.random();
  const Result<AnswerResult> result =
      answerer_.answer(*prompt, settings_, seed, [&](const AnswerPiece& piece) {
        show(splitter.push(piece.text, piece.mark));
        return !printer_.failed();
      });
  show(splitter.flush());
  const bool nothing = text.empty() && reasoning.empty();
  if (!result.ok()) {
    if (!nothing) printer_.end();
    return give_up(result.status());
  }
  count(result->figures);
  if (nothing && result->end == AnswerEnd::kInterrupted) {
    conversation_ = std::move(before);
    host_.notice("stopped before the first word: the conversation is as it was\n");
    return Next::kGoOn;
  }
  printer_.end();
  if (printer_.failed()) return Next::kFailed;
  // The empty lines between reasoning and answer are the model's way, not a part of the answer.
  const size_t begin = reasoning.empty() ? 0 : text.find_first_not_of('\n');
  conversation_.answer(begin == text.npos ? "" : text.substr(begin), reasoning);
  say_end(*result);
  return Next::kGoOn;
}

void Session::count(const AnswerFigures& figures) {
  last_ = figures;
  ++answers_;
  all_.prompt_tokens += figures.prompt_tokens, all_.reused_tokens += figures.reused_tokens;
  all_.prefilled_tokens += figures.prefilled_tokens;
  all_.generated_tokens += figures.generated_tokens;
  all_.drafts += figures.drafts, all_.accepted_drafts += figures.accepted_drafts;
}

void Session::say_end(const AnswerResult& result) {
  const AnswerFigures& f = result.figures;
  const uint64_t used = f.prompt_tokens + f.generated_tokens;
  const uint32_t context = answerer_.context();
  if (result.end == AnswerEnd::kMaxTokens && conversation_.has_template()) {
    host_.notice(fmt::format("stopped after {} tokens (--max-tokens, /set max_tokens)\n",
                             f.generated_tokens));
  } else if (result.end == AnswerEnd::kContext) {
    host_.notice(fmt::format("the context of {} tokens is full, the answer ends here: {}\n",
                             context, kFull));
  } else if (used > context - context / 8) {
    host_.notice(
        fmt::format("the context is nearly full, {} of {} tokens: {}\n", used, context, kFull));
  }
  if (shows_figures_) host_.figures(figures_text(f, answerer_.speculates()) + "\n");
}

void Session::set_system(const std::string& argument) {
  if (argument.empty()) {
    const std::string system = conversation_.system();
    return host_.show(system.empty() ? "there is no system message\n"
                                     : visible_controls(system) + "\n");
  }
  conversation_.set_system(argument == "\"\"" ? "" : argument);
  host_.notice(argument == "\"\"" ? "the system message is gone\n" : "the system message is set\n");
}

void Session::set_thinking(const std::string& argument) {
  const std::optional<bool> wanted = on_or_off(argument);
  const Thinking thinking = conversation_.thinking();
  if (!argument.empty() && !wanted) {
    return refuse(fmt::format("/think: must be on or off, got '{}'",
                              visible_controls(argument.substr(0, 40))));
  }
  if (thinking == Thinking::kNever && wanted == true) {
    return refuse("/think: the model's chat template knows no thinking");
  }
  if (thinking == Thinking::kAlways && wanted == false) {
    return refuse("/think: the model's chat template always thinks");
  }
  if (wanted && thinking == Thinking::kSwitched) conversation_.set_thinks(*wanted);
  (wanted ? host_.notice : host_.show)(conversation_.thinks() ? "thinking is on\n"
                                                              : "thinking is off\n");
}

void Session::set(const std::string& argument) {
  if (argument.empty()) return host_.show(settings_text(settings_));
  const Status status = change_setting(settings_, argument);
  if (!status.ok()) refuse(status);
}

void Session::show_stats(const std::string& argument) {
  if (const auto wanted = on_or_off(argument)) {
    shows_figures_ = *wanted;
    return;
  }
  if (!argument.empty()) return refuse("/stats: must be on, off or nothing");
  if (!last_) return host_.show("no answer yet\n");
  host_.show(fmt::format(
      "last answer: {}\n  seed {}, {} of {} tokens of the context\nall {}: prompts {} tokens ({} "
      "reused, {} "
      "prefilled), answers {} tokens\n",
      figures_text(*last_, answerer_.speculates()), last_->seed,
      last_->prompt_tokens + last_->generated_tokens, answerer_.context(), answers_,
      all_.prompt_tokens, all_.reused_tokens, all_.prefilled_tokens, all_.generated_tokens));
}

void Session::save(const std::string& file) {
  if (file.empty()) return refuse("/save: must have a file, got none");
  if (host_.exists(file)) {
    // A slip must not cost a checkpoint.
    Conversation other = conversation_;
    const Result<std::string> text = host_.read(file);
    if (!text.ok() || (!text->empty() && !other.load(*text).ok())) {
      return refuse(fmt::format("/save: {} must be new or a conversation, got another file", file));
    }
  }
  const Status status = host_.write(file, conversation_.save());
  if (!status.ok()) return refuse(fmt::format("/save: {}", status.message()));
  host_.notice(fmt::format("{} saved in {}\n", questions_text(conversation_), file));
}

void Session::load(const std::string& file) {
  if (file.empty()) return refuse("/load: must have a file, got none");
  const Result<std::string> text = host_.read(file);
  const Status status = text.ok() ? conversation_.load(*text) : text.status();
  if (!status.ok()) {
    const bool named = !text.ok();  // the reader's message has the file's name
    return refuse(fmt::format("/load: {}{}", named ? "" : file + ": ", status.message()));
  }
  host_.notice(fmt::format("{} loaded from {}\n", questions_text(conversation_), file));
}

}  // namespace hadal::chat
