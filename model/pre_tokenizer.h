// Cuts text into the words that byte-pair encoding works on: the Split and ByteLevel steps of a
// tokenizer.json on PCRE2. Private to the tokenizer.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "hadal/status.h"

namespace hadal::model::detail {

// What becomes of a match of the pattern: a word of its own, nothing, or a part of its neighbour.
enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct SplitSpec {
  std::string pattern;
  bool is_regex = true;  // else the pattern is matched as it stands
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // what lies between the matches counts as the match
};

struct PreTokenizerSpec {
  std::vector<SplitSpec> splits;  // applied one after another, each to the pieces of the one before
  bool add_prefix_space = false;  // ByteLevel: each piece that does not start with ' ' gets one
  bool use_gpt2_regex = false;    // ByteLevel: split by GPT-2's expression after that
};

struct Span {
  uint32_t begin, end;
};

// A compiled pattern. Immutable; matching needs a MatchScratch of the calling thread.
class Pattern;
// Match state, and the processor time that one encode() may still take: see kBaseSeconds.
class MatchScratch;

class PreTokenizer {
 public:
  // `where` starts error messages (kUnsupported: the pattern, by name; kOutOfHostMemory).
  [[nodiscard]] static Result<PreTokenizer> create(const PreTokenizerSpec& spec,
                                                   const std::string& where);
  PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;
  ~PreTokenizer();

  // State for the run() calls over a text of `text_bytes`, all in one thread.
  [[nodiscard]] std::shared_ptr<MatchScratch> make_scratch(size_t text_bytes) const;

  // Calls `emit` for each word of `text` (UTF-8, less than 2^31 bytes), in order. With `stable`,
  // the word lies in `text`; else it dies after the call. Error: kUnsupported when a regex needs
  // more steps or time than any sane one would.
  [[nodiscard]] Status run(
      std::string_view text, MatchScratch& scratch,
      const std::function<void(std::string_view word, bool stable)>& emit) const;

 private:
  struct Split;
  [[nodiscard]] static Result<Split> make_split(const SplitSpec& spec, const std::string& where);
  [[nodiscard]] Status run_split(const Split& split, std::string_view text, MatchScratch& scratch,
                                 std::vector<Span>& spans) const;
  [[nodiscard]] Status run_prefixed(std::string_view piece, MatchScratch& scratch,
                                    const std::function<void(std::string_view, bool)>& emit) const;

  std::vector<Split> splits_;
  std::vector<Split> byte_level_split_;  // GPT-2's expression, if used
  bool add_prefix_space_ = false;
};

}  // namespace hadal::model::detail
