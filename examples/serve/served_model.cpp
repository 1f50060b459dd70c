#include "serve/served_model.h"

#include <fmt/format.h>

#include <algorithm>

namespace hadal::serve {

using examples::Reasoning;

uint64_t seed_of_answer(uint64_t seed, uint32_t index) {
  if (index == 0) return seed;
  uint64_t z = seed + index * 0x9E3779B97F4A7C15u;  // splitmix64
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

ServedModel::ServedModel(model::Tokenizer tokenizer,
                         std::optional<model::ChatTemplate> chat_template, Options options)
    : tokenizer_(std::move(tokenizer)),
      chat_template_(std::move(chat_template)),
      options_(std::move(options)),
      formats_(tokenizer_, options_.end_ids),
      call_form_(chat_template_
                     ? CallForm::create(*chat_template_, tokenizer_, options_.end_ids)
                     : Result<CallForm>(Status{Errc::kUnsupported, "there is no template"})),
      marks_(tokenizer_),
      end_of_reasoning_(tokenizer_.token_to_id("</think>")) {
  for (const std::string_view mark : kCallMarks) {
    const auto id = tokenizer_.token_to_id(mark);
    if (!id) continue;
    const Result<std::string> text = tokenizer_.decode({&*id, 1});
    if (text.ok() && text->empty()) silent_marks_.push_back({*id, mark});
  }
  const uint32_t most = options_.context - 1;  // a token has to follow
  options_.max_prompt_tokens =
      options_.max_prompt_tokens ? std::min(options_.max_prompt_tokens, most) : most;
}

std::optional<ApiError> ServedModel::check_name(const std::string& name) const {
  if (name.empty() || name == options_.name) return {};
  return ApiError{
      404,
      fmt::format("model: must be {}, got {}", excerpt(Json(options_.name)), excerpt(Json(name))),
      "model", "model_not_found", 0};
}

std::optional<ApiError> ServedModel::check_length(const std::vector<uint32_t>& ids,
                                                  const std::string& name) const {
  const auto refuse = [&](std::string rule, const char* code) {
    return ApiError{400, name + ": " + std::move(rule), name, code, 0};
  };
  if (ids.empty()) return refuse("must have at least one token, got 0", "");
  if (ids.size() > options_.max_prompt_tokens) {
    return refuse(
        fmt::format("must have at most {} tokens, got {}", options_.max_prompt_tokens, ids.size()),
        "context_length_exceeded");
  }
  const auto outside =
      std::find_if(ids.begin(), ids.end(), [&](uint32_t id) { return id >= options_.vocab; });
  if (outside == ids.end()) return {};
  return refuse(fmt::format("token ids must be below {}, got {} at index {}", options_.vocab,
                            *outside, outside - ids.begin()),
                "");
}

Outcome<std::vector<uint32_t>> ServedModel::encode(const Prompt& prompt, const std::string& name,
                                                   bool add_special) const {
  if (const auto* ids = std::get_if<std::vector<uint32_t>>(&prompt)) return *ids;
  Result<std::vector<uint32_t>> ids = tokenizer_.encode(std::get<std::string>(prompt), add_special);
  if (!ids.ok()) return error_of(ids.status(), name);
  return std::move(*ids);
}

Outcome<ServedModel::PromptTokens> ServedModel::render(const GenerateRequest& request) const {
  if (!chat_template_) {
    return ApiError{400,
                    "messages: the model must have a chat template, got one that continues text "
                    "only; use /v1/completions",
                    "messages", "no_chat_template", 0};
  }
  model::ChatInput input;
  input.messages = call_form_.ok() ? call_form_->messages(request.messages) : request.messages;
  input.tools = request.tools;
  input.variables = request.template_variables;
  input.add_generation_prompt = request.add_generation_prompt;
  const Result<std::string> text = chat_template_->render(input);
  if (!text.ok()) return error_of(text.status(), "messages");
  Outcome<std::vector<uint32_t>> ids = encode(*text, "messages", /*add_special=*/false);
  if (!ids.ok()) return std::move(ids.error());
  return PromptTokens{std::move(*ids), examples::reasoning_behind(*text)};
}

Outcome<std::vector<uint32_t>> ServedModel::tokenize(const GenerateRequest& request) const {
  if (auto wrong = check_name(request.model)) return *wrong;
  if (request.kind == AnswerKind::kCompletion) {
    return encode(request.prompts.at(0), "prompt", request.add_special_tokens);
  }
  Outcome<PromptTokens> tokens = render(request);
  if (!tokens.ok()) return std::move(tokens.error());
  return std::move(tokens->ids);
}

Outcome<MaskMaker> ServedModel::masks(const GenerateRequest& request, bool reasons) const {
  const bool calls = !request.must_call.empty();
  const std::string field = calls ? "tool_choice" : "response_format";
  if (calls && !call_form_.ok()) {
    return ApiError{400, "tool_choice: must be auto or none: " + call_form_.status().message(),
                    field, "", 0};
  }
  const Result<MaskMaker> masks =
      calls ? call_form_->masks(tokenizer_, request.must_call, request.parallel_tool_calls)
            : formats_.masks(request.format);
  if (!masks.ok()) return error_of(masks.status(), calls ? "tools" : field);
  if (!*masks || !reasons) return *masks;
  if (!end_of_reasoning_) {
    return ApiError{400,
                    fmt::format("{}: must be {} while the model thinks, as </think> is no token "
                                "of it",
                                field, calls ? "auto or none" : "text"),
                    field, "", 0};
  }
  return MaskMaker(
      [make = *masks, end = *end_of_reasoning_] { return behind_reasoning(make(), end); });
}

Outcome<Job> ServedModel::prepare(GenerateRequest request, uint64_t random) const {
  if (auto wrong = check_name(request.model)) return *wrong;
  Job job;
  std::vector<std::vector<uint32_t>> prompts;
  if (request.kind == AnswerKind::kChat) {
    Outcome<PromptTokens> tokens = render(request);
    if (!tokens.ok()) return std::move(tokens.error());
    if (auto wrong = check_length(tokens->ids, "messages")) return *wrong;
    prompts.push_back(std::move(tokens->ids));
    job.reasoning = tokens->reasoning;
  }
  for (size_t i = 0; i < request.prompts.size(); ++i) {
    const std::string name = request.prompts.size() == 1 ? "prompt" : fmt::format("prompt[{}]", i);
    Outcome<std::vector<uint32_t>> ids =
        encode(request.prompts[i], name, request.add_special_tokens);
    if (!ids.ok()) return std::move(ids.error());
    if (auto wrong = check_length(*ids, name)) return *wrong;
    prompts.push_back(std::move(*ids));
    if (!request.echo) continue;
    const auto* text = std::get_if<std::string>(&request.prompts[i]);
    const Result<std::string> decoded =
        text != nullptr ? Result<std::string>(*text) : tokenizer_.decode(prompts.back());
    if (!decoded.ok()) return error_of(decoded.status(), name);
    job.echoes.push_back(*decoded);
  }

  const bool reasons = job.reasoning == Reasoning::kOpen;
  const Outcome<MaskMaker> masks = this->masks(request, reasons);
  if (!masks.ok()) return masks.error();
  // Where the prompt leaves none open, the format holds from the first token on.
  if (*masks && !reasons) job.reasoning = Reasoning::kNever;
  for (const std::vector<uint32_t>& ids : prompts) {
    job.prompt_tokens += ids.size();
    for (uint32_t i = 0; i < request.n; ++i) {
      runtime::EngineRequest r;
      r.prompt = ids;
      // OpenAI's default for completions; chats go on to the context's end.
      const uint32_t most = request.kind == AnswerKind::kCompletion ? 16 : options_.context;
      r.max_new_tokens = request.max_tokens.value_or(most);
      r.sampling = request.sampling;
      r.sampling.seed = seed_of_answer(request.seed.value_or(random), i);
      r.logprobs = request.logprobs;
      if (*masks) r.mask = (*masks)();
      r.stop = request.stop;
      r.stop_ids = request.stop_token_ids;
      if (!request.ignore_eos) {
        r.stop_ids.insert(r.stop_ids.end(), options_.end_ids.begin(), options_.end_ids.end());
      }
      job.requests.push_back(std::move(r));
    }
  }
  job.asked = std::move(request);
  return job;
}

}  // namespace hadal::serve
