// From all readings of a text to all readings of the text with one more byte. Every reading can be
// completed: what leads nowhere is dropped as it begins.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "nodes.h"
#include "stack_sets.h"

namespace hadal::runtime::grammar {

// A place inside a string, as far as bytes that cannot end it go.
struct InString {
  uint32_t dfa = 0;
  uint16_t state = 0;
  uint64_t characters = 0;  // without a limit no more than `least`: more are all the same
  uint64_t least = 0, most = kNoLimit;
  const LengthTable* table = nullptr;
};

class Stepper {
 public:
  explicit Stepper(const Nodes& grammar);

  // Before the first byte.
  [[nodiscard]] uint32_t start() const { return start_; }
  // Behind `byte`; StackSets::kNothing: no document goes on like this.
  [[nodiscard]] uint32_t step(uint32_t set, uint8_t byte);
  // Whether the text is a document.
  [[nodiscard]] bool complete(uint32_t set) const;
  [[nodiscard]] StackSets& sets() { return sets_; }
  // Where in a string the frame is, if in one.
  [[nodiscard]] std::optional<InString> in_string(const Frame& frame) const;
  // Whether a string may go on from there to its end; limits `characters` as it may be limited.
  [[nodiscard]] static bool can_be_completed(const ByteDfa& dfa, InString& place);

 private:
  void put(const Frame& frame, uint32_t below) { out_.push_back({frame, below}); }
  // A node's text has ended: the stacks below go on.
  void end(uint32_t below);
  // A node's text begins with `byte`, the stacks of `below` go on behind it.
  void begin(uint32_t node, uint32_t below, uint8_t byte);
  void begin_number(const BoundedNumberNode& node, uint32_t id, uint32_t below, uint8_t byte);
  void step_string(const StringNode& node, Frame frame, uint32_t below, uint8_t byte);
  void step_bounded(const BoundedNumberNode& node, Frame frame, uint32_t below, uint8_t byte);
  void put_bounded(const BoundedNumberNode& node, const Frame& frame, uint32_t below);
  void step_free_number(Frame frame, uint32_t below, uint8_t byte);
  void step_literal(const LiteralNode& node, Frame frame, uint32_t below, uint8_t byte);
  void step_object(const ObjectNode& node, Frame frame, uint32_t below, uint8_t byte);
  void step_name(const ObjectNode& node, Frame frame, uint32_t below, uint8_t byte);
  void step_other_name(const ObjectNode& node, Frame frame, uint32_t below, uint8_t byte);
  void begin_name(const ObjectNode& node, Frame frame, uint32_t below);
  void step_array(const ArrayNode& node, Frame frame, uint32_t below, uint8_t byte);
  // White space where a frame with `state` allows it: the state's run grows.
  bool step_space(Frame& frame, uint8_t byte) const;

  const Nodes& grammar_;
  StackSets sets_;
  std::vector<StackSets::Entry> out_;
  std::vector<StackSets::Entry> from_;
  uint32_t start_ = 0, end_ = 0;
};

}  // namespace hadal::runtime::grammar
