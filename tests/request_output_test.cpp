// How a request ends, and what text its owner gets, without an engine.
#include "hadal/runtime/request_output.h"

#include <gtest/gtest.h>

namespace hadal::runtime {
namespace {

const model::Tokenizer& tokenizer() {
  static const auto loaded =
      model::Tokenizer::load(HADAL_SOURCE_DIR "/examples/models/fables").value();
  return loaded;
}

uint32_t id_of(const char* token) {
  return *tokenizer().token_to_id(token);
}

RequestOutput output(uint32_t max_tokens, std::vector<uint32_t> stop_ids,
                     std::vector<std::string> stop) {
  return {5, max_tokens, std::move(stop_ids), *TextStream::create(tokenizer(), std::move(stop))};
}

TEST(RequestOutputHost, TheLastTokenEndsByLengthWithTheTextHeldBack) {
  RequestOutput out = output(2, {}, {"abc"});
  EngineToken token = out.token(id_of("a"));
  EXPECT_EQ(token.request, 5u);
  EXPECT_EQ(token.id, id_of("a"));
  EXPECT_TRUE(token.has_token && token.status.ok());
  EXPECT_EQ(token.finish, FinishReason::kNone);
  EXPECT_EQ(token.text, "");
  token = out.token(id_of("b"));
  EXPECT_EQ(token.finish, FinishReason::kLength);
  EXPECT_EQ(token.text, "ab");
}

TEST(RequestOutputHost, AStopStringEndsInFrontOfIt) {
  RequestOutput out = output(10, {}, {"bc"});
  EXPECT_EQ(out.token(id_of("a")).text, "a");
  EXPECT_EQ(out.token(id_of("b")).text, "");
  const EngineToken token = out.token(id_of("c"));
  EXPECT_EQ(token.finish, FinishReason::kStop);
  EXPECT_TRUE(token.has_token);  // it was generated, and counts
  EXPECT_EQ(token.text, "");
}

TEST(RequestOutputHost, AStopStringWinsOverTheLength) {
  RequestOutput out = output(1, {}, {"a"});
  EXPECT_EQ(out.token(id_of("a")).finish, FinishReason::kStop);
}

TEST(RequestOutputHost, AStopIdShowsItsTextUnlessItIsSpecial) {
  RequestOutput out = output(10, {id_of("b")}, {"abc"});
  EXPECT_EQ(out.token(id_of("a")).text, "");
  EngineToken token = out.token(id_of("b"));
  EXPECT_EQ(token.finish, FinishReason::kStop);
  EXPECT_EQ(token.text, "ab");
  out = output(10, {*tokenizer().eos_id()}, {"abc"});
  EXPECT_EQ(out.token(id_of("a")).text, "");
  token = out.token(*tokenizer().eos_id());
  EXPECT_EQ(token.finish, FinishReason::kStop);
  EXPECT_EQ(token.text, "a");
}

TEST(RequestOutputHost, AnEndWithoutATokenGivesTheTextHeldBack) {
  RequestOutput out = output(10, {}, {"abc"});
  EXPECT_EQ(out.token(id_of("a")).text, "");
  const EngineToken end = out.end(FinishReason::kFailed, {Errc::kDeviceLost, "lost"});
  EXPECT_FALSE(end.has_token);
  EXPECT_EQ(end.finish, FinishReason::kFailed);
  EXPECT_EQ(end.status.message(), "lost");
  EXPECT_EQ(end.text, "a");
}

TEST(RequestOutputHost, AnIdThatTheTokenizerLacksFails) {
  RequestOutput out = output(10, {}, {});
  const EngineToken token = out.token(tokenizer().vocab_size());
  EXPECT_EQ(token.finish, FinishReason::kFailed);
  EXPECT_EQ(token.status.code(), Errc::kInvalidArgument);
  EXPECT_TRUE(token.has_token);
}

TEST(RequestOutputHost, WithoutATokenizerThereIsNoText) {
  RequestOutput out(1, 2, {7}, {});
  EXPECT_EQ(out.token(1u << 30).text, "");
  EXPECT_EQ(out.token(7).finish, FinishReason::kStop);
}

}  // namespace
}  // namespace hadal::runtime
