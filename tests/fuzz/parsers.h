// Fuzz targets of what reads files and bytes of strangers. Each takes the bytes as its input's
// whole content; accepted: it parsed.
#pragma once

#include "fuzz/bytes.h"

namespace hadal::fuzz {

[[nodiscard]] Outcome config(Bytes bytes);             // config.json
[[nodiscard]] Outcome generation_config(Bytes bytes);  // generation_config.json
[[nodiscard]] Outcome safetensors(Bytes bytes);        // model.safetensors
[[nodiscard]] Outcome tokenizer(Bytes bytes);          // tokenizer.json; then a text there and back
[[nodiscard]] Outcome chat_template(Bytes bytes);      // a template; then a conversation with it
[[nodiscard]] Outcome json_schema(Bytes bytes);        // a schema; then a walk through its masks
// The bytes of a request; then the same with the right checksum, as an attacker would send them.
[[nodiscard]] Outcome sequence_state(Bytes bytes);

struct ParserTarget {
  const char* name;
  Outcome (*run)(Bytes bytes);
};
[[nodiscard]] std::span<const ParserTarget> parser_targets();

}  // namespace hadal::fuzz
