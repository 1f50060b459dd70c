// See pre_tokenizer.h. Both the expressions and the text may be hostile, so every match is bounded:
// in backtracking steps per start position, in start positions per call, in time between the calls.
#include "pre_tokenizer.h"

#include <algorithm>
#include <ctime>

#include <fmt/format.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "onig_pattern.h"

namespace hadal::model::detail {
namespace {

// The fixed expression of ByteLevel{use_regex}, from the tokenizers library.
constexpr std::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Backtracking steps per start position: an expression of published tokenizers takes at most about
// two per byte (`\s*[\r\n]+` on a run of spaces goes back over all of it once).
constexpr uint32_t kBaseSteps = 1'000'000;
constexpr uint32_t kStepsPerByte = 4;
// Start positions that one call of the matcher may try, so that the clock is seen in between.
constexpr size_t kWindowBytes = 256;
// Interpretive matching searches for a first character beyond the window, to the end of the text,
// so that many small windows would make it quadratic: there they grow up to this.
constexpr size_t kMaxWindowBytes = 1 << 16;
// Processor time of one encode(): twenty times what the slowest sane text takes.
constexpr double kBaseSeconds = 2;
constexpr double kSecondsPerByte = 10e-6;
constexpr uint32_t kCallsPerClock = 256;
// Interpretive matching (where the just-in-time compiler is missing or its stack is too small).
constexpr uint32_t kHeapLimitKib = 64 * 1024;

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

size_t char_length(std::string_view text, size_t pos) {
  const uint8_t lead = static_cast<uint8_t>(text[pos]);
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

std::string pcre2_message(int code) {
  PCRE2_UCHAR buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

class MatchScratch {
 public:
  explicit MatchScratch(size_t text_bytes)
      : data(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        deadline_(thread_seconds() + kBaseSeconds +
                  kSecondsPerByte * static_cast<double>(text_bytes)) {
    if (context != nullptr) pcre2_set_heap_limit(context, kHeapLimitKib);
  }
  ~MatchScratch() {
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  MatchScratch(const MatchScratch&) = delete;
  MatchScratch& operator=(const MatchScratch&) = delete;

  [[nodiscard]] bool ok() const { return data != nullptr && context != nullptr; }
  // Whether the time is up. Looks at the clock, a system call, now and then, or when it `must`.
  [[nodiscard]] bool expired(bool must) {
    if (!must && ++calls_ % kCallsPerClock != 0) return false;
    return thread_seconds() > deadline_;
  }

  pcre2_match_data* data;
  pcre2_match_context* context;
  std::vector<Span> current, next;  // pieces before and after one split
  std::string prefixed;

 private:
  double deadline_;
  uint32_t calls_ = 0;
};

class Pattern {
 public:
  static Result<std::shared_ptr<const Pattern>> compile(std::string_view source, bool is_regex,
                                                        const std::string& where);
  ~Pattern() { pcre2_code_free(code_); }
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  // First match that starts at `from` or later; `found` is false when there is none.
  Status search(std::string_view text, size_t from, MatchScratch& scratch, bool* found,
                Span* match) const;

 private:
  Pattern(pcre2_code* code, bool jit, std::string where)
      : code_(code), jit_(jit), where_(std::move(where)) {}
  pcre2_code* code_;
  bool jit_;
  std::string where_;
};

Result<std::shared_ptr<const Pattern>> Pattern::compile(std::string_view source, bool is_regex,
                                                        const std::string& where) {
  std::string regex(source);
  if (is_regex) {
    HADAL_ASSIGN(regex, translate_onig(source, where));
  }
  const uint32_t options = is_regex ? PCRE2_MULTILINE | PCRE2_UCP : PCRE2_LITERAL;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  if (context == nullptr) return Status(Errc::kOutOfHostMemory, where + ": no memory for a regex");
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  int error = 0;
  size_t offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(regex.data()), regex.size(),
                    options | PCRE2_UTF | PCRE2_USE_OFFSET_LIMIT, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (code == nullptr) {
    return Status(Errc::kUnsupported, fmt::format("{}: regex must be one that PCRE2 compiles, got "
                                                  "'{}' at byte {} of {}",
                                                  where, pcre2_message(error), offset, regex));
  }
  // Without a just-in-time compiler (or leave to make executable memory) the same matches come out,
  // slower.
  const bool jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
  return std::shared_ptr<const Pattern>(new Pattern(code, jit, where));
}

Status Pattern::search(std::string_view text, size_t from, MatchScratch& scratch, bool* found,
                       Span* match) const {
  *found = false;
  const uint64_t steps = kBaseSteps + uint64_t{kStepsPerByte} * text.size();
  pcre2_set_match_limit(scratch.context,
                        static_cast<uint32_t>(std::min<uint64_t>(steps, UINT32_MAX)));
  size_t window = kWindowBytes;
  for (size_t begin = from; begin <= text.size();) {
    if (scratch.expired(begin != from)) {
      return {
          Errc::kUnsupported,
          fmt::format("{}: regex must match a text of {} bytes in {} s + {} us per byte, it ran "
                      "longer",
                      where_, text.size(), kBaseSeconds, kSecondsPerByte * 1e6)};
    }
    size_t end = begin + window;  // one past the last start position of this call
    if (end > text.size()) end = text.size() + 1;
    while (end < text.size() && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) --end;
    pcre2_set_offset_limit(scratch.context, end - 1);
    const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    int rc = pcre2_match(code_, subject, text.size(), begin, PCRE2_NO_UTF_CHECK, scratch.data,
                         scratch.context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      rc = pcre2_match(code_, subject, text.size(), begin, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                       scratch.data, scratch.context);
    }
    if (rc >= 0) {
      const size_t* ends = pcre2_get_ovector_pointer(scratch.data);
      *match = {static_cast<uint32_t>(ends[0]), static_cast<uint32_t>(ends[1])};
      *found = true;
      return {};
    }
    if (rc != PCRE2_ERROR_NOMATCH) {
      return {Errc::kUnsupported, fmt::format("{}: regex must match a text of {} bytes within its "
                                              "limits, got '{}' at byte {}",
                                              where_, text.size(), pcre2_message(rc), begin)};
    }
    begin = end;
    if (!jit_) window = std::min(2 * window, kMaxWindowBytes);
  }
  return {};
}

struct PreTokenizer::Split {
  std::shared_ptr<const Pattern> pattern;
  SplitBehavior behavior;
  bool invert;
};

PreTokenizer::PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

Result<PreTokenizer::Split> PreTokenizer::make_split(const SplitSpec& spec,
                                                     const std::string& where) {
  HADAL_ASSIGN(auto pattern, Pattern::compile(spec.pattern, spec.is_regex, where));
  return Split{std::move(pattern), spec.behavior, spec.invert};
}

Result<PreTokenizer> PreTokenizer::create(const PreTokenizerSpec& spec, const std::string& where) {
  PreTokenizer result;
  for (const SplitSpec& split : spec.splits) {
    HADAL_ASSIGN(auto made, make_split(split, where));
    result.splits_.push_back(std::move(made));
  }
  if (spec.use_gpt2_regex) {
    HADAL_ASSIGN(auto made, make_split({std::string(kGpt2Regex), true, {}, false}, where));
    result.byte_level_split_.push_back(std::move(made));
  }
  result.add_prefix_space_ = spec.add_prefix_space;
  return result;
}

std::shared_ptr<MatchScratch> PreTokenizer::make_scratch(size_t text_bytes) const {
  return std::make_shared<MatchScratch>(text_bytes);
}

namespace {

// Collects the pieces of one text; they cover it in order. Pieces of no bytes count for the merging
// (as in the library) and are dropped by the caller.
class PieceList {
 public:
  PieceList(SplitBehavior behavior, bool invert, std::vector<Span>& out)
      : behavior_(behavior), invert_(invert), out_(out), first_(out.size()) {}

  void add(Span span, bool is_match) {
    is_match = is_match != invert_;
    bool join = false;
    switch (behavior_) {
      case SplitBehavior::kIsolated: break;
      case SplitBehavior::kRemoved:
        if (is_match) return;
        break;
      case SplitBehavior::kMergedWithPrevious: join = is_match && !previous_; break;
      case SplitBehavior::kContiguous: join = is_match == previous_; break;
      // Decided from the end of the text, in finish().
      case SplitBehavior::kMergedWithNext: flags_.push_back(is_match); break;
    }
    previous_ = is_match;
    if (join && out_.size() > first_) {
      out_.back().end = span.end;
    } else {
      out_.push_back(span);
    }
  }

  void finish() {
    if (behavior_ != SplitBehavior::kMergedWithNext) return;
    std::vector<Span> reversed;
    bool previous = false;
    for (size_t i = flags_.size(); i-- > 0; previous = flags_[i]) {
      const Span span = out_[first_ + i];
      if (flags_[i] && !previous && !reversed.empty()) {
        reversed.back().begin = span.begin;
      } else {
        reversed.push_back(span);
      }
    }
    out_.resize(first_);
    out_.insert(out_.end(), reversed.rbegin(), reversed.rend());
  }

 private:
  SplitBehavior behavior_;
  bool invert_;
  std::vector<Span>& out_;
  size_t first_;
  bool previous_ = false;
  std::vector<bool> flags_;
};

}  // namespace

// Appends the pieces of `text`, which is one piece of the step before: the expressions do not see
// beyond it. An empty match right behind the last match is skipped by one character, as Oniguruma's
// Rust binding has it.
Status PreTokenizer::run_split(const Split& split, std::string_view text, MatchScratch& scratch,
                               std::vector<Span>& spans) const {
  PieceList pieces(split.behavior, split.invert, spans);
  size_t from = 0, covered = 0;
  bool any = false;
  uint32_t last_end = 0;
  while (from <= text.size()) {
    bool found = false;
    Span match{};
    HADAL_TRY(split.pattern->search(text, from, scratch, &found, &match));
    if (!found) break;
    if (match.begin == match.end && any && match.end == last_end) {
      from += from < text.size() ? char_length(text, from) : 1;
      continue;
    }
    from = match.end;
    last_end = match.end;
    any = true;
    if (covered != match.begin) pieces.add({static_cast<uint32_t>(covered), match.begin}, false);
    pieces.add(match, true);
    covered = match.end;
  }
  if (covered != text.size()) {
    pieces.add({static_cast<uint32_t>(covered), static_cast<uint32_t>(text.size())}, false);
  }
  pieces.finish();
  return {};
}

Status PreTokenizer::run(std::string_view text, MatchScratch& scratch,
                         const std::function<void(std::string_view, bool)>& emit) const {
  if (!scratch.ok()) return {Errc::kOutOfHostMemory, "tokenizer: no memory to match in"};
  std::vector<Span>& current = scratch.current;
  std::vector<Span>& next = scratch.next;
  current.assign(1, {0, static_cast<uint32_t>(text.size())});
  const auto apply = [&](const Split& split) -> Status {
    next.clear();
    for (const Span piece : current) {
      if (piece.begin == piece.end) continue;
      const size_t first = next.size();
      HADAL_TRY(run_split(split, text.substr(piece.begin, piece.end - piece.begin), scratch, next));
      for (size_t i = first; i < next.size(); ++i) {
        next[i].begin += piece.begin;
        next[i].end += piece.begin;
      }
    }
    std::swap(current, next);
    return {};
  };
  for (const Split& split : splits_) HADAL_TRY(apply(split));
  if (!add_prefix_space_) {
    for (const Split& split : byte_level_split_) HADAL_TRY(apply(split));
  }
  for (const Span piece : current) {
    if (piece.begin == piece.end) continue;
    const std::string_view word = text.substr(piece.begin, piece.end - piece.begin);
    if (add_prefix_space_) {
      HADAL_TRY(run_prefixed(word, scratch, emit));
    } else {
      emit(word, true);
    }
  }
  return {};
}

// The last step for a tokenizer that puts a space before each piece.
Status PreTokenizer::run_prefixed(std::string_view piece, MatchScratch& scratch,
                                  const std::function<void(std::string_view, bool)>& emit) const {
  std::string& text = scratch.prefixed;
  text.assign(piece.starts_with(' ') ? 0 : 1, ' ');
  text += piece;
  if (byte_level_split_.empty()) {
    emit(text, false);
    return {};
  }
  std::vector<Span> words;
  HADAL_TRY(run_split(byte_level_split_[0], text, scratch, words));
  for (const Span word : words) {
    if (word.begin != word.end) {
      emit(std::string_view(text).substr(word.begin, word.end - word.begin), false);
    }
  }
  return {};
}

}  // namespace hadal::model::detail
