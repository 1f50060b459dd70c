// See tokenizer_json.h. One function per member of the file; what is not implemented is refused by
// name, because a tokenizer that ignores a step gives wrong ids without a word.
#include "tokenizer_json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <unordered_set>

namespace hadal::model::detail {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 32;  // of nested arrays and objects; published files have up to 7

std::string shorten(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

struct TooDeep {};

// All readers share the file's name for their messages.
class Reader {
 public:
  explicit Reader(std::string file) : file_(std::move(file)) {}

  [[nodiscard]] Status malformed(std::string_view rule, std::string_view got) const {
    return {Errc::kMalformed, fmt::format("{}: {}, got {}", file_, rule, got)};
  }
  [[nodiscard]] Status bad_value(std::string_view rule, const json& got) const {
    return malformed(rule, shorten(got));
  }
  [[nodiscard]] Status unsupported(std::string_view rule, const json& got) const {
    return {Errc::kUnsupported, fmt::format("{}: {}, got {}", file_, rule, shorten(got))};
  }

  [[nodiscard]] Result<json> parse(std::string_view text) const;

  // A member of `object` or null where it is missing.
  static const json& member(const json& object, const char* key) {
    static const json kNull;
    const auto it = object.find(key);
    return it == object.end() ? kNull : *it;
  }
  // A boolean member; null or missing is `fallback`.
  Status flag(const json& object, const char* key, bool fallback, bool* out) const {
    const json& value = member(object, key);
    if (!value.is_null() && !value.is_boolean()) {
      return bad_value(fmt::format("{} must be true or false", key), value);
    }
    *out = value.is_null() ? fallback : value.get<bool>();
    return {};
  }
  // The "type" of a step; steps are objects.
  Status type_of(const json& step, std::string_view what, std::string* out) const {
    if (!step.is_object() || !member(step, "type").is_string()) {
      return bad_value(fmt::format("{} must be an object with a type", what), step);
    }
    *out = step["type"].get<std::string>();
    return {};
  }
  // An id below kMaxVocab.
  Status id(const json& value, std::string_view token, uint32_t* out) const {
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= kMaxVocab) {
      return bad_value(
          fmt::format("id of {} must be an integer below {}", shorten(json(token)), kMaxVocab),
          value);
    }
    *out = value.get<uint32_t>();
    return {};
  }
  // A list of steps: the members of a Sequence, or the step itself. One level deep.
  Status steps(const json& step, const char* key, std::string_view what,
               std::vector<const json*>* out) const;

  Status model(const json& model, TokenizerSpec& spec) const;
  Status vocab(const json& vocab, TokenizerSpec& spec) const;
  Status merges(const json& merges, TokenizerSpec& spec) const;
  Status added_tokens(const json& list, TokenizerSpec& spec) const;
  Status normalizer(const json& step) const;
  Status pre_tokenizer(const json& step, TokenizerSpec& spec) const;
  Status split(const json& step, SplitSpec& out) const;
  Status post_processor(const json& step, TokenizerSpec& spec) const;
  Status template_processing(const json& step, TokenizerSpec& spec) const;
  Status decoder(const json& step) const;
  Status tokenizer(const json& root, TokenizerSpec& spec) const;
  Status config(const json& root, TokenizerSpec& spec) const;

 private:
  std::string file_;
};

Result<json> Reader::parse(std::string_view text) const {
  if (text.size() > kMaxJsonBytes) {
    return malformed(fmt::format("file must have at most {} bytes", kMaxJsonBytes),
                     std::to_string(text.size()));
  }
  try {
    const auto limit_depth = [](int depth, json::parse_event_t, json&) {
      if (depth > kMaxDepth) throw TooDeep{};
      return true;
    };
    json root = json::parse(text.begin(), text.end(), limit_depth);
    if (!root.is_object()) return bad_value("file must hold a JSON object", root);
    return root;
  } catch (const TooDeep&) {
    return malformed(fmt::format("JSON must be nested at most {} deep", kMaxDepth), "more");
  } catch (const json::parse_error& e) {
    return malformed("file must be JSON", fmt::format("an error at byte {}", e.byte));
  } catch (const json::exception&) {
    return malformed("file must be JSON", "a number out of range");
  }
}

Status Reader::steps(const json& step, const char* key, std::string_view what,
                     std::vector<const json*>* out) const {
  std::string type;
  HADAL_TRY(type_of(step, what, &type));
  if (type != "Sequence") {
    out->push_back(&step);
    return {};
  }
  const json& list = member(step, key);
  if (!list.is_array()) return bad_value(fmt::format("{}.{} must be an array", what, key), list);
  for (const json& inner : list) {
    std::string inner_type;
    HADAL_TRY(type_of(inner, what, &inner_type));
    if (inner_type == "Sequence") {
      return unsupported(fmt::format("{} must not nest Sequences", what), inner);
    }
    out->push_back(&inner);
  }
  return {};
}

Status Reader::vocab(const json& vocab, TokenizerSpec& spec) const {
  if (!vocab.is_object() || vocab.empty()) {
    return bad_value("model.vocab must be an object with at least one token", vocab);
  }
  spec.vocab.reserve(vocab.size());
  std::unordered_set<uint32_t> ids;
  for (const auto& [token, value] : vocab.items()) {
    uint32_t token_id = 0;
    HADAL_TRY(id(value, token, &token_id));
    if (!ids.insert(token_id).second) {
      return malformed("ids in model.vocab must be distinct",
                       fmt::format("{} a second time, for {}", token_id, shorten(json(token))));
    }
    spec.vocab.emplace_back(token, token_id);
  }
  return {};
}

// "a b" in older files, ["a", "b"] in newer ones; a list has one form only.
Status Reader::merges(const json& merges, TokenizerSpec& spec) const {
  if (!merges.is_array()) return bad_value("model.merges must be an array", merges);
  spec.merges.reserve(merges.size());
  for (const json& merge : merges) {
    if (merge.type() != merges[0].type()) {
      return bad_value("model.merges must be all strings or all pairs", merge);
    }
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      if (text.starts_with("#version")) continue;
      const size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
        return bad_value("a merge must be two tokens with one space between them", merge);
      }
      spec.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      spec.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
    } else {
      return bad_value("a merge must be a string or a pair of strings", merge);
    }
  }
  return {};
}

Status Reader::model(const json& model, TokenizerSpec& spec) const {
  if (!model.is_object()) return bad_value("model must be an object", model);
  const json& type = member(model, "type");
  if (!type.is_null() && type != "BPE") return unsupported("model.type must be \"BPE\"", type);
  const json& dropout = member(model, "dropout");
  if (!dropout.is_null() && dropout != 0) {
    return unsupported("model.dropout must be null", dropout);
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json& affix = member(model, key);
    if (!affix.is_null() && affix != "") {
      return unsupported(fmt::format("model.{} must be null", key), affix);
    }
  }
  bool byte_fallback = false;
  HADAL_TRY(flag(model, "byte_fallback", false, &byte_fallback));
  HADAL_TRY(flag(model, "ignore_merges", false, &spec.ignore_merges));
  spec.needs_all_bytes = byte_fallback || !member(model, "unk_token").is_null();
  HADAL_TRY(vocab(member(model, "vocab"), spec));
  return merges(member(model, "merges"), spec);
}

Status Reader::added_tokens(const json& list, TokenizerSpec& spec) const {
  if (list.is_null()) return {};
  if (!list.is_array()) return bad_value("added_tokens must be an array", list);
  for (const json& entry : list) {
    if (!entry.is_object() || !member(entry, "content").is_string()) {
      return bad_value("an added token must be an object with a content", entry);
    }
    AddedToken token;
    token.content = entry["content"].get<std::string>();
    if (token.content.empty()) continue;  // the library passes over them too
    if (token.content.size() > AddedTokens::kMaxContentBytes) {
      return unsupported(
          fmt::format("an added token must have at most {} bytes", AddedTokens::kMaxContentBytes),
          entry["content"]);
    }
    HADAL_TRY(id(member(entry, "id"), token.content, &token.id));
    HADAL_TRY(flag(entry, "single_word", false, &token.single_word));
    HADAL_TRY(flag(entry, "lstrip", false, &token.lstrip));
    HADAL_TRY(flag(entry, "rstrip", false, &token.rstrip));
    HADAL_TRY(flag(entry, "normalized", true, &token.normalized));
    HADAL_TRY(flag(entry, "special", false, &token.special));
    spec.added_tokens.push_back(std::move(token));
  }
  return {};
}

Status Reader::normalizer(const json& step) const {
  if (step.is_null()) return {};
  std::vector<const json*> list;
  HADAL_TRY(steps(step, "normalizers", "normalizer", &list));
  if (!list.empty()) return unsupported("normalizer must be null", (*list[0])["type"]);
  return {};
}

Status Reader::split(const json& step, SplitSpec& out) const {
  const json& pattern = member(step, "pattern");
  if (!pattern.is_object() || pattern.size() != 1 || !pattern.begin()->is_string() ||
      (pattern.begin().key() != "Regex" && pattern.begin().key() != "String")) {
    return bad_value("pattern of a Split must be {\"Regex\" or \"String\": text}", pattern);
  }
  out.is_regex = pattern.begin().key() == "Regex";
  out.pattern = pattern.begin()->get<std::string>();
  HADAL_TRY(flag(step, "invert", false, &out.invert));
  constexpr std::pair<std::string_view, SplitBehavior> kBehaviors[] = {
      {"Isolated", SplitBehavior::kIsolated},
      {"Removed", SplitBehavior::kRemoved},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  const json& behavior = member(step, "behavior");
  for (const auto& [name, value] : kBehaviors) {
    if (behavior == name) {
      out.behavior = value;
      return {};
    }
  }
  return bad_value("behavior of a Split must be one of the five", behavior);
}

Status Reader::pre_tokenizer(const json& step, TokenizerSpec& spec) const {
  std::vector<const json*> list;
  if (!step.is_null()) HADAL_TRY(steps(step, "pretokenizers", "pre_tokenizer", &list));
  bool byte_level = false;
  for (const json* inner : list) {
    std::string type;
    HADAL_TRY(type_of(*inner, "pre_tokenizer", &type));
    if (byte_level) return unsupported("ByteLevel must be the last pre_tokenizer", type);
    if (type == "Split") {
      HADAL_TRY(split(*inner, spec.pre_tokenizer.splits.emplace_back()));
    } else if (type == "ByteLevel") {
      byte_level = true;
      HADAL_TRY(flag(*inner, "add_prefix_space", true, &spec.pre_tokenizer.add_prefix_space));
      HADAL_TRY(flag(*inner, "use_regex", true, &spec.pre_tokenizer.use_gpt2_regex));
    } else {
      return unsupported("pre_tokenizer must be Split or ByteLevel", type);
    }
  }
  if (!byte_level) return unsupported("the last pre_tokenizer must be ByteLevel", step);
  return {};
}

// {"single": [{"SpecialToken": {"id": ..}}, {"Sequence": {"id": "A"}}, ..], "special_tokens": ..}
Status Reader::template_processing(const json& step, TokenizerSpec& spec) const {
  const json& single = member(step, "single");
  if (!single.is_array()) return bad_value("post_processor.single must be an array", single);
  bool after_text = false;
  for (const json& piece : single) {
    if (piece.is_object() && piece.contains("Sequence")) {
      if (after_text) return unsupported("post_processor.single must hold one Sequence", single);
      after_text = true;
      continue;
    }
    const json& token = piece.is_object() ? member(piece, "SpecialToken") : piece;
    if (!token.is_object() || !member(token, "id").is_string()) {
      return bad_value("post_processor.single must hold Sequence and SpecialToken", piece);
    }
    const std::string name = token["id"].get<std::string>();
    const json& table = member(step, "special_tokens");
    const json& entry = table.is_object() ? member(table, name.c_str()) : table;
    const json& ids = entry.is_object() ? member(entry, "ids") : entry;
    if (!ids.is_array()) {
      return bad_value("post_processor.special_tokens must describe each SpecialToken", token);
    }
    for (const json& value : ids) {
      HADAL_TRY(id(value, name, &(after_text ? spec.suffix : spec.prefix).emplace_back()));
    }
  }
  if (!after_text) return unsupported("post_processor.single must hold one Sequence", single);
  return {};
}

Status Reader::post_processor(const json& step, TokenizerSpec& spec) const {
  if (step.is_null()) return {};
  std::vector<const json*> list;
  HADAL_TRY(steps(step, "processors", "post_processor", &list));
  bool has_template = false;
  for (const json* inner : list) {
    std::string type;
    HADAL_TRY(type_of(*inner, "post_processor", &type));
    if (type == "ByteLevel") continue;  // changes offsets only, which are not computed here
    if (type != "TemplateProcessing" || has_template) {
      return unsupported("post_processor must be ByteLevel or one TemplateProcessing", type);
    }
    has_template = true;
    HADAL_TRY(template_processing(*inner, spec));
  }
  return {};
}

// ByteLevel gives one string, so a Fuse behind it changes nothing.
Status Reader::decoder(const json& step) const {
  std::vector<const json*> list;
  if (!step.is_null()) HADAL_TRY(steps(step, "decoders", "decoder", &list));
  for (size_t i = 0; i < list.size(); ++i) {
    std::string type;
    HADAL_TRY(type_of(*list[i], "decoder", &type));
    if (type != (i == 0 ? "ByteLevel" : "Fuse")) {
      return unsupported("decoder must be ByteLevel", type);
    }
  }
  if (list.empty()) return unsupported("decoder must be ByteLevel", step);
  return {};
}

Status Reader::tokenizer(const json& root, TokenizerSpec& spec) const {
  const json& version = member(root, "version");
  if (!version.is_null() && version != "1.0") {
    return unsupported("version must be \"1.0\"", version);
  }
  for (const char* key : {"truncation", "padding"}) {
    const json& value = member(root, key);
    if (!value.is_null()) return unsupported(fmt::format("{} must be null", key), value);
  }
  HADAL_TRY(model(member(root, "model"), spec));
  HADAL_TRY(added_tokens(member(root, "added_tokens"), spec));
  HADAL_TRY(normalizer(member(root, "normalizer")));
  HADAL_TRY(pre_tokenizer(member(root, "pre_tokenizer"), spec));
  HADAL_TRY(post_processor(member(root, "post_processor"), spec));
  return decoder(member(root, "decoder"));
}

Status Reader::config(const json& root, TokenizerSpec& spec) const {
  const auto token = [&](const char* key, std::optional<std::string>* out) -> Status {
    const json& value = member(root, key);
    const json& content = value.is_object() ? member(value, "content") : value;
    if (content.is_string()) {
      *out = content.get<std::string>();
    } else if (!value.is_null()) {
      return bad_value(fmt::format("{} must be a string, an object with a content or null", key),
                       value);
    }
    return {};
  };
  HADAL_TRY(token("bos_token", &spec.bos_token));
  HADAL_TRY(token("eos_token", &spec.eos_token));
  HADAL_TRY(flag(root, "add_bos_token", false, &spec.add_bos_token));
  return flag(root, "add_eos_token", false, &spec.add_eos_token);
}

}  // namespace

Result<TokenizerSpec> parse_tokenizer_json(std::string_view tokenizer_json,
                                           std::string_view config_json, const std::string& name) {
  TokenizerSpec spec;
  const Reader reader(name + "/tokenizer.json");
  HADAL_ASSIGN(const json root, reader.parse(tokenizer_json));
  HADAL_TRY(reader.tokenizer(root, spec));
  if (!config_json.empty()) {
    const Reader config_reader(name + "/tokenizer_config.json");
    HADAL_ASSIGN(const json config, config_reader.parse(config_json));
    HADAL_TRY(config_reader.config(config, spec));
  }
  return spec;
}

}  // namespace hadal::model::detail
