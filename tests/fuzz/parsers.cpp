#include "fuzz/parsers.h"

#include <cmath>
#include <fstream>
#include <string_view>
#include <vector>

#include "fuzz/folder.h"
#include "hadal/model/chat_template.h"
#include "hadal/model/config.h"
#include "hadal/model/fingerprint.h"
#include "hadal/model/generation_config.h"
#include "hadal/model/safetensors.h"
#include "hadal/model/tokenizer.h"
#include "hadal/runtime/json_grammar.h"
#include "hadal/runtime/sampling_options.h"
#include "hadal/runtime/sequence_state.h"

namespace hadal::fuzz {
namespace {

std::string_view text_of(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Outcome refused(const Status& status) {
  return {.fault = status.message().empty() ? "a refusal without a message" : ""};
}

std::string state_fault(const runtime::SequenceState& state, size_t bytes) {
  if (state.computed >= state.ids.size()) return "as many rows as ids";
  if (state.prompt_tokens > state.ids.size()) return "a prompt longer than the ids";
  if (state.length <= state.ids.size()) return "no room for a token";
  if (state.ids.size() * 4 > bytes) return "more ids than bytes";
  if (state.rows.size() != runtime::sequence_rows_bytes(state.cache, state.computed)) {
    return "rows of another size";
  }
  return "";
}

Outcome parsed_state(std::span<const std::byte> bytes) {
  const auto state = runtime::parse_sequence_state(bytes);
  if (!state.ok()) return refused(state.status());
  return {.accepted = true, .fault = state_fault(*state, bytes.size())};
}

}  // namespace

// Whatever parses must be safe to multiply and divide with.
Outcome config(Bytes bytes) {
  const auto config = model::parse_config(text_of(bytes), "config.json");
  if (!config.ok()) return refused(config.status());
  Outcome outcome{.accepted = true};
  if (config->vocab_size == 0 || config->moe_layer_freq == 0 || config->n_group == 0 ||
      config->n_routed_experts % config->n_group != 0) {
    outcome.fault = "a size that cannot be divided by";
  }
  if (!std::isfinite(config->softmax_scale()) || !std::isfinite(config->rope_amplitude())) {
    outcome.fault = "a scale that is not finite";
  }
  for (const double f : config->rope_inverse_frequencies()) {
    if (!(f > 0.0 && f <= 1.0)) outcome.fault = "a frequency outside (0, 1]";
  }
  return outcome;
}

// Whatever parses must be what the sampler takes.
Outcome generation_config(Bytes bytes) {
  model::ModelConfig model;
  model.vocab_size = 163840;
  const auto config =
      model::parse_generation_config(text_of(bytes), "generation_config.json", model);
  if (!config.ok()) return refused(config.status());
  runtime::SamplingOptions options;
  options.temperature = float(config->temperature.value_or(1.0));
  options.top_p = float(config->top_p.value_or(1.0));
  options.min_p = float(config->min_p.value_or(0.0));
  options.repetition_penalty = float(config->repetition_penalty.value_or(1.0));
  Outcome outcome{.accepted = true, .fault = runtime::check_sampling(options).message()};
  if (config->max_new_tokens == 0u) outcome.fault = "no token to generate";
  for (const uint32_t id : model::end_ids(model, *config)) {
    if (id >= model.vocab_size) outcome.fault = "an id outside the vocabulary";
  }
  return outcome;
}

Outcome safetensors(Bytes bytes) {
  static const Folder folder;
  std::ofstream(folder.path() / "model.safetensors", std::ios::binary | std::ios::trunc)
      .write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
  const auto checkpoint = model::Checkpoint::open(folder.path());
  if (!checkpoint.ok()) return refused(checkpoint.status());
  uint64_t total = 0;
  unsigned sum = 0;
  for (const model::TensorView& tensor : checkpoint->tensors()) {
    uint64_t size = model::dtype_bytes(tensor.dtype);
    for (const uint64_t dim : tensor.shape) size *= dim;
    if (size != tensor.bytes.size())
      return {.accepted = true, .fault = "bytes that are not the shape's"};
    for (const std::byte b : tensor.bytes) sum += static_cast<unsigned>(b);  // readable
    total += size;
  }
  // The sum is there so that the bytes are read.
  const bool right = total == checkpoint->data_bytes() && sum <= 255 * total;
  return {.accepted = true, .fault = right ? "" : "bytes in all are not the tensors'"};
}

Outcome tokenizer(Bytes bytes) {
  const auto tokenizer = model::Tokenizer::parse(text_of(bytes), "", "m");
  if (!tokenizer.ok()) return refused(tokenizer.status());
  Outcome outcome{.accepted = true};
  const auto ids = tokenizer->encode("It was 1234 \u4eba\n\n  <think>x</think> \xF0\x9F\x98\x80!");
  if (ids.ok() && !tokenizer->decode(*ids).ok()) outcome.fault = "its own ids are refused";
  return outcome;
}

Outcome chat_template(Bytes bytes) {
  const auto chat = model::ChatTemplate::parse(text_of(bytes), "t", "<bos>", "<eos>");
  if (!chat.ok()) return refused(chat.status());
  model::ChatInput input;
  input.messages =
      R"([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
      {"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function":
      {"name": "f", "arguments": "{}"}}]}, {"role": "tool", "content": "1"}])";
  input.tools = R"([{"type": "function", "function": {"name": "f", "parameters": {}}}])";
  input.variables = R"({"thinking": true, "n": 3, "x": [1, "a", 2.5], "d": {"k": "v"}})";
  const auto text = chat->render(input);
  if (!text.ok()) return refused(text.status());
  return {.accepted = true};
}

Outcome json_schema(Bytes bytes) {
  constexpr uint32_t kTokens = 262, kWords = (kTokens + 31) / 32;
  static const auto vocabulary = [] {
    std::vector<std::string> tokens = {"<end>"};
    for (int b = 0; b < 256; ++b) tokens.push_back(std::string(1, char(b)));
    for (const char* more : {"{\"", "\":", "\"}", "[]", "\xe4\xb8"}) tokens.emplace_back(more);
    const uint32_t end = 0;
    return runtime::GrammarVocabulary::create(tokens, std::span(&end, 1)).value();
  }();
  const auto grammar = runtime::JsonGrammar::compile(text_of(bytes), vocabulary, {3});
  if (!grammar.ok()) return refused(grammar.status());
  const runtime::TokenMask mask = (*grammar)->mask();
  // A walk whose tokens the schema's own bytes choose.
  std::vector<uint32_t> ids, bits;
  for (size_t step = 0; step < 40; ++step) {
    bits.assign(kWords, 0);
    if (!mask(ids, bits)) return {.accepted = true, .fault = "its own tokens are refused"};
    std::vector<uint32_t> allowed;
    for (uint32_t id = 0; id < kTokens; ++id) {
      if (bits[id / 32] >> (id % 32) & 1) allowed.push_back(id);
    }
    if (allowed.empty()) return {.accepted = true, .fault = "a dead end"};
    ids.push_back(
        allowed[(bytes.empty() ? step : bytes[step * 7 % bytes.size()]) % allowed.size()]);
  }
  return {.accepted = true};
}

Outcome sequence_state(Bytes given) {
  const auto view = std::as_bytes(given);
  std::vector<std::byte> bytes(view.begin(), view.end());
  Outcome outcome = parsed_state(bytes);
  if (!outcome.fault.empty() || bytes.size() < runtime::kSequenceHeaderBytes) return outcome;
  const uint64_t sum =
      model::xxh64(std::span<const std::byte>(bytes).subspan(runtime::kSequenceHeaderBytes));
  for (size_t i = 0; i < 8; ++i) bytes[24 + i] = std::byte(sum >> (8 * i));
  return parsed_state(bytes);
}

std::span<const ParserTarget> parser_targets() {
  static constexpr ParserTarget kTargets[] = {{"config", config},
                                              {"generation_config", generation_config},
                                              {"safetensors", safetensors},
                                              {"tokenizer", tokenizer},
                                              {"chat_template", chat_template},
                                              {"json_schema", json_schema},
                                              {"sequence_state", sequence_state}};
  return kTargets;
}

}  // namespace hadal::fuzz
