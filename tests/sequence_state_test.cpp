// A request as bytes: round trips, every refusal by name, and bytes of a hostile peer.
#include "hadal/runtime/sequence_state.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "hadal/model/fingerprint.h"
#include "support/fuzz.h"
#include "support/random.h"

namespace hadal::runtime {
namespace {

using Bytes = std::vector<std::byte>;

SequenceState some_state() {
  SequenceState state;
  state.cache = {0x123456789abcdef0u, CacheFormat::kFp8, 64, 3, 1, 48, true};
  for (uint32_t i = 0; i < 75; ++i) state.ids.push_back(1000 + i);
  state.prompt_tokens = 70, state.length = 200, state.computed = 74, state.priority = -3;
  state.sampling = {
      0.75f, 40, 0.9f, 0.05f, 0xfedcba9876543210u, 1.5f, -0.25f, 2.0f, {{9, 3.5f}, {11, -100.0f}}};
  state.logprobs = 5, state.masked = true;
  state.stop_ids = {1, 2}, state.drafts = {7}, state.stop = {"end", "\n\n"};
  return state;
}

Bytes written(const SequenceState& state) {
  auto bytes = write_sequence_state(state, [](std::span<std::byte> rows) {
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = std::byte(i * 7);
    return Status();
  });
  EXPECT_TRUE(bytes.ok()) << bytes.status().message();
  return std::move(bytes).value();
}

void put(Bytes& bytes, size_t at, uint64_t value, size_t count) {
  for (size_t i = 0; i < count; ++i) bytes[at + i] = std::byte(value >> (8 * i));
}

// With the checksum of what the bytes are now, as an attacker would send them.
void seal(Bytes& bytes) {
  put(bytes, 24, model::xxh64(std::span(bytes).subspan(kSequenceHeaderBytes)), 8);
}

std::string message(const Bytes& bytes) {
  return parse_sequence_state(bytes).status().message();
}

uint64_t hash(std::string_view text) {
  return model::xxh64(std::as_bytes(std::span(text)));
}

// Values that the reference implementation publishes or prints.
TEST(SequenceStateHost, ChecksumIsXxh64) {
  EXPECT_EQ(hash(""), 0xEF46DB3751D8E999u);
  EXPECT_EQ(hash("a"), 0xD24EC4F1A98C6E5Bu);
  EXPECT_EQ(hash("abc"), 0x44BC2CF5AD770999u);
  EXPECT_EQ(hash("Nobody inspects the spammish repetition"), 0xFBCEA83C8A378BF1u);
}

TEST(SequenceStateHost, ComesBackAsItWas) {
  const SequenceState state = some_state();
  const Bytes bytes = written(state);
  const auto said = sequence_state_bytes(std::span(bytes).first(kSequenceHeaderBytes));
  ASSERT_TRUE(said.ok());
  EXPECT_EQ(*said, bytes.size());
  EXPECT_LE(bytes.size(), most_sequence_bytes(state.cache, 75));
  const auto parsed = parse_sequence_state(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  EXPECT_TRUE(check_same_cache(parsed->cache, state.cache).ok());
  EXPECT_EQ(parsed->cache.mtp_layers, 1u);
  EXPECT_EQ(parsed->ids, state.ids);
  EXPECT_EQ(parsed->prompt_tokens, 70u);
  EXPECT_EQ(parsed->length, 200u);
  EXPECT_EQ(parsed->computed, 74u);
  EXPECT_EQ(parsed->priority, -3);
  EXPECT_EQ(parsed->sampling.temperature, 0.75f);
  EXPECT_EQ(parsed->sampling.top_k, 40u);
  EXPECT_EQ(parsed->sampling.top_p, 0.9f);
  EXPECT_EQ(parsed->sampling.min_p, 0.05f);
  EXPECT_EQ(parsed->sampling.seed, 0xfedcba9876543210u);
  EXPECT_EQ(parsed->sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(parsed->sampling.presence_penalty, -0.25f);
  EXPECT_EQ(parsed->sampling.frequency_penalty, 2.0f);
  ASSERT_EQ(parsed->sampling.logit_bias.size(), 2u);
  EXPECT_EQ(parsed->sampling.logit_bias[1].id, 11u);
  EXPECT_EQ(parsed->sampling.logit_bias[1].value, -100.0f);
  EXPECT_EQ(parsed->logprobs, 5u);
  EXPECT_TRUE(parsed->masked);
  EXPECT_EQ(parsed->stop_ids, state.stop_ids);
  EXPECT_EQ(parsed->drafts, state.drafts);
  EXPECT_EQ(parsed->stop, state.stop);
  ASSERT_EQ(parsed->rows.size(), 74u * 4 * 48);
  for (size_t i = 0; i < parsed->rows.size(); ++i) ASSERT_EQ(parsed->rows[i], std::byte(i * 7));
}

// The order of bytes in the header's comment, read by hand.
TEST(SequenceStateHost, TheLayoutIsTheDocumentedOne) {
  const Bytes bytes = written(some_state());
  const auto at = [&](size_t offset, size_t count) {
    uint64_t value = 0;
    for (size_t i = count; i-- > 0;) value = value << 8 | uint64_t(bytes[offset + i]);
    return value;
  };
  EXPECT_EQ(std::memcmp(bytes.data(), "HADALSEQ", 8), 0);
  EXPECT_EQ(at(8, 4), 1u);
  EXPECT_EQ(at(12, 4) + at(16, 8) + 32, bytes.size());
  EXPECT_EQ(at(16, 8), 74u * 4 * 48);
  EXPECT_EQ(at(32, 8), 0x123456789abcdef0u);
  EXPECT_EQ(at(40, 4), 2u);  // fp8
  EXPECT_EQ(at(44, 4), 64u);
  EXPECT_EQ(at(48, 4), 3u);
  EXPECT_EQ(at(52, 4), 1u);
  EXPECT_EQ(at(56, 4), 48u);
  EXPECT_EQ(at(60, 4), 3u);  // rounded latents, masked
  EXPECT_EQ(at(64, 4), 70u);
  EXPECT_EQ(at(68, 4), 200u);
  EXPECT_EQ(at(72, 4), 74u);
  EXPECT_EQ(at(76, 4), 0xfffffffdu);
  EXPECT_EQ(at(80, 4), 75u);
  EXPECT_EQ(at(84, 4), 1000u);
}

TEST(SequenceStateHost, RefusesByName) {
  const Bytes good = written(some_state());
  const auto changed = [&](size_t at, uint64_t value, size_t count) {
    Bytes bytes = good;
    put(bytes, at, value, count);
    if (at >= kSequenceHeaderBytes) seal(bytes);
    return message(bytes);
  };
  EXPECT_EQ(message({}), "sequence_state: a header has 32 bytes, got 0");
  EXPECT_EQ(changed(0, 'h', 1), "sequence_state: the bytes must begin with HADALSEQ");
  EXPECT_EQ(changed(8, 2, 4), "sequence_state: version must be 1, got 2");
  EXPECT_NE(changed(12, 4, 4).find("the header says "), std::string::npos);
  EXPECT_EQ(changed(16, UINT64_MAX, 8),
            "sequence_state: rows must be at most 2^62 bytes, got 18446744073709551615");
  for (const size_t length : {good.size() - 1, size_t{32}, size_t{200}}) {
    EXPECT_EQ(message(Bytes(good.begin(), good.begin() + length)),
              "sequence_state: the header says " + std::to_string(good.size()) + " bytes, got " +
                  std::to_string(length));
  }
  Bytes longer = good;
  longer.push_back({});
  EXPECT_NE(message(longer).find("the header says "), std::string::npos);
  Bytes damaged = good;
  damaged.back() ^= std::byte{1};
  EXPECT_EQ(message(damaged),
            "sequence_state: the bytes must have the header's checksum; they were damaged on the "
            "way");
  EXPECT_EQ(changed(40, 3, 4),
            "sequence_state: the cache's format and flags must be at most 2 and 3, got 3 and 3");
  EXPECT_EQ(changed(60, 4, 4),
            "sequence_state: the cache's format and flags must be at most 2 and 3, got 2 and 4");
  EXPECT_EQ(changed(44, 0, 4), "sequence_state: page tokens must be 1 to 1048576, got 0");
  EXPECT_EQ(changed(48, 0, 4), "sequence_state: layers must be 1 to 4096, got 0");
  EXPECT_EQ(changed(52, 5000, 4), "sequence_state: MTP layers must be 0 to 4096, got 5000");
  EXPECT_EQ(changed(56, 0, 4), "sequence_state: row bytes must be 1 to 1048576, got 0");
  EXPECT_EQ(changed(64, 0, 4), "sequence_state: prompt tokens must be 1 to 75, got 0");
  EXPECT_EQ(changed(64, 76, 4), "sequence_state: prompt tokens must be 1 to 75, got 76");
  EXPECT_EQ(changed(68, 75, 4), "sequence_state: length must be 76 to 4294967295, got 75");
  EXPECT_EQ(changed(72, 75, 4), "sequence_state: computed rows must be 0 to 74, got 75");
  EXPECT_EQ(changed(72, 73, 4),
            "sequence_state: 73 computed rows must have 14016 bytes, got 14208");
  for (const uint32_t count : {74u, 77u, 0xffffffffu}) {
    EXPECT_NE(changed(80, count, 4).find("the description's "), std::string::npos);
  }
}

TEST(SequenceStateHost, OtherCachesAreRefusedByName) {
  const CacheIdentity own = some_state().cache;
  const auto difference = [&](auto change) {
    CacheIdentity other = own;
    change(other);
    return check_same_cache(other, own).message();
  };
  EXPECT_EQ(difference([](CacheIdentity&) {}), "");
  EXPECT_EQ(difference([](CacheIdentity& c) { c.mtp_layers = 0; }), "");
  EXPECT_EQ(difference([](CacheIdentity& c) { c.model = 1; }),
            "sequence_state: the model's fingerprint must be 123456789abcdef0, got "
            "0000000000000001");
  EXPECT_EQ(difference([](CacheIdentity& c) { c.format = CacheFormat::kF32; }),
            "sequence_state: the cache's format must be fp8, got f32");
  EXPECT_EQ(difference([](CacheIdentity& c) { c.page_tokens = 32; }),
            "sequence_state: tokens of a page must be 64, got 32");
  EXPECT_EQ(difference([](CacheIdentity& c) { c.layers = 4; }),
            "sequence_state: the cache's layers must be 3, got 4");
  EXPECT_EQ(difference([](CacheIdentity& c) { c.mtp_layers = 2; }),
            "sequence_state: the cache's MTP layers must be 1, got 2");
  EXPECT_EQ(difference([](CacheIdentity& c) { c.row_bytes = 64; }),
            "sequence_state: bytes of a row must be 48, got 64");
  EXPECT_EQ(difference([](CacheIdentity& c) { c.rounded_latents = false; }),
            "sequence_state: rounding of latents must be true, got false");
}

TEST(SequenceStateHost, StatesThatCannotBeAreNotWritten) {
  SequenceState state = some_state();
  state.computed = 75;
  EXPECT_EQ(
      write_sequence_state(state, [](std::span<std::byte>) { return Status(); }).status().message(),
      "sequence_state: computed rows must be 0 to 74, got 75");
}

// Mutations with a right checksum: parsed to something that keeps the rules, or refused.
TEST(SequenceStateHost, HostileBytesNeverCrash) {
  const Bytes good = written(some_state());
  const size_t description = good.size() - 74u * 4 * 48;
  test::Random random(31);
  uint32_t accepted = 0, refused = 0;
  for (hadal::testing::FuzzRounds rounds(20000); rounds.next();) {
    Bytes bytes = good;
    for (uint32_t n = 1 + random.below(4); n > 0; --n) {
      const size_t at = random.below(uint32_t(random.below(8) ? description : bytes.size()));
      switch (random.below(4)) {
        case 0: bytes[at] ^= std::byte(1 << random.below(8)); break;
        case 1: bytes[at] = std::byte(random.below(2) ? 255 : 0); break;
        case 2:
          put(bytes, std::min(at, bytes.size() - 4), random.below(2) ? ~0u : random.below(300), 4);
          break;
        default: bytes.resize(std::max<size_t>(at, 1)); break;
      }
      if (bytes.size() < description) break;
    }
    if (bytes.size() >= kSequenceHeaderBytes && random.below(8)) {
      seal(bytes);
      // Sizes that agree, so that the fields are reached.
      if (random.below(2) && bytes.size() >= description) {
        put(bytes, 8, 1, 4), put(bytes, 12, description - 32, 4);
        put(bytes, 16, bytes.size() - description, 8);
      }
    }
    const auto parsed = parse_sequence_state(bytes);
    if (!parsed.ok()) {
      ++refused;
      ASSERT_FALSE(parsed.status().message().empty());
      continue;
    }
    ++accepted;
    ASSERT_LT(parsed->computed, parsed->ids.size());
    ASSERT_LE(parsed->prompt_tokens, parsed->ids.size());
    ASSERT_GT(parsed->length, parsed->ids.size());
    ASSERT_EQ(parsed->rows.size(), sequence_rows_bytes(parsed->cache, parsed->computed));
    ASSERT_LE(parsed->ids.size() * 4, bytes.size());
  }
  EXPECT_GT(accepted, 1000u);
  EXPECT_GT(refused, 1000u);
}

}  // namespace
}  // namespace hadal::runtime
