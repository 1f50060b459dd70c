#include "byte_dfa.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

namespace hadal::runtime::grammar {
namespace {

struct Escape {
  uint8_t code_point, letter;
};
constexpr Escape kEscapes[] = {{'"', '"'},  {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'},
                               {'\n', 'n'}, {'\r', 'r'},  {'\t', 't'}};

constexpr uint32_t kMixed = UINT32_MAX;

class Encoder {
 public:
  explicit Encoder(const CodePointDfa& source) : source_(source) {}

  Result<ByteDfa> run() {
    result_.states.resize(1 + source_.states.size());
    for (uint32_t s = 0; s < source_.states.size(); ++s) {
      ByteDfa::State& state = result_.states[1 + s];
      state.boundary = true, state.accepts = source_.states[s].accepts;
    }
    for (uint32_t s = 0; s < source_.states.size(); ++s) {
      make_edges(s);
      if (result_.states.size() > kMaxByteStates) {
        return Status(
            Errc::kUnsupported,
            fmt::format("a pattern must have at most {} states, got more", kMaxByteStates));
      }
    }
    remove_dead();
    return std::move(result_);
  }

 private:
  void set_next(uint16_t state, uint32_t byte, uint16_t target) {
    result_.states[state].next[byte] = target;
  }
  uint16_t add_state() {
    if (result_.states.size() <= kMaxByteStates) result_.states.emplace_back();
    return uint16_t(result_.states.size() - 1);
  }

  void make_edges(uint32_t s) {
    const uint16_t state = uint16_t(1 + s);
    cut_surrogates(source_.states[s].edges);
    uint16_t escape = 0;
    for (const auto& [code_point, letter] : kEscapes) {
      const uint32_t target = target_of(code_point, code_point);
      if (target == 0) continue;
      if (escape == 0) escape = add_state(), set_next(state, '\\', escape);
      set_next(escape, letter, uint16_t(target));
    }
    for (uint32_t c = 0x20; c < 0x80; ++c) {
      if (c != '"' && c != '\\') set_next(state, c, uint16_t(target_of(c, c)));
    }
    for (uint32_t b = 0xc2; b < 0xe0; ++b) set_next(state, b, rest((b & 0x1f) << 6, 1));
    for (uint32_t b = 0xe0; b < 0xf0; ++b) set_next(state, b, rest((b & 0x0f) << 12, 2));
    for (uint32_t b = 0xf0; b < 0xf5; ++b) set_next(state, b, rest((b & 0x07) << 18, 3));
  }

  // The state's edges to targets of result_, without surrogates.
  void cut_surrogates(const std::vector<CodePointDfa::Edge>& edges) {
    edges_.clear();
    const auto add = [&](uint32_t low, uint32_t high, uint32_t target) {
      if (low <= high) edges_.push_back({{low, high}, target + 1});
    };
    for (const auto& [range, target] : edges) {
      add(range.low, std::min(range.high, 0xd7ffu), target);
      add(std::max(range.low, 0xe000u), std::min(range.high, 0x10ffffu), target);
    }
  }

  // The target of all code points from low to high; 0: none has one; kMixed.
  [[nodiscard]] uint32_t target_of(uint32_t low, uint32_t high) const {
    const auto it =
        std::lower_bound(edges_.begin(), edges_.end(), low,
                         [](const auto& edge, uint32_t c) { return edge.range.high < c; });
    if (it == edges_.end() || it->range.low > high) return 0;
    if (it->range.low <= low && it->range.high >= high) return it->target;
    return kMixed;
  }

  // The state in which `bytes` continuation bytes follow, of the character whose bits so far are
  // `prefix`; those written in more bytes than needed have no such state.
  uint16_t rest(uint32_t prefix, uint32_t bytes) {
    constexpr uint32_t kShortest[] = {0, 0x80, 0x800, 0x10000};
    return rest(prefix, bytes, kShortest[bytes]);
  }
  uint16_t rest(uint32_t prefix, uint32_t bytes, uint32_t shortest) {
    if (prefix > 0x10ffff) return 0;
    const uint32_t last = prefix + (1u << 6 * bytes) - 1;
    if (last < shortest) return 0;
    if (bytes == 0) return uint16_t(target_of(prefix, prefix));
    const uint32_t target = prefix < shortest ? kMixed : target_of(prefix, last);
    if (target == 0) return 0;
    if (target != kMixed) return uniform(target, bytes);
    const uint16_t state = add_state();
    for (uint32_t b = 0; b < 64; ++b) {
      set_next(state, 0x80 + b, rest(prefix + (b << 6 * (bytes - 1)), bytes - 1, shortest));
    }
    return state;
  }
  // Any `bytes` continuation bytes, then `target`.
  uint16_t uniform(uint32_t target, uint32_t bytes) {
    if (bytes == 0) return uint16_t(target);
    const auto known = uniform_.find({target, bytes});
    if (known != uniform_.end()) return known->second;
    const uint16_t next = uniform(target, bytes - 1), state = add_state();
    for (uint32_t b = 0; b < 64; ++b) set_next(state, 0x80 + b, next);
    uniform_[{target, bytes}] = state;
    return state;
  }

  // Takes away the edges to states from which none accepts.
  void remove_dead() {
    const size_t count = result_.states.size();
    std::vector<std::vector<uint16_t>> sources(count);
    std::vector<bool> live(count);
    std::vector<uint16_t> open;
    for (size_t s = 1; s < count; ++s) {
      uint16_t previous = 0;
      for (const uint16_t t : result_.states[s].next) {
        if (t != 0 && t != previous) sources[t].push_back(uint16_t(s));
        previous = t;
      }
      if (result_.states[s].accepts) live[s] = true, open.push_back(uint16_t(s));
    }
    while (!open.empty()) {
      const uint16_t t = open.back();
      open.pop_back();
      for (const uint16_t s : sources[t]) {
        if (!live[s]) live[s] = true, open.push_back(s);
      }
    }
    for (size_t s = 1; s < count; ++s) {
      for (uint16_t& t : result_.states[s].next) t = live[t] ? t : uint16_t(0);
      if (!live[s]) result_.states[s] = {};
    }
  }

  const CodePointDfa& source_;
  ByteDfa result_;
  std::vector<CodePointDfa::Edge> edges_;
  std::map<std::pair<uint32_t, uint32_t>, uint16_t> uniform_;
};

// A state in which one of `digits` leads to `target`.
uint16_t add_digits(ByteDfa& dfa, const char* digits, uint16_t target) {
  dfa.states.emplace_back();
  for (const char* d = digits; *d; ++d) dfa.states.back().next[uint8_t(*d)] = target;
  return uint16_t(dfa.states.size() - 1);
}

// What follows "\u" of a state that comes back to `boundary`: a character, or two surrogates.
uint16_t add_unicode_escape(ByteDfa& dfa, uint16_t boundary) {
  const char* hex = "0123456789abcdefABCDEF";
  const uint16_t third = add_digits(dfa, hex, add_digits(dfa, hex, boundary));
  uint16_t low = add_digits(dfa, "cdefCDEF", third);
  low = add_digits(dfa, "u", add_digits(dfa, "dD", low));
  const uint16_t high = add_digits(dfa, hex, add_digits(dfa, hex, add_digits(dfa, "\\", low)));
  const uint16_t after_d = add_digits(dfa, "01234567", third);
  for (const char d : {'8', '9', 'a', 'b', 'A', 'B'}) dfa.states[after_d].next[uint8_t(d)] = high;
  const uint16_t first = add_digits(dfa, "0123456789abcefABCEF", add_digits(dfa, hex, third));
  for (const char d : {'d', 'D'}) dfa.states[first].next[uint8_t(d)] = after_d;
  return first;
}

}  // namespace

Result<ByteDfa> encode_as_json(const CodePointDfa& dfa) {
  return Encoder(dfa).run();
}

ByteDfa any_plain_string() {
  CodePointDfa any;
  any.states.push_back({{{{0, 0x10ffff}, 0}}, true});
  ByteDfa dfa = encode_as_json(any).value();
  dfa.universal = true;
  return dfa;
}

ByteDfa any_string() {
  ByteDfa dfa = any_plain_string();
  const uint16_t escape = dfa.states[ByteDfa::kStart].next['\\'];
  const uint16_t unicode = add_unicode_escape(dfa, ByteDfa::kStart);
  dfa.states[escape].next['/'] = ByteDfa::kStart;
  dfa.states[escape].next['u'] = unicode;
  return dfa;
}

Result<LengthTable> LengthTable::create(const ByteDfa& dfa, uint64_t least, uint64_t most) {
  const bool limited = most != UINT64_MAX;
  const uint64_t last = limited ? most : least;
  const size_t count = dfa.states.size();
  if (last >= kMaxBits || (last + 1) * count > kMaxBits) {
    return Status(Errc::kUnsupported,
                  fmt::format("lengths times states of the pattern must be at most {}, got {} "
                              "lengths and {} states",
                              kMaxBits, last, count));
  }
  std::vector<std::vector<uint16_t>> targets(count);
  for (size_t s = 1; s < count; ++s) {
    targets[s].assign(dfa.states[s].next.begin(), dfa.states[s].next.end());
    std::sort(targets[s].begin(), targets[s].end());
    targets[s].erase(std::unique(targets[s].begin(), targets[s].end()), targets[s].end());
  }
  LengthTable table;
  table.states_ = count;
  table.bits_.resize((last + 1) * count);
  for (uint64_t c = last + 1; c-- > 0;) {
    // Without a limit the last row stands for all that follow: each state of it can be completed.
    if (!limited && c == last) {
      for (size_t s = 1; s < count; ++s) {
        table.bits_[c * count + s] = dfa.states[s].accepts || targets[s].back() != 0;
      }
      continue;
    }
    // Inside a character a state depends on others of the same row: at most 12 of them in a row.
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t s = count; s-- > 1;) {
        if (table.bits_[c * count + s]) continue;
        bool live = dfa.states[s].accepts && c >= least;
        for (const uint16_t t : targets[s]) {
          if (live) break;
          const uint64_t then = c + dfa.states[t].boundary;
          live = t != 0 && then <= last && table.bits_[then * count + t];
        }
        if (live) table.bits_[c * count + s] = changed = true;
      }
    }
  }
  return table;
}

}  // namespace hadal::runtime::grammar
