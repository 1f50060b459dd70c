// hadal-disaggregated: two processes give what one gives, and a peer's bytes are checked.
#include <gtest/gtest.h>

#include <algorithm>

#include "support/programs.h"

namespace hadal::test {
namespace {

using hadal::testing::TempDir;

const std::string kModel = HADAL_SOURCE_DIR "/examples/models/fables";

ChildResult run(std::vector<std::string> arguments, const std::string& input = "",
                const std::string& program = HADAL_DISAGGREGATED) {
  ChildOptions options = device_options();
  options.input = input;
  arguments.insert(arguments.begin(), {program, kModel});
  return run_child(arguments, options);
}

TEST(ProgramsGpu, PrefillAndDecodeInTwoProcessesPrintWhatOnePrints) {
  const std::vector<std::string> common = {"The king said", "-n",  "40",     "--context", "128",
                                           "--temperature", "0.8", "--seed", "3"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), common.begin(), common.end());
    return more;
  };
  const ChildResult one = run(with({"--quiet"}), "", HADAL_GENERATE);
  ASSERT_EQ(one.code, 0) << one.errors;
  for (const std::vector<std::string>& more :
       {std::vector<std::string>{"--check"}, {"--speculate", "--cache", "f32"}}) {
    std::vector<std::string> arguments = with(more);
    arguments.push_back("--quiet");
    const ChildResult two = run(arguments);
    ASSERT_EQ(two.code, 0) << two.errors;
    EXPECT_EQ(two.output, one.output);
    EXPECT_EQ(two.errors.find("check    the same ") == 0, more[0] == "--check") << two.errors;
  }
  // The first token ends the request: there is no state.
  const ChildResult first = run({"The king said", "-n", "1", "--context", "128", "--check"});
  EXPECT_EQ(first.code, 0) << first.errors;
  EXPECT_EQ(first.errors, "check    the same 1 tokens as one engine\n");
}

// The decode role at the end of a pipe whose other end is not to be trusted.
TEST(ProgramsGpu, StatesOfHostilePeersAreRefused) {
  const ChildResult prefill =
      run({"The king said", "-n", "20", "--context", "128", "--role", "prefill"});
  ASSERT_EQ(prefill.code, 0) << prefill.errors;
  const std::string& state = prefill.output;
  ASSERT_EQ(state.substr(0, 8), "HADALSEQ");
  const auto decode = [&](const std::string& bytes, std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"--role", "decode", "--context", "128"});
    const ChildResult r = run(more, bytes);
    EXPECT_EQ(r.code, 2);
    EXPECT_EQ(r.output, "");
    EXPECT_EQ(std::count(r.errors.begin(), r.errors.end(), '\n'), 1) << r.errors;
    return r.errors;
  };
  const std::string name = "hadal-disaggregated: ";
  EXPECT_EQ(decode(""), name + "standard input: a state was expected, got nothing\n");
  EXPECT_EQ(decode("HADALSEQ"), name + "sequence_state: a header has 32 bytes, got 8\n");
  EXPECT_EQ(decode(std::string(100, 'x')),
            name + "sequence_state: the bytes must begin with HADALSEQ\n");
  EXPECT_EQ(decode(state.substr(0, state.size() - 100)),
            name + "sequence_state: the header says " + std::to_string(state.size()) +
                " bytes, got " + std::to_string(state.size() - 100) + "\n");
  EXPECT_NE(decode(state + "x").find("the header says"), std::string::npos);
  std::string changed = state;
  changed[state.size() / 2] ^= 1;
  EXPECT_NE(decode(changed).find("must have the header's checksum"), std::string::npos);
  changed = state, changed[8] = 9;
  EXPECT_EQ(decode(changed), name + "sequence_state: version must be 1, got 9\n");
  changed = state, changed[22] = 1;  // 2^48 bytes more
  EXPECT_NE(decode(changed).find("a state of this model must be at most"), std::string::npos);
  EXPECT_EQ(decode(state, {"--cache", "fp8"}),
            name + "sequence_state: the cache's format must be fp8, got f32\n");
  EXPECT_NE(decode("HADALEND").find("must have 12 bytes"), std::string::npos);
  EXPECT_NE(decode("HADALEND\xff\xff\xff\xff").find("token ids must be below"), std::string::npos);
  const ChildResult good = run({"--role", "decode", "--context", "128"}, state);
  EXPECT_EQ(good.code, 0) << good.errors;
  EXPECT_GT(good.output.size(), 20u);
}

TEST(ProgramsHost, DisaggregatedRefusesByName) {
  const auto message = [](std::vector<std::string> arguments) {
    const ChildResult r = run(std::move(arguments));
    EXPECT_EQ(r.code, 2);
    EXPECT_EQ(std::count(r.errors.begin(), r.errors.end(), '\n'), 1) << r.errors;
    return r.errors;
  };
  EXPECT_EQ(message({"a", "-n", "0"}),
            "hadal-disaggregated: --max-new-tokens: must be at least 1, got 0\n");
  EXPECT_NE(message({std::string(5000, 'x'), "--context", "64"})
                .find("the prompt must be shorter than the context of 64 tokens"),
            std::string::npos);
  EXPECT_NE(message({"--role", "other"}).find("--role"), std::string::npos);
  EXPECT_NE(message({"a", "--top-p", "2"}).find("top_p"), std::string::npos);
}

}  // namespace
}  // namespace hadal::test
