// For tests of grammars: a small vocabulary, masks as sets, and JSON Schema by its definition, on
// values, written apart from the library.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "hadal/runtime/json_grammar.h"
#include "support/random.h"

namespace hadal::test {

using OrderedJson = nlohmann::ordered_json;

// Token 0 ends documents, tokens 1 to 256 are the bytes, then `more`.
inline std::shared_ptr<const runtime::GrammarVocabulary> vocabulary_of(
    const std::vector<std::string>& tokens) {
  const uint32_t end = 0;
  return runtime::GrammarVocabulary::create(tokens, std::span(&end, 1)).value();
}
inline std::vector<std::string> byte_tokens(const std::vector<std::string>& more = {}) {
  std::vector<std::string> tokens = {"<end>"};
  for (int b = 0; b < 256; ++b) tokens.push_back(std::string(1, char(b)));
  tokens.insert(tokens.end(), more.begin(), more.end());
  return tokens;
}

// Which tokens the mask allows.
inline std::vector<bool> allowed(const runtime::TokenMask& mask,
                                 const std::vector<uint32_t>& generated, size_t vocab) {
  std::vector<uint32_t> bits((vocab + 31) / 32);
  EXPECT_TRUE(mask(generated, bits));
  std::vector<bool> result(vocab);
  for (size_t id = 0; id < vocab; ++id) result[id] = bits[id / 32] >> (id % 32) & 1;
  return result;
}

// Whether `value` satisfies `schema`, whose $refs start at `root`: each keyword as the
// specification says it, but that properties alone allow no others.
inline bool satisfies(const OrderedJson& schema, const OrderedJson& value,
                      const OrderedJson& root) {
  const auto part = [&](const OrderedJson& s, const OrderedJson& v) {
    return satisfies(s, v, root);
  };
  if (schema.is_boolean()) return schema.get<bool>();
  const auto has_type = [&](const std::string& type) {
    if (type == "integer") {
      return value.is_number_integer() ||
             (value.is_number_float() && std::floor(value.get<double>()) == value.get<double>());
    }
    return (type == "null" && value.is_null()) || (type == "boolean" && value.is_boolean()) ||
           (type == "number" && value.is_number()) || (type == "string" && value.is_string()) ||
           (type == "array" && value.is_array()) || (type == "object" && value.is_object());
  };
  for (const auto& [key, rule] : schema.items()) {
    if (key == "$ref") {
      const auto text = rule.get<std::string>().substr(1);
      if (!part(root.at(nlohmann::json::json_pointer(text)), value)) return false;
    } else if (key == "type") {
      const auto types = rule.is_array() ? rule : OrderedJson::array({rule});
      if (!std::any_of(types.begin(), types.end(), [&](const auto& t) { return has_type(t); })) {
        return false;
      }
    } else if (key == "enum") {
      if (std::find(rule.begin(), rule.end(), value) == rule.end()) return false;
    } else if (key == "const") {
      if (value != rule) return false;
    } else if (key == "anyOf" || key == "oneOf" || key == "allOf") {
      const auto n =
          std::count_if(rule.begin(), rule.end(), [&](const auto& s) { return part(s, value); });
      if (key == "anyOf" ? n == 0 : key == "oneOf" ? n != 1 : n != ptrdiff_t(rule.size()))
        return false;
    }
    if (value.is_string()) {
      const auto& text = value.get_ref<const std::string&>();
      const auto length =
          std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
      if (key == "minLength" && length < rule.get<int64_t>()) return false;
      if (key == "maxLength" && length > rule.get<int64_t>()) return false;
      if (key == "pattern" && !std::regex_search(text, std::regex(rule.get<std::string>())))
        return false;
    }
    if (value.is_number()) {
      const auto v = value.get<double>();
      if (key == "minimum" && v < rule.get<double>()) return false;
      if (key == "maximum" && v > rule.get<double>()) return false;
      if (key == "exclusiveMinimum" && v <= rule.get<double>()) return false;
      if (key == "exclusiveMaximum" && v >= rule.get<double>()) return false;
      if (key == "multipleOf" && std::fmod(v, rule.get<double>()) != 0) return false;
    }
    if (value.is_array()) {
      if (key == "minItems" && value.size() < rule.get<size_t>()) return false;
      if (key == "maxItems" && value.size() > rule.get<size_t>()) return false;
      const size_t listed = schema.contains("prefixItems") ? schema["prefixItems"].size() : 0;
      for (size_t i = 0; i < value.size(); ++i) {
        if (key == "prefixItems" && i < listed && !part(rule[i], value[i])) return false;
        if (key == "items" && i >= listed && !part(rule, value[i])) return false;
      }
    }
    if (value.is_object()) {
      const auto declared = [&](const std::string& name) {
        return schema.contains("properties") && schema["properties"].contains(name);
      };
      if (key == "required") {
        for (const auto& name : rule) {
          if (!value.contains(name.get<std::string>())) return false;
        }
      }
      for (const auto& [name, item] : value.items()) {
        if (key == "properties" && rule.contains(name) && !part(rule[name], item)) return false;
        if (key == "properties" && !rule.contains(name) &&
            !schema.contains("additionalProperties")) {
          return false;
        }
        if (key == "additionalProperties" && !declared(name) && !part(rule, item)) return false;
      }
    }
  }
  return true;
}

}  // namespace hadal::test
