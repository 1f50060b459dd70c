// hadal::model::Checkpoint: what a right checkpoint gives, and that no file content gets further
// than a Status.
#include "hadal/model/safetensors.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "support/fuzz.h"
#include "support/safetensors_writer.h"

namespace hadal::model {
namespace {

using ::hadal::testing::FuzzRounds;
using ::hadal::testing::read_file;
using ::hadal::testing::SafetensorsWriter;
using ::hadal::testing::TempDir;
using ::hadal::testing::write_file;
using ::hadal::testing::write_index;

constexpr const char* kSingle = "model.safetensors";

std::string text_of(const TensorView& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()};
}

// The refusal of a directory, without the directory's name.
std::string refusal(const TempDir& dir, Errc code = Errc::kMalformed) {
  const auto checkpoint = Checkpoint::open(dir.path());
  if (checkpoint.ok()) return "opened";
  EXPECT_EQ(errc_name(checkpoint.status().code()), errc_name(code));
  std::string message = checkpoint.status().message();
  const std::string prefix = dir.path().string() + "/";
  for (size_t at; (at = message.find(prefix)) != std::string::npos;)
    message.erase(at, prefix.size());
  return message;
}

std::string refusal_of_bytes(const std::string& bytes) {
  TempDir dir;
  write_file(dir / kSingle, bytes);
  return refusal(dir);
}

std::string refusal_of(const SafetensorsWriter& writer) {
  return refusal_of_bytes(writer.bytes());
}

TEST(Safetensors, SingleFileGivesItsTensorsInOrderOfOffset) {
  TempDir dir;
  SafetensorsWriter()
      .entry("__metadata__", R"({"format":"pt"})")
      .entry("b", SafetensorsWriter::tensor_json("U8", {3}, 4, 7))
      .entry("a", SafetensorsWriter::tensor_json("BF16", {1, 2}, 0, 4))
      .gap("aaaabbb")
      .write(dir / kSingle);
  const auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  ASSERT_EQ(checkpoint->tensors().size(), 2u);
  EXPECT_EQ(checkpoint->tensors()[0].name, "a");
  EXPECT_EQ(checkpoint->data_bytes(), 7u);
  const TensorView* b = checkpoint->find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->dtype, DType::kU8);
  EXPECT_EQ(b->shape, (std::vector<uint64_t>{3}));
  EXPECT_EQ(text_of(*b), "bbb");
  EXPECT_EQ(b->file, (dir / kSingle).string());
  EXPECT_EQ(checkpoint->find("c"), nullptr);
}

TEST(Safetensors, EveryDtypeHasItsSize) {
  const std::vector<std::pair<std::string, size_t>> sizes = {
      {"F64", 8}, {"I64", 8},  {"U64", 8},  {"F32", 4},    {"I32", 4},     {"U32", 4},
      {"F16", 2}, {"BF16", 2}, {"I16", 2},  {"U16", 2},    {"F8_E4M3", 1}, {"F8_E5M2", 1},
      {"I8", 1},  {"U8", 1},   {"BOOL", 1}, {"F8_E8M0", 1}};
  TempDir dir;
  SafetensorsWriter writer;
  for (const auto& [dtype, size] : sizes) writer.add(dtype, dtype, {3}, std::string(3 * size, 'x'));
  writer.write(dir / kSingle);
  const auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  for (const auto& [dtype, size] : sizes) {
    const TensorView* tensor = checkpoint->find(dtype);
    ASSERT_NE(tensor, nullptr) << dtype;
    EXPECT_EQ(dtype_name(tensor->dtype), dtype);
    EXPECT_EQ(dtype_bytes(tensor->dtype), size);
    EXPECT_EQ(tensor->bytes.size(), 3 * size);
  }
}

TEST(Safetensors, ScalarsEmptyTensorsAndEmptyFilesAreLegal) {
  TempDir dir;
  SafetensorsWriter().add("none", "F32", {0, 4}).add("one", "F32", {}).write(dir / kSingle);
  auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_EQ(checkpoint->find("none")->bytes.size(), 0u);
  EXPECT_EQ(checkpoint->find("one")->bytes.size(), 4u);
  SafetensorsWriter().write(dir / kSingle);
  checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_TRUE(checkpoint->tensors().empty());
  EXPECT_EQ(checkpoint->data_bytes(), 0u);
}

TEST(Safetensors, HeaderMayBePaddedWithSpaces) {
  TempDir dir;
  SafetensorsWriter().header("{}        ").write(dir / kSingle);
  EXPECT_EQ(refusal(dir), "opened");
}

TEST(Safetensors, IndexJoinsShardsAndUnlistedTensorsAreKept) {
  TempDir dir;
  SafetensorsWriter().add("b", "U8", {1}, "b").add("extra", "U8", {1}, "e").write(dir / "2.st");
  SafetensorsWriter().add("a", "U8", {1}, "a").write(dir / "1.st");
  write_index(dir, {{"b", "2.st"}, {"a", "1.st"}});
  const auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  std::string order;
  for (const TensorView& tensor : checkpoint->tensors()) order += text_of(tensor);
  EXPECT_EQ(order, "abe");
}

TEST(Safetensors, MovedCheckpointKeepsItsViews) {
  TempDir dir;
  SafetensorsWriter().add("a", "U8", {2}, "xy").write(dir / kSingle);
  auto opened = Checkpoint::open(dir.path());
  ASSERT_TRUE(opened.ok());
  const TensorView* before = opened->find("a");
  const Checkpoint moved = std::move(opened).value();
  EXPECT_EQ(moved.find("a"), before);
  EXPECT_EQ(text_of(*before), "xy");
}

TEST(Safetensors, ReleasedPagesReadTheSameAgainAndForeignMemoryIsLeftAlone) {
  TempDir dir;
  const std::string data(3 * 4096 + 5, 'q');
  SafetensorsWriter()
      .add("a", "U8", {7}, "neighbo")
      .add("b", "U8", {data.size()}, data)
      .write(dir / kSingle);
  const auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint.ok());
  const TensorView* b = checkpoint->find("b");
  EXPECT_EQ(text_of(*b), data);
  checkpoint->release_pages(b->bytes);
  EXPECT_EQ(text_of(*b), data);
  EXPECT_EQ(text_of(*checkpoint->find("a")), "neighbo");
  std::vector<std::byte> mine(3 * 4096, std::byte{7});
  checkpoint->release_pages(mine);
  checkpoint->release_pages({});
  EXPECT_EQ(mine, std::vector<std::byte>(3 * 4096, std::byte{7}));
}

TEST(Safetensors, TheCheckpointsOfThisProjectOpen) {
  const std::filesystem::path root = HADAL_SOURCE_DIR;
  std::vector<std::filesystem::path> dirs = {root / "examples/models/fables"};
  for (const auto& entry : std::filesystem::directory_iterator(root / "tests/golden")) {
    if (std::filesystem::exists(entry.path() / "config.json")) dirs.push_back(entry.path());
  }
  EXPECT_GE(dirs.size(), 6u);
  for (const auto& dir : dirs) {
    const auto checkpoint = Checkpoint::open(dir);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
    const TensorView* norm = checkpoint->find("model.norm.weight");
    ASSERT_NE(norm, nullptr) << dir;
    EXPECT_EQ(norm->dtype, DType::kBf16) << dir;
    EXPECT_EQ(norm->bytes.size(), 2 * norm->shape[0]) << dir;
  }
}

TEST(SafetensorsRefuses, FilesShorterThanTheirLengthField) {
  EXPECT_EQ(refusal_of_bytes(""), "model.safetensors: size must be at least 8 bytes, got 0");
  EXPECT_EQ(refusal_of_bytes(std::string(7, '\2')),
            "model.safetensors: size must be at least 8 bytes, got 7");
}

TEST(SafetensorsRefuses, HeadersLongerThanTheFileOrTheLimit) {
  EXPECT_EQ(refusal_of(SafetensorsWriter().claim_header_bytes(3)),
            "model.safetensors: header must end inside the file, got 3 > 2 bytes");
  EXPECT_EQ(refusal_of(SafetensorsWriter().claim_header_bytes(100'000'001)),
            "model.safetensors: header must be at most 100000000 bytes, got 100000001");
  EXPECT_EQ(refusal_of(SafetensorsWriter().claim_header_bytes(UINT64_MAX)),
            "model.safetensors: header must be at most 100000000 bytes, got 18446744073709551615");
}

TEST(SafetensorsRefuses, HeadersThatAreNotAnObject) {
  const auto header = [](const std::string& text) {
    return refusal_of(SafetensorsWriter().header(text));
  };
  EXPECT_EQ(header(""), "model.safetensors: header must begin with {, got \"\"");
  EXPECT_EQ(header(" {}"), "model.safetensors: header must begin with {, got \" \"");
  EXPECT_EQ(header("[]"), "model.safetensors: header must begin with {, got \"[\"");
  EXPECT_EQ(header("{"), "model.safetensors: text must be valid JSON, got an error at byte 2");
  EXPECT_EQ(header("{}{}"), "model.safetensors: text must be valid JSON, got an error at byte 3");
  EXPECT_EQ(header(std::string("{}\0", 3)),
            "model.safetensors: text must be valid JSON, got an error at byte 3");
  EXPECT_EQ(header("{\"\xff\":1}"),
            "model.safetensors: text must be valid JSON, got an error at byte 3");
}

struct EntryCase {
  const char* json;     // value of tensor "t", of a file with 8 bytes of data
  const char* message;  // after "model.safetensors: tensor "t" "
};

class SafetensorsEntry : public ::testing::TestWithParam<EntryCase> {};

TEST_P(SafetensorsEntry, IsRefused) {
  EXPECT_EQ(refusal_of(SafetensorsWriter().entry("t", GetParam().json).gap("12345678")),
            std::string("model.safetensors: tensor \"t\" ") + GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    Refusals, SafetensorsEntry,
    ::testing::Values(
        EntryCase{"1", "must be an object, got 1"},
        EntryCase{"null", "must be an object, got null"},
        EntryCase{"[]", "must be an object, got a list"},
        EntryCase{"{}", "dtype must be present, got nothing"},
        EntryCase{R"({"dtype":"U8","shape":[8]})", "data_offsets must be present, got nothing"},
        EntryCase{R"({"dtype":"U8","data_offsets":[0,8]})", "shape must be present, got nothing"},
        EntryCase{R"({"dtype":"U8","dtype":"U8"})", "fields must occur once, got \"dtype\" twice"},
        EntryCase{R"({"offset":1})",
                  "fields must be dtype, shape and data_offsets, got \"offset\""},
        EntryCase{R"({"dtype":"F4"})", "dtype must be one of the known types, got \"F4\""},
        EntryCase{R"({"dtype":8})", "dtype must be a string, got 8"},
        EntryCase{R"({"dtype":["U8"]})", "dtype must be a string, got a list"},
        EntryCase{R"({"dtype":{}})", "dtype must be a string, got an object"},
        EntryCase{R"({"shape":8})", "shape must be a list of whole numbers, got 8"},
        EntryCase{R"({"shape":{}})", "shape must be a list of whole numbers, got an object"},
        EntryCase{R"({"shape":[-8]})", "shape must be a list of whole numbers, got -8"},
        EntryCase{R"({"shape":[8.5]})", "shape must be a list of whole numbers, got 8.5"},
        EntryCase{R"({"shape":["8"]})", "shape must be a list of whole numbers, got \"8\""},
        EntryCase{R"({"shape":[[8]]})", "shape must be a list of whole numbers, got a list"},
        EntryCase{R"({"shape":[true]})", "shape must be a list of whole numbers, got true"},
        EntryCase{R"({"shape":[18446744073709551616]})",
                  "shape must be a list of whole numbers, got 1.8446744073709552e+19"},
        EntryCase{R"({"shape":[1,1,1,1,1,1,1,1,8]})",
                  "shape must have at most 8 dimensions, got more"},
        EntryCase{R"({"data_offsets":[0]})",
                  "data_offsets must be two whole numbers, got 1 of them"},
        EntryCase{R"({"data_offsets":[0,8,8]})",
                  "data_offsets must be two whole numbers, got more"},
        EntryCase{R"({"data_offsets":[-1,7]})", "data_offsets must be two whole numbers, got -1"},
        EntryCase{R"({"dtype":"U8","shape":[8],"data_offsets":[8,0]})",
                  "data_offsets must span 8 bytes (U8 x [8]), got [8,0]"},
        EntryCase{R"({"dtype":"F32","shape":[8],"data_offsets":[0,8]})",
                  "data_offsets must span 32 bytes (F32 x [8]), got [0,8]"},
        EntryCase{R"({"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]})",
                  "size must fit 64 bits, got U8 x [4294967296,4294967296]"},
        EntryCase{R"({"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]})",
                  "size must fit 64 bits, got F64 x [2305843009213693952]"},
        EntryCase{R"({"dtype":"U8","shape":[9],"data_offsets":[0,9]})",
                  "data must end inside the file, got 9 > 8"},
        EntryCase{R"({"dtype":"U8","shape":[18446744073709551615],)"
                  R"("data_offsets":[0,18446744073709551615]})",
                  "data must end inside the file, got 18446744073709551615 > 8"},
        EntryCase{R"({"dtype":"U8","shape":[7],"data_offsets":[1,8]})",
                  "data must begin where the data before it ends, got 1 > 0"}));

TEST(SafetensorsRefuses, HolesOverlapsAndTrailingBytes) {
  const auto tensor = [](uint64_t begin, uint64_t end) {
    return SafetensorsWriter::tensor_json("U8", {end - begin}, begin, end);
  };
  const auto two = [&](const std::string& a, const std::string& b) {
    return refusal_of(SafetensorsWriter().entry("a", a).entry("b", b).gap("12345678"));
  };
  EXPECT_EQ(two(tensor(0, 4), tensor(4, 8)), "opened");
  EXPECT_EQ(
      two(tensor(0, 4), tensor(5, 8)),
      "model.safetensors: tensor \"b\" data must begin where the data before it ends, got 5 > 4");
  EXPECT_EQ(
      two(tensor(0, 5), tensor(4, 8)),
      "model.safetensors: tensor \"b\" data must begin where the data before it ends, got 4 < 5");
  EXPECT_EQ(
      two(tensor(0, 8), tensor(0, 8)),
      "model.safetensors: tensor \"b\" data must begin where the data before it ends, got 0 < 8");
  EXPECT_EQ(
      two(tensor(0, 8), tensor(3, 3)),
      "model.safetensors: tensor \"b\" data must begin where the data before it ends, got 3 < 8");
  EXPECT_EQ(two(tensor(0, 4), tensor(4, 7)),
            "model.safetensors: data must end with the last tensor, got 1 bytes more");
  EXPECT_EQ(refusal_of(SafetensorsWriter().trailing("xyz")),
            "model.safetensors: data must end with the last tensor, got 3 bytes more");
}

TEST(SafetensorsRefuses, TruncatedFiles) {
  std::string bytes = SafetensorsWriter().add("a", "F32", {4}).bytes();
  bytes.pop_back();
  EXPECT_EQ(refusal_of_bytes(bytes),
            "model.safetensors: tensor \"a\" data must end inside the file, got 16 > 15");
}

TEST(SafetensorsRefuses, NamesThatOccurTwice) {
  EXPECT_EQ(refusal_of(SafetensorsWriter().add("a", "U8", {1}).add("a", "U8", {1})),
            "model.safetensors: tensor \"a\" must occur once, got it twice");
  EXPECT_EQ(refusal_of(SafetensorsWriter().entry("__metadata__", "{}").entry("__metadata__", "{}")),
            "model.safetensors: __metadata__ must occur once, got it twice");
}

TEST(SafetensorsRefuses, MetadataThatIsNotStrings) {
  EXPECT_EQ(refusal_of(SafetensorsWriter().entry("__metadata__", R"({"a":1})")),
            "model.safetensors: __metadata__ must be an object of strings, got 1");
  EXPECT_EQ(refusal_of(SafetensorsWriter().entry("__metadata__", R"({"a":{}})")),
            "model.safetensors: __metadata__ must be an object of strings, got an object");
  EXPECT_EQ(refusal_of(SafetensorsWriter().entry("__metadata__", "[]")),
            "model.safetensors: __metadata__ must be an object of strings, got a list");
}

TEST(SafetensorsRefuses, DirectoriesWithoutACheckpoint) {
  TempDir dir;
  const auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_FALSE(checkpoint.ok());
  EXPECT_EQ(checkpoint.status().code(), Errc::kIo);
  EXPECT_EQ(
      checkpoint.status().message(),
      dir.path().string() +
          ": directory must hold model.safetensors or model.safetensors.index.json, got neither");
}

TEST(SafetensorsRefuses, PipesAndDirectoriesWithoutWaiting) {
  TempDir dir;
  std::filesystem::create_directory(dir / kSingle);
  EXPECT_EQ(refusal(dir, Errc::kIo),
            "model.safetensors: file must be a regular file, got another kind");
  ASSERT_EQ(::mkfifo((dir / "model.safetensors.index.json").c_str(), 0600), 0);
  EXPECT_EQ(refusal(dir, Errc::kIo),
            "model.safetensors.index.json: file must be a regular file, got another kind");
}

TEST(SafetensorsRefuses, AMissingShard) {
  TempDir dir;
  write_index(dir, {{"a", "1.st"}});
  EXPECT_EQ(refusal(dir, Errc::kIo), "1.st: file must be readable, got No such file or directory");
}

TEST(SafetensorsRefuses, TensorsMissingFromTheirShard) {
  TempDir dir;
  SafetensorsWriter().add("a", "U8", {1}).write(dir / "1.st");
  SafetensorsWriter().add("b", "U8", {1}).write(dir / "2.st");
  write_index(dir, {{"a", "1.st"}, {"b", "2.st"}, {"c", "2.st"}});
  EXPECT_EQ(refusal(dir), "2.st: tensor \"c\" must be in this file, got it nowhere");
  write_index(dir, {{"a", "2.st"}, {"b", "1.st"}});
  EXPECT_EQ(refusal(dir), "2.st: tensor \"a\" must be in this file, got it in 1.st");
}

TEST(SafetensorsRefuses, TensorsInTwoShards) {
  TempDir dir;
  SafetensorsWriter().add("a", "U8", {1}).write(dir / "1.st");
  SafetensorsWriter().add("b", "U8", {1}).add("a", "U8", {1}).write(dir / "2.st");
  write_index(dir, {{"a", "1.st"}, {"b", "2.st"}});
  EXPECT_EQ(refusal(dir), "2.st: tensor \"a\" must occur once, got it in 1.st too");
}

TEST(SafetensorsRefuses, ShardsOutsideTheDirectory) {
  TempDir dir;
  const auto index_of = [&](const std::string& file) {
    write_index(dir, {{"a", file}});
    return refusal(dir);
  };
  const std::string rule =
      "model.safetensors.index.json: weight_map must name plain files of the same directory, got ";
  EXPECT_EQ(index_of("../1.st"), rule + "\"../1.st\"");
  EXPECT_EQ(index_of("/etc/passwd"), rule + "\"/etc/passwd\"");
  EXPECT_EQ(index_of("sub/1.st"), rule + "\"sub/1.st\"");
  EXPECT_EQ(index_of(".."), rule + "\"..\"");
  EXPECT_EQ(index_of("."), rule + "\".\"");
  EXPECT_EQ(index_of(""), rule + "\"\"");
  EXPECT_EQ(index_of("1.st\\u0000x"), rule + "\"1.st\\u0000x\"");
  EXPECT_EQ(index_of(std::string(256, 'x')), rule + "\"" + std::string(76, 'x') + "\"...");
}

TEST(SafetensorsRefuses, BrokenIndexFiles) {
  TempDir dir;
  const auto index = [&](const std::string& text) {
    write_file(dir / "model.safetensors.index.json", text);
    return refusal(dir).substr(std::string("model.safetensors.index.json: ").size());
  };
  EXPECT_EQ(index(""), "text must be valid JSON, got an error at byte 1");
  EXPECT_EQ(index("[]"), "text must be an object, got a list");
  EXPECT_EQ(index("7"), "text must be an object, got 7");
  EXPECT_EQ(index("{}"), "weight_map must be present, got nothing");
  EXPECT_EQ(index(R"({"weight_map":{}})"), "weight_map must name a tensor, got none");
  EXPECT_EQ(index(R"({"weight_map":[]})"),
            "weight_map must be an object of file names, got a list");
  EXPECT_EQ(index(R"({"weight_map":"1.st"})"),
            "weight_map must be an object of file names, got \"1.st\"");
  EXPECT_EQ(index(R"({"weight_map":{"a":1}})"),
            "weight_map must be an object of file names, got 1");
  EXPECT_EQ(index(R"({"weight_map":{"a":{}}})"),
            "weight_map must be an object of file names, got an object");
  EXPECT_EQ(index(R"({"weight_map":{"a":"1","b":"1","a":"2"}})"),
            "weight_map must name each tensor once, got \"a\" twice");
  EXPECT_EQ(index(R"({"weight_map":{"a":"1"},"weight_map":{"a":"1"}})"),
            "weight_map must occur once, got it twice");
  EXPECT_EQ(index("{\"x\":" + std::string(70, '[')), "nesting must be at most 64 levels, got more");
}

TEST(SafetensorsLimits, MessagesStayShortAndNestingStopsAtOnceInHugeTexts) {
  const std::string name(1 << 20, 'n');
  EXPECT_LT(refusal_of(SafetensorsWriter().entry(name, "1")).size(), 300u);
  EXPECT_EQ(refusal_of(SafetensorsWriter().header(R"({"t":{"shape":)" + std::string(1 << 20, '['))),
            "model.safetensors: tensor \"t\" shape must be a list of whole numbers, got a list");
}

TEST(SafetensorsLimits, HeadersWithVeryManyTensorsOpen) {
  TempDir dir;
  std::string header;
  constexpr int kCount = 100'000;
  for (int i = 0; i < kCount; ++i) {
    header += (i == 0 ? "{\"" : ",\"") + std::to_string(i) +
              "\":" + SafetensorsWriter::tensor_json("U8", {0}, 0, 0);
  }
  SafetensorsWriter().header(header + "}").write(dir / kSingle);
  const auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_EQ(checkpoint->tensors().size(), static_cast<size_t>(kCount));
}

// Flips, overwrites, inserts, removes or repeats a few bytes.
std::string mutate(std::string bytes, std::mt19937& random) {
  const std::string pieces[] = {"{",  "}",  "[",     "]",    ",",          ":",
                                "\"", "-1", "1e999", "null", "99999999999"};
  const auto below = [&](size_t n) { return n == 0 ? 0 : random() % n; };
  for (size_t n = 1 + below(3); n > 0; --n) {
    const size_t at = below(bytes.size());
    switch (below(5)) {
      case 0:
        if (!bytes.empty()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
        break;
      case 1:
        if (!bytes.empty()) bytes[at] = static_cast<char>('0' + below(10));
        break;
      case 2: bytes.insert(at, pieces[below(std::size(pieces))]); break;
      case 3: bytes.erase(at, 1 + below(8)); break;
      default: bytes.insert(at, bytes.substr(at, 1 + below(40))); break;
    }
  }
  return bytes;
}

TEST(SafetensorsFuzz, MutatedFilesNeverCrashAndOpenedOnesAreConsistent) {
  const std::string valid = SafetensorsWriter()
                                .entry("__metadata__", R"({"format":"pt"})")
                                .add("model.a", "F32", {2, 3})
                                .add("model.b", "BF16", {5})
                                .add("model.c", "F8_E4M3", {0})
                                .bytes();
  std::mt19937 random(20241227);
  TempDir dir;
  int opened = 0;
  FuzzRounds rounds(4000);
  while (rounds.next()) {
    write_file(dir / kSingle, mutate(valid, random));
    const auto checkpoint = Checkpoint::open(dir.path());
    if (!checkpoint.ok()) {
      ASSERT_FALSE(checkpoint.status().message().empty());
      continue;
    }
    ++opened;
    uint64_t total = 0;
    unsigned sum = 0;
    for (const TensorView& tensor : checkpoint->tensors()) {
      uint64_t bytes = dtype_bytes(tensor.dtype);
      for (const uint64_t dim : tensor.shape) bytes *= dim;
      ASSERT_EQ(bytes, tensor.bytes.size());
      for (const std::byte b : tensor.bytes) sum += static_cast<unsigned>(b);  // readable
      total += bytes;
    }
    ASSERT_EQ(total, checkpoint->data_bytes());
    ASSERT_LE(sum, 255 * total);
  }
  EXPECT_GT(opened, 50);  // the mutations reach behind the parser
  EXPECT_LT(opened, rounds.done() / 2);
}

TEST(SafetensorsFuzz, MutatedIndexFilesNeverCrash) {
  TempDir dir;
  SafetensorsWriter().add("a", "U8", {1}).write(dir / "1.st");
  SafetensorsWriter().add("b", "U8", {1}).write(dir / "2.st");
  write_index(dir, {{"a", "1.st"}, {"b", "2.st"}});
  const std::string valid = read_file(dir / "model.safetensors.index.json");
  std::mt19937 random(7);
  for (FuzzRounds rounds(2000); rounds.next();) {
    write_file(dir / "model.safetensors.index.json", mutate(valid, random));
    const auto checkpoint = Checkpoint::open(dir.path());
    ASSERT_TRUE(checkpoint.ok() || !checkpoint.status().message().empty());
  }
}

}  // namespace
}  // namespace hadal::model
