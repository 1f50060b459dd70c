#include "hadal/model/generation_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <new>

#include "json_fields.h"
#include "mapped_file.h"

namespace hadal::model {
namespace {

// What the samplers take, and for the rest at least ten times what anybody uses.
constexpr Range<double> kTemperature{0.0, 100.0};
constexpr Range<double> kTopP{1e-6, 1.0};
constexpr Range<double> kMinP{0.0, 1.0};
constexpr Range<double> kRepetitionPenalty{0.01, 100.0};
constexpr Range<uint32_t> kTopK{0, 1u << 22};
constexpr Range<uint32_t> kNewTokens{1, 1u << 27};
constexpr size_t kMaxFileBytes = 1u << 20;

template <class T>
Status read(const JsonFields& fields, std::string_view key, Range<T> range, std::optional<T>& out) {
  if (fields.find_set(key) == nullptr) return {};
  return fields.require(key, range, out.emplace());
}

Result<GenerationConfig> parse_document(std::string_view json, const std::string& name,
                                        const ModelConfig& model) {
  if (json.size() > kMaxFileBytes) {
    return Status(Errc::kMalformed, fmt::format("{}: text must be at most {} bytes, got {}", name,
                                                kMaxFileBytes, json.size()));
  }
  HADAL_ASSIGN(const Json document, parse_json(json, name));
  HADAL_ASSIGN(const JsonFields fields, JsonFields::of(document, name));
  GenerationConfig config;
  HADAL_TRY(read(fields, "temperature", kTemperature, config.temperature));
  HADAL_TRY(read(fields, "top_p", kTopP, config.top_p));
  HADAL_TRY(read(fields, "min_p", kMinP, config.min_p));
  HADAL_TRY(read(fields, "repetition_penalty", kRepetitionPenalty, config.repetition_penalty));
  HADAL_TRY(read(fields, "max_new_tokens", kNewTokens, config.max_new_tokens));
  const Json* top_k = fields.find_set("top_k");
  if (top_k != nullptr && top_k->is_number_integer() && *top_k == -1) {
    config.top_k = 0;
  } else {
    HADAL_TRY(read(fields, "top_k", kTopK, config.top_k));
  }
  bool samples = true;  // where transformers would not; vLLM and SGLang do
  if (fields.find_set("do_sample") != nullptr) HADAL_TRY(fields.read("do_sample", samples));
  if (!samples) config.temperature = 0.0;
  HADAL_TRY(fields.read("eos_token_id", {0, model.vocab_size - 1}, config.eos_token_ids));
  return config;
}

}  // namespace

Result<GenerationConfig> parse_generation_config(std::string_view json, const std::string& name,
                                                 const ModelConfig& model) {
  try {
    return parse_document(json, name, model);
  } catch (const std::bad_alloc&) {
    return Status(Errc::kOutOfHostMemory, name);
  } catch (const std::exception& e) {  // the JSON library's; none is expected
    return Status(Errc::kInternal, name + ": " + e.what());
  }
}

Result<GenerationConfig> load_generation_config(const std::filesystem::path& model_dir,
                                                const ModelConfig& model) {
  bool found = false;
  const Result<MappedFile> file = MappedFile::open(model_dir / "generation_config.json", &found);
  if (!found) return GenerationConfig();
  if (!file.ok()) return file.status();
  return parse_generation_config(file->text(), file->path(), model);
}

std::vector<uint32_t> end_ids(const ModelConfig& model, const GenerationConfig& generation) {
  std::vector<uint32_t> ids;
  for (const auto* list : {&model.eos_token_ids, &generation.eos_token_ids}) {
    for (const uint32_t id : *list) {
      if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
    }
  }
  return ids;
}

}  // namespace hadal::model
