#include "stepper.h"

#include <algorithm>

namespace hadal::runtime::grammar {
namespace {

// Frame::state of objects and arrays: a phase, and how much white space there was in a row above
// kSpaceShift. Names that are not declared keep the state of their automaton there.
enum Phase : uint32_t {
  kOpen,         // behind the bracket
  kName,         // inside a declared name; detail: the place in ObjectNode::names
  kOtherName,    // inside another one; detail: the same while it agrees with declared ones
  kAfterName,    //
  kBeforeValue,  // behind the colon
  kAfterValue,   //
  kAfterComma,   //
};
constexpr uint32_t kPhaseMask = 0xff, kSpaceShift = 8;

Phase phase_of(const Frame& frame) {
  return Phase(frame.state & kPhaseMask);
}
Frame in_phase(Frame frame, Phase phase) {
  frame.state = phase, frame.detail = 0;
  return frame;
}

bool is_digit(uint8_t byte) {
  return byte >= '0' && byte <= '9';
}

// Frame::state of numbers with bounds: a phase, the sign, and the count of digits behind the point.
enum NumberPhase : uint32_t {
  kSign,
  kInteger,
  kPoint,
  kFraction,
  kExponent,
  kExponentSign,
  kPower
};
constexpr uint32_t kNegative = 0x100, kDigitsShift = 16;

constexpr uint64_t kMaxDigits = 19, kMaxPowerDigits = 2;  // of numbers without bounds

Wide power_of_ten(uint32_t exponent) {
  Wide power = 1;
  for (; exponent > 0; --exponent) power *= 10;
  return power;
}

// Some multiple of m lies in [low, high] and [least, most].
bool meets(Wide low, Wide high, Wide least, Wide most, uint64_t m) {
  low = std::max(low, least), high = std::min(high, most);
  return low <= high && high / m * m >= low;
}

}  // namespace

Stepper::Stepper(const Nodes& grammar) : grammar_(grammar) {
  end_ = sets_.intern({Frame{}, StackSets::kNothing});
  // The document: a frame of node 0 that has not begun.
  start_ = sets_.intern({Frame{0, 1, 0, 0}, StackSets::kNothing});
}

bool Stepper::complete(uint32_t set) const {
  const auto entries = sets_.entries(set);
  return !entries.empty() && entries.front().frame == Frame{};
}

uint32_t Stepper::step(uint32_t set, uint8_t byte) {
  out_.clear();
  // Interning moves what entries() gives.
  from_.assign(sets_.entries(set).begin(), sets_.entries(set).end());
  for (const auto& [frame, below] : from_) {
    const Node& any = grammar_.nodes[frame.node];
    if (frame.node == 0) {
      if (frame.state == 1) begin(grammar_.root, end_, byte);
    } else if (const auto* string = std::get_if<StringNode>(&any)) {
      step_string(*string, frame, below, byte);
    } else if (const auto* object = std::get_if<ObjectNode>(&any)) {
      step_object(*object, frame, below, byte);
    } else if (const auto* array = std::get_if<ArrayNode>(&any)) {
      step_array(*array, frame, below, byte);
    } else if (const auto* literal = std::get_if<LiteralNode>(&any)) {
      step_literal(*literal, frame, below, byte);
    } else if (const auto* bounded = std::get_if<BoundedNumberNode>(&any)) {
      step_bounded(*bounded, frame, below, byte);
    } else if (std::holds_alternative<FreeNumberNode>(any)) {
      step_free_number(frame, below, byte);
    }
  }
  return sets_.intern(out_);
}

void Stepper::end(uint32_t below) {
  for (const StackSets::Entry& entry : sets_.entries(below)) out_.push_back(entry);
}

void Stepper::begin(uint32_t id, uint32_t below, uint8_t byte) {
  const Node& any = grammar_.nodes[id];
  if (const auto* choice = std::get_if<AnyOfNode>(&any)) {
    for (const uint32_t part : choice->choices) begin(part, below, byte);
  } else if (std::holds_alternative<StringNode>(any)) {
    if (byte == '"') put({id, ByteDfa::kStart, 0, 0}, below);
  } else if (std::holds_alternative<ObjectNode>(any)) {
    if (byte == '{') put({id, kOpen, 0, 0}, below);
  } else if (std::holds_alternative<ArrayNode>(any)) {
    if (byte == '[') put({id, kOpen, 0, 0}, below);
  } else if (const auto* literal = std::get_if<LiteralNode>(&any)) {
    step_literal(*literal, {id, 0, 0, 0}, below, byte);
  } else if (const auto* bounded = std::get_if<BoundedNumberNode>(&any)) {
    begin_number(*bounded, id, below, byte);
  } else if (std::holds_alternative<FreeNumberNode>(any)) {
    if (byte == '-') put({id, kSign, 0, 0}, below);
    if (is_digit(byte)) step_free_number({id, kSign, 0, 0}, below, byte);
  }
}

bool Stepper::step_space(Frame& frame, uint8_t byte) const {
  if (byte != ' ' && byte != '\n' && byte != '\t' && byte != '\r') return false;
  if ((frame.state >> kSpaceShift) >= grammar_.max_whitespace) return false;
  frame.state += 1u << kSpaceShift;
  return true;
}

// Strings.

bool Stepper::can_be_completed(const ByteDfa& dfa, InString& place) {
  if (place.most == kNoLimit) place.characters = std::min(place.characters, place.least);
  // A character that has begun needs room, too.
  const bool begun = !dfa.states[place.state].boundary;
  if (place.characters + begun > place.most) return false;
  return place.table == nullptr || place.table->live(place.characters, place.state);
}

std::optional<InString> Stepper::in_string(const Frame& frame) const {
  const Node& any = grammar_.nodes[frame.node];
  if (const auto* node = std::get_if<StringNode>(&any)) {
    return InString{node->dfa,  uint16_t(frame.state), frame.count, node->least,
                    node->most, node->table.get()};
  }
  if (std::holds_alternative<ObjectNode>(any) && phase_of(frame) == kOtherName) {
    return InString{Nodes::kPlainString, uint16_t(frame.state >> kSpaceShift)};
  }
  return std::nullopt;
}

void Stepper::step_string(const StringNode& node, Frame frame, uint32_t below, uint8_t byte) {
  const ByteDfa& dfa = grammar_.dfas[node.dfa];
  const ByteDfa::State& state = dfa.states[frame.state];
  if (byte == '"' && state.boundary) {
    if (state.accepts && frame.count >= node.least) end(below);
    return;
  }
  InString place = *in_string(frame);
  place.state = state.next[byte];
  place.characters += dfa.states[place.state].boundary;
  if (place.state == ByteDfa::kDead || !can_be_completed(dfa, place)) return;
  frame.state = place.state, frame.count = place.characters;
  put(frame, below);
}

// Constants.

void Stepper::step_literal(const LiteralNode& node, Frame frame, uint32_t below, uint8_t byte) {
  const uint32_t next = node.texts.child(uint32_t(frame.count), byte);
  if (next == kNoNode) return;
  frame.count = next;
  if (node.texts.at(next).value != kNoNode) end(below);
  if (!node.texts.at(next).children.empty()) put(frame, below);
}

// Numbers. Each ends with the byte that follows it, so where one may end the stacks below go on at
// once, beside those in which it does not end.

void Stepper::step_free_number(Frame frame, uint32_t below, uint8_t byte) {
  const bool digit = is_digit(byte);
  const auto go = [&](NumberPhase phase, uint64_t count) {
    frame.state = phase, frame.count = count;
    put(frame, below);
  };
  const auto go_and_end = [&](NumberPhase phase, uint64_t count) {
    go(phase, count);
    end(below);
  };
  switch (NumberPhase(frame.state)) {
    case kSign:
      // A zero stands for as many digits as there may be.
      if (digit) go_and_end(kInteger, byte == '0' ? kMaxDigits : 1);
      break;
    case kInteger:
    case kFraction:
      if (digit && frame.count < kMaxDigits) go_and_end(NumberPhase(frame.state), frame.count + 1);
      if (byte == '.' && frame.state == kInteger) go(kPoint, 0);
      if (byte == 'e' || byte == 'E') go(kExponent, 0);
      break;
    case kPoint:
      if (digit) go_and_end(kFraction, 1);
      break;
    case kExponent:
      if (byte == '+' || byte == '-') go(kExponentSign, 0);
      [[fallthrough]];
    case kExponentSign:
      if (digit) go_and_end(kPower, 1);
      break;
    case kPower:
      if (digit && frame.count < kMaxPowerDigits) go_and_end(kPower, frame.count + 1);
      break;
  }
}

void Stepper::begin_number(const BoundedNumberNode& node, uint32_t id, uint32_t below,
                           uint8_t byte) {
  if (byte == '-' && node.has_negative) put({id, kSign | kNegative, 0, 0}, below);
  if (is_digit(byte) && node.has_positive) step_bounded(node, {id, kSign, 0, 0}, below, byte);
}

// count: the value of the digits before the point; detail: of those behind it.
void Stepper::step_bounded(const BoundedNumberNode& node, Frame frame, uint32_t below,
                           uint8_t byte) {
  const uint32_t sign = frame.state & kNegative, digits = frame.state >> kDigitsShift;
  const NumberPhase phase = NumberPhase(frame.state & 0xff);
  if (byte == '.' && phase == kInteger && node.fraction_digits > 0) {
    frame.state = kPoint | sign;
    put_bounded(node, frame, below);
    return;
  }
  if (!is_digit(byte)) return;
  const uint64_t digit = byte - '0';
  if (phase == kSign || phase == kInteger) {
    // No digit behind a zero, none that would not fit.
    if (phase == kInteger && (frame.count == 0 || frame.count > (UINT64_MAX - digit) / 10)) return;
    frame.count = frame.count * 10 + digit;
    frame.state = kInteger | sign;
    put_bounded(node, frame, below);
  } else if (digits < node.fraction_digits) {
    frame.detail = frame.detail * 10 + digit;
    frame.state = kFraction | sign | (digits + 1) << kDigitsShift;
    put_bounded(node, frame, below);
  }
}

// Puts the frame where some number inside the bounds begins like this, and ends it where it is one.
void Stepper::put_bounded(const BoundedNumberNode& node, const Frame& frame, uint32_t below) {
  const bool negative = frame.state & kNegative;
  const NumberPhase phase = NumberPhase(frame.state & 0xff);
  const Wide least = negative ? node.negative_least : node.positive_least;
  const Wide most = negative ? node.negative_most : node.positive_most;
  const uint64_t m = node.multiple_of;
  const Wide one = power_of_ten(node.fraction_digits);
  const Wide unit = power_of_ten(node.fraction_digits - (frame.state >> kDigitsShift));
  const Wide value = Wide{frame.count} * one + Wide{frame.detail} * unit;
  // What digits behind the point can add; 0 where there are none.
  bool live = meets(value, value + unit - 1, least, most, m);
  if (phase == kInteger && frame.count != 0) {
    // And before it: 10^k numbers with k more digits.
    for (Wide scale = 10; !live && value * scale <= most; scale *= 10) {
      live = meets(value * scale, (value + one) * scale - 1, least, most, m);
    }
  }
  if (live) put(frame, below);
  if (phase != kPoint && meets(value, value, least, most, m)) end(below);
}

// Objects: count is how many declared properties are over, left out or not; one more than there are
// inside an additional one.

void Stepper::begin_name(const ObjectNode& node, Frame frame, uint32_t below) {
  Frame name = in_phase(frame, kName);
  const uint32_t next = uint32_t(frame.count), required = node.next_required[next];
  const auto& values = node.names.at(0).values;
  const auto first = std::lower_bound(values.begin(), values.end(), next);
  if (first != values.end() && *first <= required) put(name, below);
  if (required == node.properties.size() && node.additional != kNoNode) {
    name.state = kOtherName | uint32_t{ByteDfa::kStart} << kSpaceShift;
    put(name, below);
  }
}

void Stepper::step_name(const ObjectNode& node, Frame frame, uint32_t below, uint8_t byte) {
  const uint32_t next = uint32_t(frame.count), required = node.next_required[next];
  const uint32_t child = node.names.child(uint32_t(frame.detail), byte);
  const auto allowed = [&](uint32_t value) { return value >= next && value <= required; };
  if (child != kNoNode) {
    // Some property that may come now is called like this.
    const auto& values = node.names.at(child).values;
    const auto first = std::lower_bound(values.begin(), values.end(), next);
    if (first == values.end() || !allowed(*first)) return;
    frame.detail = child;
    put(frame, below);
  } else if (byte == '"') {
    const ByteTrie::Position& position = node.names.at(uint32_t(frame.detail));
    const uint32_t property = position.value;
    if (property == kNoNode || !allowed(property) ||
        !std::binary_search(position.values.begin(), position.values.end(), property)) {
      return;
    }
    frame.count = property + 1;
    put(in_phase(frame, kAfterName), below);
  }
}

void Stepper::step_other_name(const ObjectNode& node, Frame frame, uint32_t below, uint8_t byte) {
  constexpr uint64_t kApart = UINT64_MAX;  // of all declared names
  const ByteDfa& dfa = grammar_.dfas[Nodes::kPlainString];
  const ByteDfa::State& state = dfa.states[frame.state >> kSpaceShift];
  if (byte == '"' && state.boundary) {
    const bool declared =
        frame.detail != kApart && node.names.at(uint32_t(frame.detail)).value != kNoNode;
    if (declared) return;
    frame.count = node.properties.size() + 1;
    put(in_phase(frame, kAfterName), below);
    return;
  }
  const uint16_t next = state.next[byte];
  if (next == ByteDfa::kDead) return;
  frame.state = kOtherName | uint32_t{next} << kSpaceShift;
  if (frame.detail != kApart) {
    const uint32_t child = node.names.child(uint32_t(frame.detail), byte);
    frame.detail = child == kNoNode ? kApart : child;
  }
  put(frame, below);
}

void Stepper::step_object(const ObjectNode& node, Frame frame, uint32_t below, uint8_t byte) {
  const Phase phase = phase_of(frame);
  if (phase == kName) return step_name(node, frame, below, byte);
  if (phase == kOtherName) return step_other_name(node, frame, below, byte);
  if (step_space(frame, byte)) return put(frame, below);
  const uint64_t declared = node.properties.size();
  const uint32_t next = uint32_t(std::min(frame.count, declared));
  switch (phase) {
    case kOpen:
    case kAfterValue:
      if (byte == '}' && node.next_required[next] == declared) end(below);
      if (phase == kOpen && byte == '"') begin_name(node, frame, below);
      if (phase == kAfterValue && byte == ',' && node.has_next[next]) {
        frame.count = next;
        put(in_phase(frame, kAfterComma), below);
      }
      break;
    case kAfterComma:
      if (byte == '"') begin_name(node, frame, below);
      break;
    case kAfterName:
      if (byte == ':') put(in_phase(frame, kBeforeValue), below);
      break;
    case kBeforeValue: {
      const uint32_t value =
          frame.count > declared ? node.additional : node.properties[frame.count - 1].value;
      frame.count = next;
      begin(value, sets_.intern({in_phase(frame, kAfterValue), below}), byte);
      break;
    }
    default: break;
  }
}

// Arrays: count is how many items there are; without a limit no more than make a difference.

void Stepper::step_array(const ArrayNode& node, Frame frame, uint32_t below, uint8_t byte) {
  if (step_space(frame, byte)) return put(frame, below);
  const Phase phase = phase_of(frame);
  if (byte == ']' && phase != kAfterComma) {
    if (frame.count >= node.least) end(below);
    return;
  }
  if (phase == kAfterValue) {
    if (byte == ',' && frame.count < node.most) put(in_phase(frame, kAfterComma), below);
    return;
  }
  if (frame.count >= node.most) return;
  const uint32_t value = frame.count < node.prefix.size() ? node.prefix[frame.count] : node.items;
  ++frame.count;
  if (node.most == kNoLimit) {
    frame.count = std::min(frame.count, std::max<uint64_t>(node.least, node.prefix.size()));
  }
  begin(value, sets_.intern({in_phase(frame, kAfterValue), below}), byte);
}

}  // namespace hadal::runtime::grammar
