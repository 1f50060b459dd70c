// hadal-tokenize MODEL_DIR: text on standard input to token ids on standard output, or back with
// --decode. Any error is one line on standard error and exit code 2.
#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "common/program.h"
#include "hadal/model/tokenizer.h"

namespace {

using hadal::Result;
using hadal::Status;
using hadal::model::StreamDecoder;
using hadal::model::Tokenizer;

void print_ids(const std::vector<uint32_t>& ids) {
  const char* separator = "";
  for (const uint32_t id : ids) {
    std::cout << separator << id;
    separator = " ";
  }
  std::cout << "\n";
}

Status encode(const Tokenizer& tokenizer, bool add_special) {
  HADAL_ASSIGN(const std::string text, hadal::examples::read_text("-"));
  HADAL_ASSIGN(const std::vector<uint32_t> ids, tokenizer.encode(text, add_special));
  print_ids(ids);
  return {};
}

// The next id of `in`; false at its end.
Result<bool> next_id(std::istream& in, uint32_t* id) {
  std::string word;
  if (!(in >> word)) return false;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), *id);
  if (error != std::errc() || end != word.data() + word.size()) {
    return Status(hadal::Errc::kInvalidArgument,
                  "ids must be integers separated by white space, got " + word.substr(0, 40));
  }
  return true;
}

Status decode(const Tokenizer& tokenizer, bool skip_special) {
  StreamDecoder decoder(tokenizer, skip_special);
  for (uint32_t id = 0;;) {
    const auto more = next_id(std::cin, &id);
    if (!more.ok()) return more.status();
    if (!*more) break;
    const auto text = decoder.push(id);
    if (!text.ok()) return text.status();
    std::cout << *text;
  }
  std::cout << decoder.flush();
  return {};
}

// Many texts in one run: each line of standard input is a JSON string, each line of output its ids;
// with --decode the other way round.
Status encode_lines(const Tokenizer& tokenizer, bool add_special) {
  for (std::string line; std::getline(std::cin, line);) {
    const auto text = nlohmann::json::parse(line, nullptr, false);
    if (!text.is_string()) {
      return {hadal::Errc::kInvalidArgument,
              "a line must be a JSON string, got " + line.substr(0, 40)};
    }
    const auto ids = tokenizer.encode(text.get_ref<const std::string&>(), add_special);
    if (!ids.ok()) return ids.status();
    print_ids(*ids);
  }
  return {};
}

Status decode_lines(const Tokenizer& tokenizer, bool skip_special) {
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream in(line);
    std::vector<uint32_t> ids;
    for (uint32_t id = 0;;) {
      const auto more = next_id(in, &id);
      if (!more.ok()) return more.status();
      if (!*more) break;
      ids.push_back(id);
    }
    const auto text = tokenizer.decode(ids, skip_special);
    if (!text.ok()) return text.status();
    std::cout << nlohmann::json(*text).dump() << "\n";
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  CLI::App app("Text on standard input to token ids on standard output, or back.",
               "hadal-tokenize");
  std::string model_dir;
  bool decoding = false, special = false, lines = false;
  app.add_option("MODEL_DIR", model_dir, "folder with tokenizer.json")->required();
  app.add_flag("--decode", decoding, "ids to text");
  app.add_flag("--special", special,
               "add the special tokens that the model wants; with --decode, print special tokens");
  app.add_flag("--json", lines, "one text per line, as a JSON string; its ids on one line");
  return hadal::examples::run_program(app, argc, argv, [&]() -> Status {
    HADAL_ASSIGN(const Tokenizer tokenizer, Tokenizer::load(model_dir));
    if (decoding) {
      HADAL_TRY(lines ? decode_lines(tokenizer, !special) : decode(tokenizer, !special));
    } else {
      HADAL_TRY(lines ? encode_lines(tokenizer, special) : encode(tokenizer, special));
    }
    std::cout.flush();
    if (std::cout) return {};
    return {hadal::Errc::kIo, "standard output cannot be written"};
  });
}
