// hadal-disaggregated MODEL_DIR [PROMPT]: prefill in one process, decode in another. Each has a
// Vulkan device and an engine of its own; what goes from one to the other, over a Unix-domain
// socket, is the request's state (hadal/runtime/sequence_state.h). Also usable as two programs:
//
//   hadal-disaggregated --role prefill MODEL_DIR PROMPT | hadal-disaggregated --role decode
//   MODEL_DIR
//
// The prefill role writes the state to standard output, or, where the first token ended the
// request, "HADALEND" and that token (u32, little-endian).
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <optional>

#include "common/program.h"
#include "disaggregated/process.h"
#include "hadal/runtime/engine.h"

namespace {

using namespace hadal;
using examples::Descriptor;
constexpr const char* kProgram = "hadal-disaggregated";
constexpr std::array<char, 8> kEnded{'H', 'A', 'D', 'A', 'L', 'E', 'N', 'D'};

struct Arguments {
  examples::ModelRequest model;
  std::string prompt = "Once upon a time", role = "both";
  uint32_t max_new_tokens = 200;
  runtime::SamplingOptions sampling;
  bool ignore_eos = false, speculate = false, check = false, print_ids = false, quiet = false;
};

// What every role knows before it loads the model.
struct Task {
  model::ModelConfig config;
  std::optional<model::Tokenizer> tokenizer;
  runtime::EngineRequest request;
};

Result<Task> prepare(const Arguments& a) {
  HADAL_TRY(runtime::check_sampling(a.sampling));
  if (a.max_new_tokens == 0) {
    return Status(Errc::kInvalidArgument, "--max-new-tokens: must be at least 1, got 0");
  }
  Task task;
  HADAL_ASSIGN(task.config, examples::load_config(a.model.directory));
  HADAL_ASSIGN(task.tokenizer, model::Tokenizer::load(a.model.directory));
  HADAL_TRY(examples::check_tokenizer(a.model.directory, *task.tokenizer, task.config));
  HADAL_ASSIGN(const uint32_t context, examples::choose_context(a.model.context, task.config));
  HADAL_ASSIGN(task.request.prompt, task.tokenizer->encode(a.prompt));
  HADAL_TRY(examples::check_ids(task.request.prompt, task.config));
  if (task.request.prompt.size() >= context) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("the prompt must be shorter than the context of {} tokens, got {}",
                              context, task.request.prompt.size()));
  }
  task.request.max_new_tokens = a.max_new_tokens, task.request.sampling = a.sampling;
  if (!a.ignore_eos) {
    HADAL_ASSIGN(task.request.stop_ids, examples::load_end_ids(a.model.directory, task.config));
  }
  return task;
}

// A model and the engine over it.
struct Served {
  examples::LoadedModel loaded;
  std::optional<runtime::Engine> engine;
};

Result<Served> serve(const Arguments& a) {
  examples::ModelRequest request = a.model;
  request.load_mtp = a.speculate;
  request.decode_rows = request.max_logit_rows = a.speculate ? 2 : 1;
  Served served;
  HADAL_ASSIGN(served.loaded, examples::load_model(request));
  runtime::EngineOptions options;
  options.max_rows = request.decode_rows, options.speculate = a.speculate;
  options.max_chunk = served.loaded.model->options().max_tokens;
  HADAL_ASSIGN(served.engine,
               runtime::Engine::create(*served.loaded.device, *served.loaded.model,
                                       *served.loaded.cache, *served.loaded.pages, options));
  return served;
}

// Prints tokens as they come: text, or one id a line.
class Printer {
 public:
  Printer(const model::Tokenizer& tokenizer, bool ids) : stream_(tokenizer), ids_(ids) {}
  [[nodiscard]] Status print(uint32_t id) {
    if (ids_) {
      fmt::print("{}\n", id);
    } else {
      HADAL_ASSIGN(const std::string text, stream_.push(id));
      fmt::print("{}", text);
    }
    std::fflush(stdout);
    return {};
  }
  void end() {
    if (!ids_) fmt::print("{}\n", stream_.flush());
  }

 private:
  model::StreamDecoder stream_;
  bool ids_;
};

// Runs the engine's only request to its end; the last entry says why it ended.
Result<std::vector<runtime::EngineToken>> finish(runtime::Engine& engine, Printer* printer) {
  std::vector<runtime::EngineToken> all;
  while (!engine.idle()) {
    if (examples::interrupted()) return Status(Errc::kCancelled, "interrupted");
    HADAL_ASSIGN(const std::vector<runtime::EngineToken> tokens, engine.step());
    for (const runtime::EngineToken& token : tokens) {
      if (printer) HADAL_TRY(printer->print(token.id));
      all.push_back(token);
    }
  }
  return all;
}

Status run_prefill(const Arguments& a) {
  HADAL_ASSIGN(Task task, prepare(a));
  HADAL_ASSIGN(Served served, serve(a));
  task.request.prefill_only = true;
  HADAL_ASSIGN(const runtime::RequestId id, served.engine->add(task.request));
  HADAL_ASSIGN(const std::vector<runtime::EngineToken> tokens, finish(*served.engine, nullptr));
  std::vector<std::byte> bytes;
  if (tokens.back().finish == runtime::FinishReason::kExported) {
    HADAL_ASSIGN(bytes, served.engine->export_request(id));
  } else {
    for (const char c : kEnded) bytes.push_back(std::byte(c));
    for (int i = 0; i < 4; ++i) bytes.push_back(std::byte(tokens.back().id >> (8 * i)));
  }
  return examples::write_all(STDOUT_FILENO, bytes);
}

// The whole state, and no more memory for it than this engine could need.
Status read_state(const runtime::Engine& engine, uint32_t context, std::vector<std::byte>& bytes) {
  HADAL_TRY(examples::read_more(STDIN_FILENO, kEnded.size() + 4, bytes));
  if (bytes.empty()) return {Errc::kMalformed, "standard input: a state was expected, got nothing"};
  if (bytes.size() >= kEnded.size() && !std::memcmp(bytes.data(), kEnded.data(), kEnded.size())) {
    return {};
  }
  HADAL_TRY(examples::read_more(STDIN_FILENO, runtime::kSequenceHeaderBytes - bytes.size(), bytes));
  HADAL_ASSIGN(const uint64_t said, runtime::sequence_state_bytes(bytes));
  const runtime::CacheIdentity identity = engine.cache_identity();
  runtime::CacheIdentity largest = identity;  // of a peer that speculates, too
  largest.mtp_layers = std::max(largest.mtp_layers, 1u);
  const uint64_t most = runtime::most_sequence_bytes(largest, context);
  if (said > most) {
    return {Errc::kMalformed,
            fmt::format("standard input: a state of this model must be at most {} bytes, got {}",
                        most, said)};
  }
  return examples::read_more(STDIN_FILENO, said - bytes.size() + 1, bytes);
}

Status run_decode(const Arguments& a) {
  HADAL_ASSIGN(const Task task, prepare(a));
  HADAL_ASSIGN(Served served, serve(a));
  Printer printer(*task.tokenizer, a.print_ids);
  std::vector<std::byte> bytes;
  HADAL_TRY(read_state(*served.engine, served.loaded.model->options().max_context, bytes));
  if (!std::memcmp(bytes.data(), kEnded.data(), std::min(bytes.size(), kEnded.size()))) {
    if (bytes.size() != kEnded.size() + 4) {
      return {Errc::kMalformed, "standard input: the end of a request must have 12 bytes"};
    }
    uint32_t id = 0;
    for (int i = 0; i < 4; ++i) id |= uint32_t(bytes[kEnded.size() + size_t(i)]) << (8 * i);
    HADAL_TRY(examples::check_ids({&id, 1}, task.config));
    HADAL_TRY(printer.print(id));
  } else {
    HADAL_ASSIGN(const runtime::SequenceState state, runtime::parse_sequence_state(bytes));
    HADAL_ASSIGN(const runtime::RequestId id, served.engine->import_request(bytes));
    (void)id;
    for (size_t i = state.prompt_tokens; i < state.ids.size(); ++i) {
      HADAL_TRY(printer.print(state.ids[i]));
    }
    HADAL_ASSIGN(const auto tokens, finish(*served.engine, &printer));
  }
  printer.end();
  return {};
}

Status run_single(const Arguments& a) {
  HADAL_ASSIGN(const Task task, prepare(a));
  HADAL_ASSIGN(Served served, serve(a));
  Printer printer(*task.tokenizer, a.print_ids);
  HADAL_ASSIGN(const runtime::RequestId id, served.engine->add(task.request));
  (void)id;
  HADAL_ASSIGN(const auto tokens, finish(*served.engine, &printer));
  printer.end();
  return {};
}

// Ids, one a line, until the other side closes; each is printed with `printer`.
Result<std::vector<uint32_t>> read_ids(int fd, Printer* printer) {
  std::vector<uint32_t> ids;
  std::string line;
  for (std::vector<std::byte> byte;; byte.clear()) {
    HADAL_TRY(examples::read_more(fd, 1, byte));
    if (byte.empty()) return ids;
    if (const char c = char(byte[0]); c != '\n') {
      line += c;
      continue;
    }
    HADAL_ASSIGN(const std::vector<uint32_t> id, examples::parse_ids(line));
    ids.insert(ids.end(), id.begin(), id.end());
    line.clear();
    if (printer && !id.empty()) HADAL_TRY(printer->print(id[0]));
  }
}

Status run_both(const Arguments& a, int argc) {
  HADAL_ASSIGN(const Task task, prepare(a));
  HADAL_ASSIGN(examples::Channel state, examples::make_channel());
  HADAL_ASSIGN(examples::Channel text, examples::make_channel());
  const auto start = [&](const char* role, int input, int output) {
    return examples::start_self(argc, {"--role", role, "--print-ids"}, input, output);
  };
  HADAL_ASSIGN(const pid_t prefill, start("prefill", -1, state.write.get()));
  HADAL_ASSIGN(const pid_t decode, start("decode", state.read.get(), text.write.get()));
  state.read.close(), state.write.close(), text.write.close();
  Printer printer(*task.tokenizer, a.print_ids);
  if (!a.print_ids && !a.quiet) fmt::print("{}", a.prompt);
  const Result<std::vector<uint32_t>> ids = read_ids(text.read.get(), &printer);
  printer.end();
  std::fflush(stdout);
  const Status first = examples::wait_for(prefill, "prefill");
  const Status second = examples::wait_for(decode, "decode");
  HADAL_TRY(first);
  HADAL_TRY(second);
  HADAL_TRY(ids.status());
  if (!a.check) return {};
  HADAL_ASSIGN(text, examples::make_channel());
  HADAL_ASSIGN(const pid_t single, start("single", -1, text.write.get()));
  text.write.close();
  HADAL_ASSIGN(const std::vector<uint32_t> expected, read_ids(text.read.get(), nullptr));
  HADAL_TRY(examples::wait_for(single, "single"));
  if (*ids != expected) {
    return {Errc::kInternal, fmt::format("--check: the tokens must be those of one engine, got {} "
                                         "tokens that differ from its {}",
                                         ids->size(), expected.size())};
  }
  fmt::print(stderr, "check    the same {} tokens as one engine\n", expected.size());
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  Arguments a;
  CLI::App app("Prefill in one process, decode in another, the same tokens.", kProgram);
  app.add_option("MODEL_DIR", a.model.directory, "config.json, *.safetensors, tokenizer.json")
      ->required();
  app.add_option("PROMPT", a.prompt, "text to continue")->capture_default_str();
  app.add_option("--role", a.role, "both starts a process of either role and prints the text")
      ->check(CLI::IsMember({"both", "prefill", "decode", "single"}))
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeFirst)
      ->capture_default_str();
  app.add_option("-n,--max-new-tokens", a.max_new_tokens)->capture_default_str();
  app.add_option("--temperature", a.sampling.temperature, "0 is greedy")->capture_default_str();
  app.add_option("--top-k", a.sampling.top_k, "0 is off")->capture_default_str();
  app.add_option("--top-p", a.sampling.top_p, "1 is off")->capture_default_str();
  app.add_option("--min-p", a.sampling.min_p, "0 is off")->capture_default_str();
  app.add_option("--seed", a.sampling.seed)
      ->check(examples::refuse_inexact_integer)
      ->capture_default_str();
  app.add_option("--context", a.model.context, "positions to plan for; 0 is the model's own");
  app.add_option("--chunk", a.model.max_tokens, "prompt tokens per prefill step")
      ->check(CLI::Range(1u, 65536u))
      ->capture_default_str();
  app.add_option("--device", a.model.device, "index or part of the name (hadal-info lists them)");
  examples::add_cache_option(app, a.model.cache_format);
  app.add_flag("--speculate", a.speculate, "draft with the checkpoint's MTP layer where it pays");
  app.add_flag("--ignore-eos", a.ignore_eos, "go on behind the end-of-text token");
  app.add_flag("--check", a.check, "compare with the tokens of a third process that does it all");
  app.add_flag("--print-ids", a.print_ids, "print token ids, one a line, instead of text");
  app.add_flag("--quiet", a.quiet, "print the generated text only");
  return examples::run_program(app, argc, argv, [&]() -> Status {
    examples::install_interrupt_handler();
    std::signal(SIGPIPE, SIG_IGN);  // a peer that went away is an error of write
    a.model.progress = a.role == "both" && !a.quiet;
    if (a.role == "prefill") return run_prefill(a);
    if (a.role == "decode") return run_decode(a);
    return a.role == "single" ? run_single(a) : run_both(a, argc);
  });
}
