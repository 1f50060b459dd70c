// Requests whose pages go to host memory, and requests that go to another engine: the tokens are
// those of each request alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "support/engine.h"

namespace hadal::test {
namespace {

using runtime::Engine;
using runtime::EngineOptions;
using runtime::EngineRequest;
using runtime::EngineToken;
using runtime::FinishReason;
using runtime::RequestId;
using Bytes = std::vector<std::byte>;

class EngineStateGpu : public GpuTest {};

TEST_F(EngineStateGpu, SwappingChangesNoToken) {
  EngineOptions options;
  options.swap_bytes = 64 << 20, options.always_swap = true;
  const runtime::EngineStats stats = expect_tokens_as_alone(options, 30);
  EXPECT_GT(stats.scheduler.swapped_out_pages, 0u);
  EXPECT_GT(stats.scheduler.swapped_in_pages, 0u);
  EXPECT_GT(stats.scheduler.swap_seconds, 0.0);
  EXPECT_EQ(stats.scheduler.swap_used, 0u);
}

// A space of few pages: some are kept, others computed again. The MTP layer's rows move, too.
TEST_F(EngineStateGpu, SwappingAndSpeculationChangeNoToken) {
  EngineOptions options;
  options.swap_bytes = 1 << 20, options.always_swap = true;
  options.speculate = options.always_draft = true;
  const runtime::EngineStats stats = expect_tokens_as_alone(options, 30);
  EXPECT_GT(stats.scheduler.swapped_out_pages, 0u);
  EXPECT_GT(stats.scheduler.swap_pages, 0u);
  EXPECT_LT(stats.scheduler.swap_pages, 6u);
  EXPECT_GT(stats.accepted_drafts, 0u);
}

void take(Given& given, const EngineToken& token) {
  given.ids.push_back(token.id);
  if (token.logprobs) given.logprobs.push_back(*token.logprobs);
}

Given rest_of(Engine& engine, RequestId id) {
  Given given;
  while (!engine.idle()) {
    const auto tokens = engine.step();
    EXPECT_TRUE(tokens.ok()) << tokens.status().message();
    if (!tokens.ok()) break;
    for (const EngineToken& token : *tokens) {
      if (token.request == id) take(given, token);
    }
  }
  return given;
}

// A prompt of two chunks.
EngineRequest king(bool sampled) {
  EngineRequest request;
  const std::vector<uint32_t> ids = load_golden("fables_king").ids;
  for (size_t i = 0; i < 100; ++i) request.prompt.push_back(ids[i % ids.size()]);
  request.max_new_tokens = 60, request.logprobs = 2;
  if (sampled) request.sampling = {0.9f, 50, 0.95f, 0.0f, 77, 1.2f, 0.5f, 0.1f, {{40, 2.0f}}};
  return request;
}

// Exported after each number of steps, mid-prompt included, and gone on with elsewhere, where the
// pages are others; undisturbed here.
TEST_F(EngineStateGpu, AnExportedRequestGoesOnAsItWouldHave) {
  for (const bool speculate : {false, true}) {
    const CacheFormat format = speculate ? CacheFormat::kFp8 : CacheFormat::kF32;
    SCOPED_TRACE(speculate);
    EngineOptions options;
    options.speculate = options.always_draft = speculate;
    Served here(8, 4, 256, format), there(10, 4, 256, format);
    ASSERT_TRUE(here.model.ok() && there.model.ok());
    Engine from = here.engine(options), to = there.engine(options);
    const EngineRequest request = king(speculate);
    ASSERT_TRUE(to.add(king(false)).ok());  // has the first pages
    for (const int steps : {1, 2, 20}) {
      const auto id = from.add(request);
      ASSERT_TRUE(id.ok()) << id.status().message();
      std::vector<uint32_t> before;
      for (int i = 0; i < steps; ++i) {
        const auto tokens = from.step();
        ASSERT_TRUE(tokens.ok());
        for (const EngineToken& token : *tokens) before.push_back(token.id);
      }
      const auto state = from.export_request(*id);
      ASSERT_TRUE(state.ok()) << state.status().message();
      const auto other = to.import_request(*state);
      ASSERT_TRUE(other.ok()) << other.status().message();
      const Given undisturbed = rest_of(from, *id), moved = rest_of(to, *other);
      EXPECT_TRUE(moved == undisturbed) << "after " << steps;
      EXPECT_EQ(before.size() + moved.ids.size(), 60u);
    }
    EXPECT_EQ(here.pool.stats().used, 0u);
    EXPECT_EQ(there.pool.stats().used, 0u);
  }
}

// Between engines that draft and those that do not: the MTP layer's rows of the prompt go along
// where they are, and a request that came without is drafted for from what is computed here.
TEST_F(EngineStateGpu, RowsOfTheMtpLayerGoAlongWhereTheyAre) {
  Served served(8, 4, 256), other(8, 4, 256);
  ASSERT_TRUE(served.model.ok() && other.model.ok());
  EngineOptions plain, deep;
  deep.speculate = deep.always_draft = true, deep.draft_depth = 3;
  for (const bool from_drafting : {false, true}) {
    SCOPED_TRACE(from_drafting);
    Engine from = served.engine(from_drafting ? deep : plain), to = other.engine(deep);
    EngineRequest request = king(false);
    request.prompt.resize(70), request.max_new_tokens = 120;
    const auto id = from.add(request);
    ASSERT_TRUE(id.ok());
    for (int i = 0; i < 8; ++i) ASSERT_TRUE(from.step().ok());
    const Bytes bytes = from.export_request(*id).value();
    const runtime::SequenceState state = runtime::parse_sequence_state(bytes).value();
    EXPECT_EQ(state.cache.mtp_layers, from_drafting ? 1u : 0u);
    EXPECT_EQ(state.drafts.size(), from_drafting ? 3u : 0u);
    ASSERT_GT(state.computed, 70u);
    if (from_drafting) {
      // The last page's last layer: rows of positions 64 to 69, and zeros behind them.
      const auto rows = state.rows.last(size_t{state.computed - 64} * state.cache.row_bytes);
      const auto zero = [](std::byte b) { return b == std::byte{0}; };
      for (size_t i = 0; i * state.cache.row_bytes < rows.size(); ++i) {
        const auto row = rows.subspan(i * state.cache.row_bytes, state.cache.row_bytes);
        EXPECT_EQ(std::all_of(row.begin(), row.end(), zero), i >= 6) << i;
      }
    }
    const auto moved = to.import_request(bytes);
    ASSERT_TRUE(moved.ok()) << moved.status().message();
    const Bytes again = to.export_request(*moved).value();
    EXPECT_EQ(again, bytes);
    EXPECT_TRUE(rest_of(to, *moved) == rest_of(from, *id));
    EXPECT_GT(to.stats().accepted_drafts, to.stats().decoded_requests / 4);
  }
}

// Prefill here, decode there, with requests that share steps, are preempted and swapped.
TEST_F(EngineStateGpu, PrefillOnlyRequestsGoOnElsewhere) {
  Served single(8, 1, 256), here(6, 4, 256), there(6, 4, 256);
  ASSERT_TRUE(single.model.ok() && here.model.ok() && there.model.ok());
  EngineOptions options;
  options.swap_bytes = 64 << 20, options.always_swap = true, options.aging_steps = 20;
  Engine alone = single.engine({}), prefill = here.engine({}), decode = there.engine(options);
  Random random(8);
  std::map<RequestId, Given> expected, got;
  std::map<RequestId, runtime::TokenMask> masks;
  std::map<RequestId, RequestId> at_decode;  // to the id at prefill
  uint32_t exported = 0, ended = 0;
  for (int i = 0; i < 16; ++i) {
    EngineRequest request = random_request(random, 256);
    const auto plain = alone.add(request);
    ASSERT_TRUE(plain.ok());
    const Given given = rest_of(alone, *plain);
    request.prefill_only = true;
    const auto id = prefill.add(request);
    ASSERT_TRUE(id.ok());
    expected[*id] = given, masks[*id] = request.mask;
  }
  while (!prefill.idle() || !decode.idle()) {
    const auto first = prefill.step();
    ASSERT_TRUE(first.ok());
    for (const EngineToken& token : *first) {
      take(got[token.request], token);
      ASSERT_NE(token.finish, FinishReason::kNone);
      if (token.finish != FinishReason::kExported) {
        EXPECT_FALSE(prefill.export_request(token.request).ok());
        ++ended;
        continue;
      }
      const auto state = prefill.export_request(token.request);
      ASSERT_TRUE(state.ok()) << state.status().message();
      EXPECT_FALSE(prefill.export_request(token.request).ok()) << "handed out once";
      const runtime::TokenMask& mask = masks[token.request];
      if (mask) {
        EXPECT_EQ(decode.import_request(*state).status().message(),
                  "engine: the state's request has a mask, give it again");
      } else {
        const auto any = [](std::span<const uint32_t>, std::span<uint32_t>) { return false; };
        EXPECT_EQ(decode.import_request(*state, any).status().message(),
                  "engine: the state's request has no mask, give none");
      }
      const auto id = decode.import_request(*state, mask);
      ASSERT_TRUE(id.ok()) << id.status().message();
      at_decode[*id] = token.request, ++exported;
    }
    const auto more = decode.step();
    ASSERT_TRUE(more.ok());
    for (const EngineToken& token : *more) take(got[at_decode.at(token.request)], token);
  }
  for (const auto& [id, given] : expected) EXPECT_TRUE(got[id] == given) << id;
  EXPECT_GT(exported, 8u);
  EXPECT_EQ(exported + ended, 16u);
  EXPECT_GT(decode.stats().scheduler.swapped_in_pages, 0u);
  EXPECT_EQ(decode.stats().decoded_rows, decode.stats().decoded_tokens);  // nothing was replayed
}

// A swapped request is exported from host memory, one that waits from the state that it came in.
TEST_F(EngineStateGpu, RequestsThatWaitAreExportedToo) {
  Served here(4, 4, 256), there(8, 4, 256);
  ASSERT_TRUE(here.model.ok() && there.model.ok());
  EngineOptions options;
  options.swap_bytes = 64 << 20, options.always_swap = true;
  Engine from = here.engine(options), to = there.engine({});
  EngineRequest request = king(false);
  const auto low = from.add(request);
  ASSERT_TRUE(low.ok());
  std::vector<uint32_t> before;
  for (int i = 0; i < 12; ++i) {
    const auto tokens = from.step();
    ASSERT_TRUE(tokens.ok());
    for (const EngineToken& token : *tokens) before.push_back(token.id);
  }
  request.priority = 5, request.prompt.assign(190, 9), request.max_new_tokens = 3;
  ASSERT_TRUE(from.add(request).ok());
  ASSERT_TRUE(from.step().ok());
  ASSERT_GT(from.stats().scheduler.swap_used, 0u);
  const auto swapped = from.export_request(*low);
  ASSERT_TRUE(swapped.ok()) << swapped.status().message();
  from.cancel(*low);
  EXPECT_EQ(from.stats().scheduler.swap_used, 0u);
  const auto waiting = to.import_request(*swapped);
  ASSERT_TRUE(waiting.ok());
  const auto again = to.export_request(*waiting);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(*again, *swapped);
  std::vector<uint32_t> all = before;
  const std::vector<uint32_t> rest = rest_of(to, *waiting).ids;
  all.insert(all.end(), rest.begin(), rest.end());
  const auto undisturbed = to.add(king(false));
  ASSERT_TRUE(undisturbed.ok());
  EXPECT_EQ(all, rest_of(to, *undisturbed).ids);
}

TEST_F(EngineStateGpu, RefusesStatesByName) {
  Served here(4, 2, 256), there(4, 2, 128);
  ASSERT_TRUE(here.model.ok() && there.model.ok());
  Engine from = here.engine({}), to = there.engine({});
  EXPECT_EQ(from.export_request(99).status().message(),
            "engine: a request to export must be running, got 99");
  EngineRequest request = king(false);
  request.prompt.resize(40);
  const auto id = from.add(request);
  ASSERT_TRUE(id.ok() && from.step().ok());
  const Bytes good = from.export_request(*id).value();
  const auto changed = [&](auto change) {
    runtime::SequenceState state = runtime::parse_sequence_state(good).value();
    change(state);
    const auto bytes = runtime::write_sequence_state(state, [](std::span<std::byte> rows) {
      std::memset(rows.data(), 0xff, rows.size());
      return Status();
    });
    EXPECT_TRUE(bytes.ok()) << bytes.status().message();
    return to.import_request(*bytes).status().message();
  };
  using State = runtime::SequenceState;
  EXPECT_NE(changed([](State& s) { s.cache.model ^= 1; }).find("the model's fingerprint must be"),
            std::string::npos);
  EXPECT_EQ(changed([](State& s) { s.cache.format = CacheFormat::kBf16; }),
            "sequence_state: the cache's format must be f32, got bf16");
  EXPECT_EQ(changed([](State& s) { s.cache.page_tokens = 16; }),
            "sequence_state: tokens of a page must be 64, got 16");
  EXPECT_EQ(changed([](State& s) { s.length = 129; }),
            "engine: the state's length must be at most the context of 128, got 129");
  EXPECT_EQ(changed([](State& s) { s.ids[3] = 2048; }),
            "engine: the state's token ids must be below 2048, got 2048");
  EXPECT_EQ(changed([](State& s) { s.drafts = {5000}; }),
            "engine: the state's token ids must be below 2048, got 5000");
  EXPECT_NE(changed([](State& s) { s.sampling.top_p = 2.0f; }).find("top_p"), std::string::npos);
  EXPECT_EQ(changed([](State& s) { s.stop = {"end"}; }),
            "engine: the state's stop strings need EngineOptions::tokenizer, got none");
  EXPECT_EQ(changed([](State& s) { s.stop_ids = {s.ids.back()}; }),
            "engine: the state's request has ended already");
  EXPECT_TRUE(to.idle());
  // Rows that are not numbers: tokens nobody can use, but tokens, and nobody else's rows.
  EXPECT_EQ(changed([](State&) {}), "");
  const auto fine = to.add(request), reference = from.add(request);
  ASSERT_TRUE(fine.ok() && reference.ok());
  from.cancel(*id);
  std::map<RequestId, std::vector<uint32_t>> got;
  while (!to.idle()) {
    const auto tokens = to.step();
    ASSERT_TRUE(tokens.ok());
    for (const EngineToken& token : *tokens) {
      ASSERT_LT(token.id, 2048u);
      got[token.request].push_back(token.id);
    }
  }
  EXPECT_EQ(got.size(), 2u);
  EXPECT_EQ(got[*fine], rest_of(from, *reference).ids);
}

}  // namespace
}  // namespace hadal::test
