// hadal-chat MODEL_DIR: talks with a checkpoint of the DeepSeek-V3 family, on a terminal or piped.
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <random>

#include "chat/arguments.h"
#include "chat/engine_answerer.h"
#include "chat/lines.h"
#include "chat/session.h"
#include "chat/terminal.h"
#include "common/generation_defaults.h"
#include "common/program.h"
#include "hadal/runtime/engine.h"

namespace {

using namespace hadal;
constexpr const char* kProgram = "hadal-chat";
constexpr uint32_t kTextTokens = 200;  // of a continued text, which need not end by itself

struct Terminal {
  bool input = isatty(STDIN_FILENO) != 0, output = isatty(STDOUT_FILENO) != 0;
};

// The file's template, the checkpoint's, or none.
Result<std::optional<model::ChatTemplate>> load_template(const chat::Arguments& a,
                                                         const model::Tokenizer& tokenizer) {
  if (!a.chat_template) return examples::load_chat_template(a.model.directory);
  const auto token = [&](std::optional<uint32_t> id) {
    return id ? tokenizer.id_to_token(*id).value_or("") : std::string();
  };
  HADAL_ASSIGN(const std::string source, examples::read_text(*a.chat_template));
  HADAL_ASSIGN(model::ChatTemplate parsed,
               model::ChatTemplate::parse(source, *a.chat_template, token(tokenizer.bos_id()),
                                          token(tokenizer.eos_id())));
  return std::optional(std::move(parsed));
}

Result<chat::Conversation> begin_conversation(const chat::Arguments& a,
                                              const model::Tokenizer& tokenizer) {
  HADAL_ASSIGN(std::optional<model::ChatTemplate> chat_template, load_template(a, tokenizer));
  chat::Conversation conversation(std::move(chat_template));
  std::string system = a.system.value_or("");
  if (a.system_file) {
    HADAL_ASSIGN(system, examples::read_text(*a.system_file));
    while (system.ends_with('\n') || system.ends_with('\r')) system.pop_back();
  }
  if (const size_t bad = model::find_invalid_utf8(system); bad != system.npos) {
    return Status(
        Errc::kInvalidArgument,
        fmt::format("the system message must be UTF-8, got another byte at offset {}", bad));
  }
  conversation.set_system(system);
  const bool on = a.think == "on";
  const chat::Thinking thinking = conversation.thinking();
  if (!a.think.empty() && thinking != chat::Thinking::kSwitched && on != conversation.thinks()) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("--{}think: the chat template {}", on ? "" : "no-",
                              on ? "knows no thinking" : "always thinks"));
  }
  if (!a.think.empty()) conversation.set_thinks(on);
  return conversation;
}

std::string path_of(const std::string& file) {
  const char* home = std::getenv("HOME");
  if (file.starts_with("~/") && home != nullptr) return home + file.substr(1);
  return file == "-" ? "./-" : file;  // for read_text that is standard input
}

chat::SessionHost make_host(const chat::Arguments& a, const Terminal& terminal) {
  const bool dims = chat::wants_colour(STDERR_FILENO);
  const auto errors = [](std::string_view text) { (void)chat::write_all(STDERR_FILENO, text); };
  const auto aside = [=, quiet = a.quiet](std::string_view text) {
    if (quiet) return;
    std::string_view line = text;
    while (line.ends_with('\n')) line.remove_suffix(1);
    errors(dims ? fmt::format("\033[2m{}\033[0m\n", line) : std::string(text));
  };
  chat::SessionHost host;
  host.show = [=](std::string_view text) {
    (void)chat::write_all(terminal.input && terminal.output ? STDOUT_FILENO : STDERR_FILENO, text);
  };
  host.notice = host.figures = aside;
  host.error = [](std::string_view line) {
    (void)examples::report(kProgram, {Errc::kInvalidArgument, std::string(line)});
  };
  host.read = [](const std::string& file) { return examples::read_text(path_of(file)); };
  host.write = [](const std::string& file, std::string_view text) {
    return examples::write_file(path_of(file), std::as_bytes(std::span(text)));
  };
  host.exists = [](const std::string& file) {
    std::error_code error;
    return std::filesystem::is_regular_file(path_of(file), error);
  };
  host.random = [] {
    std::random_device device;
    return uint64_t{device()} << 32 | device();
  };
  return host;
}

// Inputs until there are no more; the program's exit code.
int talk(chat::Session& session, const Terminal& terminal) {
  std::unique_ptr<chat::LineReader> lines;
  if (terminal.input) lines = chat::edited_lines(chat::default_history_file());
  if (!lines) lines = chat::plain_lines(terminal.input, chat::take_interrupt);
  chat::InputAssembler assembler;
  bool asked_to_leave = false;
  const auto take = [&](const chat::Input& input) {
    (void)chat::take_interrupt();
    const chat::NoEcho hidden(terminal.input);
    const chat::Session::Next next = session.take(input);
    if (terminal.input) (void)chat::take_interrupt();  // it was for the answer
    return next;
  };
  // What a person was told of needs no exit code.
  const auto exit_code = [&] {
    return session.failed() && !terminal.input ? examples::kExitError : 0;
  };
  for (std::string line;; line.clear()) {
    // Between two lines Ctrl-C is a signal.
    const bool early = chat::take_interrupt();
    switch (early ? chat::LineEnd::kInterrupted
                  : lines->read(assembler.pending() ? "... " : ">>> ", line)) {
      case chat::LineEnd::kFailed: return examples::kExitError;
      case chat::LineEnd::kInterrupted: {
        const bool clears = !line.empty() || assembler.pending();
        if (!terminal.input || (asked_to_leave && !clears)) return examples::kExitInterrupted;
        assembler.clear();
        asked_to_leave = true;
        if (!clears) (void)chat::write_all(STDERR_FILENO, "Ctrl-C again or Ctrl-D leaves\n");
        continue;
      }
      case chat::LineEnd::kEnd:
        if (assembler.in_block()) {
          return examples::report(
              kProgram, {Errc::kInvalidArgument, "input: a block must end in \"\"\", got its end"});
        }
        if (const auto last = assembler.finish()) (void)take(*last);
        return exit_code();
      case chat::LineEnd::kLine: break;
    }
    asked_to_leave = false;
    const std::optional<chat::Input> input = assembler.push(line);
    if (!input) continue;
    switch (take(*input)) {
      case chat::Session::Next::kGoOn: break;
      case chat::Session::Next::kFailed: return examples::kExitError;
      case chat::Session::Next::kLeave: return exit_code();
    }
    if (!terminal.input && chat::take_interrupt()) return examples::kExitInterrupted;
  }
}

// `drawing`: what generation_config.json says about it.
void greet(const chat::Conversation& conversation, const chat::Arguments& a,
           const std::string& drawing, uint32_t context, const Device& device,
           const Terminal& terminal) {
  if (a.quiet) return;
  std::string text;
  if (terminal.input && !a.prompt) {
    const auto name = std::filesystem::weakly_canonical(a.model.directory).filename().string();
    text = fmt::format("{} on {}, context {} tokens\n/help lists commands, Ctrl-D leaves.\n", name,
                       device.caps().device_name, context);
    if (!drawing.empty()) text += fmt::format("From generation_config.json: {}\n", drawing);
  }
  if (!conversation.has_template()) {
    text += "The checkpoint has no chat template: what you write is continued.\n";
  }
  (void)chat::write_all(STDERR_FILENO, text);
}

Status run(chat::Arguments& a, int& exit_code) {
  HADAL_TRY(runtime::check_sampling(a.settings.sampling));
  HADAL_ASSIGN(const model::ModelConfig config, examples::load_config(a.model.directory));
  HADAL_TRY(runtime::check_sampling(a.settings.sampling, config.vocab_size));
  HADAL_ASSIGN(const model::Tokenizer tokenizer, model::Tokenizer::load(a.model.directory));
  HADAL_TRY(examples::check_tokenizer(a.model.directory, tokenizer, config));
  HADAL_TRY(runtime::check_stop_strings(tokenizer, a.stop));
  HADAL_ASSIGN(chat::Conversation conversation, begin_conversation(a, tokenizer));
  model::GenerationConfig generation;
  if (a.generation_config == "auto") {
    HADAL_ASSIGN(generation, model::load_generation_config(a.model.directory, config));
    examples::forget_given(generation, a.given);
    examples::apply_generation_config(generation, a.settings.sampling);
    if (generation.max_new_tokens) a.settings.max_tokens = *generation.max_new_tokens;
  }
  if (!conversation.has_template() && a.settings.max_tokens == 0) {
    a.settings.max_tokens = kTextTokens;
  }

  runtime::EngineOptions options;
  options.max_requests = options.max_rows = 1;
  examples::apply_speculation(a.speculation, options, a.model);
  a.model.decode_rows = a.model.max_logit_rows = options.max_rows;
  HADAL_ASSIGN(examples::LoadedModel loaded, examples::load_model(a.model));
  options.max_chunk = loaded.model->options().max_tokens;
  options.tokenizer = &tokenizer;
  HADAL_ASSIGN(runtime::Engine engine,
               runtime::Engine::create(*loaded.device, *loaded.model, *loaded.cache, *loaded.pages,
                                       options));
  HADAL_TRY(engine.warm_up(examples::warm_up()));

  chat::EngineAnswerer::Options answers;
  answers.context = loaded.model->options().max_context;
  answers.end_ids = model::end_ids(config, generation), answers.stop = a.stop;
  answers.speculates = options.speculate, answers.interrupted = chat::interrupted;
  chat::EngineAnswerer answerer(engine, tokenizer, answers);
  const Terminal terminal;
  int write_error = 0;
  chat::Printer printer({terminal.output, chat::wants_colour(STDOUT_FILENO)},
                        [&](std::string_view text) {
                          const bool written = chat::write_all(STDOUT_FILENO, text);
                          if (!written) write_error = errno;
                          return written;
                        });
  chat::Session session(conversation, a.settings, answerer, printer, make_host(a, terminal));
  chat::remember_interrupts();
  greet(conversation, a, examples::generation_text(generation), answers.context, *loaded.device,
        terminal);
  if (a.prompt) {
    (void)session.take({*a.prompt, /*literal=*/true});
    exit_code = chat::take_interrupt() ? examples::kExitInterrupted
                : session.failed()     ? examples::kExitError
                                       : 0;
  } else {
    exit_code = talk(session, terminal);
  }
  if (!printer.failed()) return {};
  exit_code = examples::kExitError;  // without a word where the reader has gone
  if (write_error == EPIPE) return {};
  return {Errc::kIo, "standard output cannot be written"};
}

}  // namespace

int main(int argc, char** argv) {
  chat::Arguments a;
  CLI::App app(
      "Talks with a checkpoint of the DeepSeek-V3 family. On a terminal, /help says what can be "
      "typed; without one each line of standard input is a question.",
      kProgram);
  chat::add_arguments(app, a);
  int exit_code = 0;
  const int code = examples::run_program(app, argc, argv, [&] {
    examples::install_interrupt_handler();
    if (app.count("--seed") > 0) a.settings.seed = a.settings.sampling.seed;
    a.model.progress = !a.quiet;
    return run(a, exit_code);
  });
  return code != 0 ? code : exit_code;
}
