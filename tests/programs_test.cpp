// The built programs as a hostile user meets them: every kind of bad input ends with exit code 2,
// one line on standard error that names what is wrong, nothing on standard output and no file left
// behind, soon and in bounded memory. ProgramsHost needs no device; ProgramsGpu runs its children
// through HADAL_TEST_LAUNCHER. Bad checkpoints are programs_checkpoint_test.cpp's.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstring>
#include <fstream>

#include "hadal/device.h"
#include "support/damaged_model.h"
#include "support/programs.h"

namespace hadal::test {
namespace {

namespace fs = std::filesystem;
using hadal::testing::read_file;
using hadal::testing::TempDir;
using hadal::testing::write_file;
using nlohmann::json;

const std::string kGenerate = HADAL_GENERATE, kEval = HADAL_EVAL, kInfo = HADAL_INFO,
                  kTokenize = HADAL_TOKENIZE, kTune = HADAL_TUNE;

std::string text(const fs::path& path) {
  return path.string();
}

TEST(ProgramsHost, OptionValues) {
  const std::string fables = text(fables_dir());
  const auto generate = [&](std::vector<std::string> rest, const std::string& part) {
    rest.insert(rest.begin(), {kGenerate, fables});
    expect_refused(rest, part);
  };
  generate({"--bogus"}, "--bogus");
  generate({"--temperature", "-1"}, "temperature must be at least 0, got -1");
  generate({"--temperature", "nan"}, "temperature must be at least 0, got nan");
  generate({"--temperature", "1e999"}, "temperature must be at least 0, got inf");
  generate({"--temperature", "hot"}, "--temperature");
  generate({"--top-p", "0"}, "top_p must be above 0");
  generate({"--top-p", "1.5"}, "top_p must be above 0");
  generate({"--min-p", "2"}, "min_p must be 0 to 1");
  generate({"--top-k", "-1"}, "--top-k");
  generate({"--seed", "18446744073709551616"}, "--seed");
  generate({"--seed", "x"}, "--seed");
  generate({"--repetition-penalty", "0"}, "repetition_penalty must be above 0");
  generate({"--presence-penalty", "2.5"}, "presence_penalty must be -2 to 2, got 2.5");
  generate({"--frequency-penalty", "-3"}, "frequency_penalty must be -2 to 2, got -3");
  for (const char* bias : {"5", "5=", "=1", "x=1", "5=1x", "-5=1", "5:1"}) {
    generate({"--logit-bias", bias}, std::string("must be ID=VALUE, got '") + bias + "'");
  }
  generate({"--logit-bias", "5=101"}, "logit_bias must be -100 to 100, got 101");
  generate({"--logit-bias", "5=1,6=2", "--logit-bias", "5=3"}, "must be different, got 5 twice");
  generate({"--logit-bias", "4294967295=1"}, "ids of logit_bias must be below");
  generate({"--logprobs", "3"}, "--prompts");
  generate({"--prompts", "x", "--logprobs", "21"}, "--logprobs");
  generate({"-n", "-3"}, "--max-new-tokens");
  generate({"--chunk", "0"}, "--chunk");
  generate({"--chunk", "65537"}, "--chunk");
  generate({"--cache", "f16"}, "--cache");
  generate({"--context", "4294967296"}, "--context");
  generate({"--context", "2049"}, "--context: must be at most the model's 2048, got 2049");
  generate({"prompt", "--ids", "1"}, "--ids");
  generate({"--ids", ""}, "the text must have at least one token, got 0");
  generate({"--ids", "1,x"}, "--ids: must be numbers below 2^32 with commas between, got 'x'");
  generate({"--ids", "1,2,"}, "got ''");
  generate({"--ids", "-1"}, "got '-1'");
  generate({"--ids", "4294967296"}, "got '4294967296'");
  generate({"--ids", "1,2048"},
           "token ids must be below the vocabulary's 2048, got 2048 at index 1");
  generate({""}, "the text must have at least one token, got 0");
  generate({"--prompt-file", "/dev/null"}, "the text must have at least one token, got 0");
  generate({"--prompt-file", "/dev/zero"}, "/dev/zero: text must be at most 256.0 MiB");
  generate({"--prompt-file", "/"}, "/: cannot be read");
  generate({"--prompt-file", "/nonexistent"}, "/nonexistent: cannot be read");
  generate({"a\xff"}, "UTF-8");
  expect_refused({kGenerate}, "MODEL_DIR");
  expect_refused({kEval, fables}, "--ids or --text");
  expect_refused({kEval, fables, "--ids", "1", "--text", "x"}, "excludes");
  expect_refused({kEval, fables, "--ids", "2048"}, "must be below the vocabulary's 2048, got 2048");
  expect_refused({kEval, fables, "--ids", ""}, "at least one token");
  expect_refused({kEval, fables, "--text", "/dev/null"}, "at least one token");
  expect_refused({kEval, fables, "--ids", "1", "--backend", "cuda"}, "--backend");
  expect_refused({kInfo, fables, "--context", "2049"}, "at most the model's 2048, got 2049");
}

// 4 layers and one of MTP of 64 + 16 channels: 320, 160 and 112 bytes a position and layer.
TEST(ProgramsHost, EveryCacheFormatIsTaken) {
  for (const auto& [word, plan] : {std::pair{"f32", "f32 cache of 2048 positions 6.2 MiB"},
                                   {"bf16", "bf16 cache of 2048 positions 3.1 MiB"},
                                   {"fp8", "fp8 cache of 2048 positions 2.0 MiB"}}) {
    const std::string fables = text(fables_dir());
    const ChildResult info = run_child({kInfo, fables, "--cache", word}, host_options());
    EXPECT_EQ(info.code, 0) << info.errors;
    EXPECT_NE(info.output.find(plan), std::string::npos) << info.output;
    const ChildResult eval = run_child(
        {kEval, fables, "--ids", "1,2", "--backend", "reference", "--cache", word}, host_options());
    EXPECT_EQ(eval.code, 0) << eval.errors;
  }
}

TEST(ProgramsHost, TuneRefusesBadOptionsBeforeItMeasures) {
  TempDir dir;
  const std::string out = text(dir / "tuning.txt");
  expect_refused({kTune}, "--out");
  for (const char* shape : {"4x4", "0x4x4", "4x4x4x4", "axbxc", "4x4x", "4x4x1048577"}) {
    expect_refused({kTune, "--out", out, "--shape", shape}, "--shape: must be MxNxK");
  }
  expect_refused({kTune, "--out", text(dir / "no" / "file")}, "directory that exists");
  expect_refused({kTune, "--out", text(dir.path())}, "must be a file");
  expect_refused({kTune, "--out", out, "--experts", "1025"}, "--experts");
  EXPECT_FALSE(fs::exists(out));
}

TEST(ProgramsGpu, TuneWritesOneChoicePerShape) {
  TempDir dir;
  const std::string out = text(dir / "tuning.txt");
  const std::vector<std::string> dense = {kTune,     "--out",    out,       "--seconds", "0",
                                          "--shape", "1x40x130", "--shape", "3x40x130"};
  std::vector<std::string> grouped = {kTune, "--out", out, "--seconds", "0", "--shape", "2x40x130"};
  grouped.insert(grouped.end(), {"--experts", "3"});
  for (const auto& [command, ending] :
       {std::pair(dense, "end 2\n"), std::pair(grouped, "end 1\n")}) {
    const ChildResult r = run_child(command, device_options());
    EXPECT_EQ(r.code, 0) << r.errors;
    EXPECT_EQ(r.output.find("WRONG"), std::string::npos) << r.output;
    std::ifstream in(out);
    const std::string file{std::istreambuf_iterator<char>(in), {}};
    EXPECT_TRUE(file.starts_with("hadal-tuning 1\n")) << file;
    EXPECT_TRUE(file.ends_with(ending)) << file;
  }
}

TEST(ProgramsHost, TextsLongerThanTheContext) {
  std::string ids = "1";
  for (int i = 1; i < 2048; ++i) ids += ",1";
  const std::string fables = text(fables_dir());
  expect_refused({kGenerate, fables, "--ids", ids},
                 "shorter than the context of 2048 tokens, got 2048");
  expect_refused({kGenerate, fables, "--ids", "1,2,3", "--context", "3"},
                 "shorter than the context of 3 tokens, got 3");
  expect_refused({kEval, fables, "--ids", ids + ",1"},
                 "must fit the context of 2048 tokens, got 2049");
  expect_refused({kEval, fables, "--ids", ids + ",1", "--perplexity", "--window", "2049"},
                 "the window must fit the context of 2048 tokens, got 2049");
}

TEST(ProgramsHost, OutputFilesThatCannotBeWritten) {
  TempDir dir;
  const std::string fables = text(fables_dir());
  for (const char* option : {"--dump-logits", "--dump-mtp-logits"}) {
    expect_refused({kEval, fables, "--ids", "1", option, text(dir / "no/file")},
                   std::string(option) + ": " + text(dir / "no/file") + " must lie in a directory");
    expect_refused({kEval, fables, "--ids", "1", option, text(dir.path())}, "got a directory");
  }
  expect_refused(
      {kEval, fables, "--ids", "1", "--backend", "reference", "--dump-logits", "/dev/full"},
      "/dev/full: cannot be written");
  EXPECT_FALSE(fs::is_regular_file("/dev/full"));
  // What fails behind the check leaves nothing behind either.
  expect_refused({kEval, fables, "--ids", "4000", "--dump-logits", text(dir / "x")}, "vocabulary");
  EXPECT_TRUE(fs::is_empty(dir.path()));
  const ChildResult r = run_child(
      {kEval, fables, "--ids", "1,2", "--backend", "reference", "--dump-logits", text(dir / "x")},
      host_options());
  EXPECT_EQ(r.code, 0) << r.errors;
  EXPECT_EQ(fs::file_size(dir / "x"), 2u * 2048 * 4);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), 1);
}

TEST(ProgramsHost, TokenizeInput) {
  ChildOptions options = host_options();
  options.input = "12 x";
  const auto refused = [&](const char* flag, const std::string& input, const char* part) {
    options.input = input;
    const ChildResult r = run_child({kTokenize, text(fables_dir()), flag}, options);
    expect_one_line(r, 2);
    EXPECT_NE(r.errors.find(part), std::string::npos) << r.errors;
  };
  refused("--decode", "12 x", "ids must be integers");
  refused("--decode", "2048", "2048");
  refused("--decode", "99999999999999", "ids must be integers");
  refused("--special", "a\xff", "UTF-8");
  refused("--json", "{\n", "a line must be a JSON string");
  refused("--json", std::string(100000, '['), "a line must be a JSON string");
}

TEST(ProgramsHost, NoVulkanDevice) {
  ChildOptions options = host_options();
  options.environment.insert(options.environment.end(),
                             {"VK_DRIVER_FILES=/dev/null", "VK_ICD_FILENAMES=/dev/null"});
  expect_refused({kInfo}, "no Vulkan driver was found", options);
  expect_refused({kGenerate, text(fables_dir())}, "no Vulkan driver was found", options);
  expect_refused({kEval, text(fables_dir()), "--ids", "1"}, "no Vulkan driver was found", options);
}

// No driver here lacks one; what Device::create and hadal-info ask is asked of made-up devices.
TEST(ProgramsHost, ADeviceWithoutANeededFeature) {
  const std::pair<bool Caps::*, const char*> features[] = {
      {&Caps::buffer_device_address, "bufferDeviceAddress"},
      {&Caps::shader_int64, "shaderInt64"},
      {&Caps::storage_buffer_8bit, "storageBuffer8BitAccess"},
      {&Caps::storage_buffer_16bit, "storageBuffer16BitAccess"},
      {&Caps::scalar_block_layout, "scalarBlockLayout"},
      {&Caps::timeline_semaphore, "timelineSemaphore"},
      {&Caps::subgroup_arithmetic, "subgroup arithmetic in compute shaders"}};
  EXPECT_EQ(missing_requirement(minimum_caps()), "");
  for (const auto& [feature, name] : features) {
    Caps caps = minimum_caps();
    caps.*feature = false;
    EXPECT_EQ(missing_requirement(caps), name);
  }
}

TEST(ProgramsHost, AClosedOrFullStandardOutput) {
  const std::string shell = "/bin/sh";
  for (const std::string& program : {kInfo, kTokenize}) {
    const ChildResult full = run_child(
        {shell, "-c", program + " " + text(fables_dir()) + " >/dev/full"}, host_options());
    expect_one_line(full, 2);
    EXPECT_NE(full.errors.find("standard output cannot be written"), std::string::npos);
    const ChildResult closed =
        run_child({shell, "-c", program + " " + text(fables_dir()) + " >&- 2>&-"}, host_options());
    EXPECT_EQ(closed.signal, 0);
  }
}

TEST(ProgramsGpu, UnknownDevices) {
  const std::string fables = text(fables_dir());
  expect_refused({kGenerate, fables, "--device", "no such"}, "no device named like 'no such'",
                 device_options());
  expect_refused({kGenerate, fables, "--device", "99"}, "index must be below", device_options());
  expect_refused({kEval, fables, "--ids", "1", "--device", "99999999999999999999"},
                 "no device named", device_options());
}

TEST(ProgramsGpu, TooLittleMemoryIsRefusedWithTheNumbers) {
  TempDir dir;
  for (const auto& entry : fs::directory_iterator(fables_dir())) {
    if (entry.path().filename() != "config.json") {
      fs::create_symlink(entry.path(), dir.path() / entry.path().filename());
    }
  }
  json config = json::parse(read_file(fables_dir() / "config.json"));
  config["max_position_embeddings"] = 1 << 25;
  write_file(dir / "config.json", config.dump());
  for (const char* words : {"cache of 33554432 positions", "are needed (weights", "would fit"}) {
    expect_refused({kGenerate, text(dir.path()), "--context", "33554432"}, words, device_options());
  }
  config["max_position_embeddings"] = 1 << 27;  // more keys than workgroups on most devices, too
  write_file(dir / "config.json", config.dump());
  expect_refused({kGenerate, text(dir.path()), "--context", "134217728"}, "", device_options());
}

TEST(ProgramsGpu, StepsLargerThanTheKernelsTake) {
  TempDir dir;
  ModelFiles copy = ModelFiles::read(golden_dir() / "moonlight_bf16");
  copy.config["max_position_embeddings"] = 65536;
  copy.write(dir.path());
  expect_refused({kGenerate, text(dir.path()), "--ids", "1", "--print-ids", "--chunk", "65536"},
                 "must suit the kernels", device_options());
}

TEST(ProgramsGpu, InterruptEndsWithOneLine) {
  ChildOptions options = device_options();
  options.signal_at_output = SIGINT;
  const ChildResult r =
      run_child({kGenerate, text(fables_dir()), "Once", "-n", "2000", "--ignore-eos"}, options);
  expect_one_line(r, 130);
  EXPECT_EQ(r.errors, "hadal-generate: interrupted\n");
  EXPECT_TRUE(r.output.starts_with("Once"));
  EXPECT_TRUE(r.output.ends_with("\n"));
}

}  // namespace
}  // namespace hadal::test
