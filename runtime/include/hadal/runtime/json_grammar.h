// JSON and JSON Schema as token masks: after each token exactly those are allowed behind which the
// text can still become a document of the grammar, and the end token where it is one.
//
//   keyword                       what is understood
//   type                          one or a list; absent: every type, as in JSON Schema
//   properties, required          see "order" below; required names without a property take the
//                                 schema of additionalProperties
//   additionalProperties          true, false, a schema; absent: false beside `properties`, as
//                                 OpenAI demands and others assume, else true
//   prefixItems, items            schemas and booleans; minItems, maxItems
//   minLength, maxLength          code points
//   pattern                       ECMA-262 without look-around, back references, \b and \p; matches
//                                 anywhere unless anchored; \d \w \s as in ECMA-262
//   format                        date, time, date-time (RFC 3339, real days of the calendar),
//                                 uuid, ipv4; not beside pattern
//   minimum, maximum, exclusive*  exact; multipleOf for integers
//   enum, const                   values of any type; beside them only `type`
//   anyOf, oneOf, allOf           also beside other keywords, which are merged into each choice.
//                                 oneOf where at most one choice can hold: other types, or a
//                                 required property with other constants. allOf where the keywords
//                                 can be merged one by one
//   $ref, $defs, definitions      "#" and "#/...", also recursive
//   ignored                       $schema $id $comment title description default example examples
//                                 deprecated readOnly writeOnly discriminator
//
// Everything else is refused with the keyword's name and place: nothing is silently dropped.
//
// Each document is written in one of few ways, so that text does not go on forever for no reason:
//   order    declared properties in the order of `properties`, optional ones may be left out, then
//            additional ones, whose names may repeat (their values are all of the one schema)
//   space    up to max_whitespace spaces, tabs and line ends in a row, between tokens of JSON only:
//            none before and none behind the document
//   strings  valid UTF-8 or the escapes of JSON, \u in pairs for characters behind U+FFFF. Names
//            of properties, constants, and strings with a pattern or format: characters as they
//            are and \" \\ \b \f \n \r \t; other control characters in declared names and constants
//            only, as \u00xx
//   numbers  integers: no point, no exponent, no -0; int64 where a bound is missing. Numbers
//            without bounds: at most 19 digits before and 19 behind the point, 2 in the exponent.
//            With bounds: no exponent, no -0, at most 15 digits before and 15 behind the point.
//            Constants as the schema writes them, objects and lists among them without space
//
// Source: json-schema.org draft 2020-12, RFC 8259.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/model/tokenizer.h"
#include "hadal/runtime/sampling_options.h"
#include "hadal/status.h"

namespace hadal::runtime {

// The bytes of a vocabulary in the form that masks are computed from. Immutable, for any number of
// grammars; 20 to 100 ms to make for 129,280 tokens.
class GrammarVocabulary {
 public:
  // Added tokens, special or not, are never allowed but for `end_ids` behind a whole document;
  // without any of them that is the tokenizer's eos_id. Errors: kInvalidArgument for no end token,
  // or one outside the vocabulary.
  [[nodiscard]] static Result<std::shared_ptr<const GrammarVocabulary>> create(
      const model::Tokenizer& tokenizer, std::span<const uint32_t> end_ids = {});
  // The bytes of each id; empty ones are never allowed.
  [[nodiscard]] static Result<std::shared_ptr<const GrammarVocabulary>> create(
      std::vector<std::string> token_bytes, std::span<const uint32_t> end_ids);

  struct Impl;
  explicit GrammarVocabulary(std::unique_ptr<const Impl> impl);
  ~GrammarVocabulary();
  [[nodiscard]] const Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<const Impl> impl_;
};

struct JsonGrammarOptions {
  uint32_t max_whitespace = 32;  // in a row, between two tokens of JSON; 0: none at all
};

class JsonGrammar {
 public:
  // `schema`: the text of a JSON Schema; empty: any JSON object. Compiling ends soon for any text:
  // bytes, nesting, nodes, and states of patterns are limited. Errors: kInvalidArgument for text
  // that is not JSON or no schema, and where no document can satisfy it; kUnsupported for what is
  // not in the table above and beyond the limits. Messages: "json_schema: PLACE: rule, got value",
  // with PLACE a JSON pointer from "#".
  [[nodiscard]] static Result<std::shared_ptr<const JsonGrammar>> compile(
      std::string_view schema, std::shared_ptr<const GrammarVocabulary> vocabulary,
      const JsonGrammarOptions& options = {});
  // With a vocabulary of its own.
  [[nodiscard]] static Result<std::shared_ptr<const JsonGrammar>> compile(
      std::string_view schema, const model::Tokenizer& tokenizer,
      std::span<const uint32_t> end_ids = {}, const JsonGrammarOptions& options = {});

  // For one request: it keeps the state of the longest prefix that it was asked about and follows
  // whatever span comes. Thread-safe, but calls wait for one another. Behind tokens that no
  // document begins with, and where no token of the vocabulary can go on, it allows none, which
  // ends the request. Behind an end token it allows the end tokens only. Keeps the grammar.
  [[nodiscard]] TokenMask mask() const;

  struct Impl;
  explicit JsonGrammar(std::shared_ptr<const Impl> impl);

 private:
  std::shared_ptr<const Impl> impl_;
};

}  // namespace hadal::runtime
