// Requests of any members through an engine, and states that were changed on their way.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "fuzz/engine.h"
#include "fuzz/engine_run.h"
#include "fuzz/numbers.h"
#include "hadal/model/fingerprint.h"
#include "hadal/runtime/sequence_state.h"

namespace hadal::fuzz {

Outcome engine_request(EngineWorld& world, Bytes bytes) {
  ByteSource random(bytes);
  Run run(world.engine(random() % EngineWorld::kKinds), random);
  for (int i = 0; i < 16 && run.fault().empty() && !random.rest().empty(); ++i) {
    switch (random() % 8) {
      case 0: run.cancel(); break;
      case 1: run.move(); break;
      case 2:
      case 3:
        for (uint32_t steps = 1 + random() % 4; steps > 0 && run.fault().empty(); --steps)
          run.step();
        break;
      default: run.add(); break;
    }
  }
  run.end();
  return {.accepted = run.taken() > 0, .fault = run.fault()};
}

namespace {

// The state's description begins behind the header, which says how long it is.
constexpr size_t kDescriptionBytesAt = 12, kRowsBytesAt = 16, kChecksumAt = 24;

template <class T>
void put(std::vector<unsigned char>& bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}

void change_state(std::vector<unsigned char>& state, ByteSource& random) {
  const auto description = [&] {  // a place in it, mostly where the numbers are
    uint32_t bytes = 0;
    std::memcpy(&bytes, state.data() + kDescriptionBytesAt, 4);
    const size_t all = std::min<size_t>(bytes, state.size() - runtime::kSequenceHeaderBytes);
    const uint32_t at = random() % 2 ? random() / 4 * 4 : random();
    return runtime::kSequenceHeaderBytes + (all ? at % all : 0);
  };
  const uint32_t how = random() % 8;
  if (state.size() <= runtime::kSequenceHeaderBytes + 8) return;
  switch (how) {
    case 0: state[random() % state.size()] = uint8_t(random()); break;
    case 1: state[random() % runtime::kSequenceHeaderBytes] = uint8_t(random()); break;
    case 2: state.resize(random() % state.size()); break;
    case 3: {  // a number more or less in the description, which says so
      const auto at = std::ptrdiff_t(description());
      const uint32_t count = 4 * (1 + random() % 2);
      uint32_t length = 0;
      std::memcpy(&length, state.data() + kDescriptionBytesAt, 4);
      if (random() % 2) {
        state.insert(state.begin() + at, count, uint8_t(random()));
        put(state, kDescriptionBytesAt, length + count);
      } else if (length > count && size_t(at) + count < state.size()) {
        state.erase(state.begin() + at, state.begin() + at + count);
        put(state, kDescriptionBytesAt, length - count);
      }
      break;
    }
    case 4: {  // rows that no engine wrote
      const float values[] = {std::numeric_limits<float>::quiet_NaN(),
                              std::numeric_limits<float>::infinity(), 3e38f};
      const size_t at = std::max<size_t>(random() % state.size() / 4 * 4, 400);
      if (at + 4 <= state.size()) put(state, at, values[random() % 3]);
      break;
    }
    default:
      if (const size_t at = description(); at + 4 <= state.size()) {
        put(state, at,
            random() % 4 ? uint32_t(number(random)) : std::bit_cast<uint32_t>(real(random)));
      }
      break;
  }
}

// As an attacker would send it, so that what is behind the checksum is reached.
void sign(std::vector<unsigned char>& state) {
  if (state.size() < runtime::kSequenceHeaderBytes) return;
  const auto all = std::as_bytes(std::span<const unsigned char>(state));
  put(state, kChecksumAt, model::xxh64(all.subspan(runtime::kSequenceHeaderBytes)));
}

// Nothing outside the model may have come in, whatever the bytes say.
std::string accepted_fault(const std::vector<unsigned char>& state) {
  const auto parsed = runtime::parse_sequence_state(std::as_bytes(std::span(state)));
  if (!parsed.ok()) return "bytes that are no state were taken";
  if (parsed->length > EngineWorld::kContext) return "a state longer than the context was taken";
  for (const auto& ids : {parsed->ids, parsed->drafts}) {
    for (const uint32_t id : ids) {
      if (id >= EngineWorld::kVocabulary) return "a token outside the vocabulary was taken";
    }
  }
  return "";
}

}  // namespace

Outcome engine_import(EngineWorld& world, Bytes bytes) {
  ByteSource random(bytes);
  const uint32_t how = random();
  std::vector<unsigned char> state = world.state(how % EngineWorld::kStates);
  for (uint32_t changes = random() % 4; changes > 0; --changes) change_state(state, random);
  if (how / 2 % 2 && state.size() >= runtime::kSequenceHeaderBytes) {
    uint32_t description = 0;
    std::memcpy(&description, state.data() + kDescriptionBytesAt, 4);
    const size_t behind = state.size() - runtime::kSequenceHeaderBytes;
    if (description <= behind) put(state, kRowsBytesAt, uint64_t(behind - description));
  }
  if (how / 4 % 8) sign(state);
  Mask mask = Mask(random() % uint32_t(Mask::kCount));
  Run run(world.engine(how / 32 % EngineWorld::kKinds), random);
  state.shrink_to_fit();
  const bool taken = run.import(state, how / 64 % 4 ? nullptr : &mask);
  if (taken) run.fail(accepted_fault(state));
  for (int i = 0; taken && i < 4 && run.fault().empty(); ++i) run.step();
  if (taken && how / 256 % 4 == 0 && run.fault().empty()) run.move();
  run.end();
  return {.accepted = taken, .fault = run.fault()};
}

}  // namespace hadal::fuzz
