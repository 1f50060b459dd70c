#include "support/gpu.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "consumer/driver_leaks.h"

namespace hadal::test {
namespace {

constexpr uint64_t kGuardBytes = 1024;  // a multiple of the buffer's alignment
constexpr std::byte kGuard{0xa5};
constexpr std::byte kPoison{0xff};

std::unique_ptr<Device> create_device() {
  DeviceOptions options;
  options.validation = true;
  // HADAL_TEST_DEVICE is read by the test program only: the library knows no environment.
  if (const char* select = std::getenv("HADAL_TEST_DEVICE")) options.select = select;
  options.log = [](LogLevel level, const std::string& text) {
    fmt::print(stderr, "[{}] {}\n", level == LogLevel::kError ? "error" : "log", text);
  };
  driver_leaks_show();
  Result<std::unique_ptr<Device>> device = Device::create(options);
  if (!device.ok()) {
    fmt::print("no device: {}\n", device.status().message());
    return nullptr;
  }
  const Caps& caps = (*device)->caps();
  fmt::print("device: {}, {} {}, subgroup {}\n", caps.device_name, caps.driver_name,
             caps.driver_info, caps.subgroup_size);
  return std::move(device).value();
}

// A run that had device tests and could run none of them must not look like a success.
uint32_t g_device_tests = 0;

class DeviceEnvironment : public ::testing::Environment {
 public:
  void TearDown() override {
    if (g_device_tests > 0 && !device()) {
      ADD_FAILURE() << "all " << g_device_tests << " device tests were skipped";
    }
  }
};
[[maybe_unused]] const ::testing::Environment* const kEnvironment =
    ::testing::AddGlobalTestEnvironment(new DeviceEnvironment);

}  // namespace

Device* device() {
  static const std::unique_ptr<Device> instance = create_device();
  return instance.get();
}

void GpuTest::SetUp() {
  ++g_device_tests;
  if (!device()) GTEST_SKIP() << "no Vulkan device with the required features and validation layer";
}

void GpuTest::TearDown() {
  if (device()) {
    EXPECT_EQ(device()->validation_messages(), 0u) << device()->first_validation_message();
  }
}

GuardedBuffer::GuardedBuffer(Device& device, uint64_t bytes) : device_(device), bytes_(bytes) {
  const uint64_t wanted = kGuardBytes + (bytes + 15) / 16 * 16;
  if (device.caps().is_cpu && device.caps().host_import_alignment) {
    fenced_ = std::make_unique<FencedMemory>(wanted);
    Result<Buffer> buffer = device.import_host(fenced_->bytes());
    EXPECT_TRUE(buffer.ok()) << buffer.status().message();
    buffer_ = std::move(buffer).value();
    begin_ = buffer_.bytes() - wanted + kGuardBytes;
  } else {
    Result<Buffer> buffer = device.allocate(bytes + 2 * kGuardBytes);
    EXPECT_TRUE(buffer.ok()) << buffer.status().message();
    buffer_ = std::move(buffer).value();
    begin_ = kGuardBytes;
  }
  std::vector<std::byte> content(buffer_.bytes(), kGuard);
  std::fill_n(content.begin() + std::ptrdiff_t(begin_), bytes, kPoison);
  write_at(0, content);
}

DeviceAddress GuardedBuffer::address() const {
  return buffer_.address() + begin_;
}

void GuardedBuffer::write(std::span<const std::byte> data, uint64_t offset) {
  ASSERT_LE(offset + data.size(), bytes_);
  write_at(begin_ + offset, data);
}

void GuardedBuffer::write_at(uint64_t at, std::span<const std::byte> data) {
  if (fenced_) {
    std::ranges::copy(data, fenced_->bytes().begin() + std::ptrdiff_t(at));
    return;
  }
  const Status status = device_.upload(buffer_, at, data);
  ASSERT_TRUE(status.ok()) << status.message();
}

std::vector<std::byte> GuardedBuffer::read_at(uint64_t at, uint64_t bytes) const {
  if (fenced_) {
    const auto part = fenced_->bytes().subspan(at, bytes);
    return {part.begin(), part.end()};
  }
  std::vector<std::byte> data(bytes);
  const Status status = device_.download(buffer_, at, data);
  EXPECT_TRUE(status.ok()) << status.message();
  return data;
}

std::vector<std::byte> GuardedBuffer::read() const {
  return read_at(begin_, bytes_);
}

bool GuardedBuffer::guards_intact() const {
  const std::vector<std::byte> data = read_at(0, buffer_.bytes());
  const auto intact = [](std::byte b) { return b == kGuard; };
  const auto begin = data.begin() + std::ptrdiff_t(begin_);
  return std::all_of(data.begin(), begin, intact) &&
         std::all_of(begin + std::ptrdiff_t(bytes_), data.end(), intact);
}

int64_t GuardedBuffer::take_overrun() {
  return fenced_ ? fenced_->take_overrun() : -1;
}

GuardedBuffer& GpuCase::add(uint64_t bytes, std::span<const std::byte> data) {
  GuardedBuffer& buffer = buffers_.emplace_back(device_, bytes);
  if (!data.empty()) buffer.write(data);
  initial_.push_back(buffer.read());
  return buffer;
}

void GpuCase::remember(GuardedBuffer& buffer) {
  for (size_t i = 0; i < buffers_.size(); ++i) {
    if (&buffers_[i] == &buffer) initial_[i] = buffer.read();
  }
}

void GpuCase::run(const std::function<Status(Recorder&)>& record) {
  RecorderOptions forward, reversed;
  forward.check_hazards = reversed.check_hazards = true;
  reversed.reverse_between_barriers = true;
  std::vector<std::vector<std::byte>> first;
  for (const RecorderOptions& options : {forward, forward, reversed}) {
    for (size_t i = 0; i < buffers_.size(); ++i) buffers_[i].write(initial_[i]);
    Result<Recorder> recorder = Recorder::create(device_, options);
    ASSERT_TRUE(recorder.ok()) << recorder.status().message();
    Status status = record(*recorder);
    ASSERT_TRUE(status.ok()) << status.message();
    status = recorder->end();
    ASSERT_TRUE(status.ok()) << status.message();
    status = device_.run(*recorder);
    ASSERT_TRUE(status.ok()) << status.message();
    for (size_t i = 0; i < buffers_.size(); ++i) {
      EXPECT_TRUE(buffers_[i].guards_intact()) << "buffer " << i << " was written outside";
      EXPECT_LT(buffers_[i].take_overrun(), 0)
          << "buffer " << i << " of " << buffers_[i].bytes() << " bytes was touched behind its end";
      std::vector<std::byte> content = buffers_[i].read();
      if (first.size() <= i) {
        first.push_back(std::move(content));
      } else {
        EXPECT_TRUE(content == first[i])
            << "buffer " << i << " differs between runs"
            << (options.reverse_between_barriers ? " (reversed order)" : "");
      }
    }
  }
}

}  // namespace hadal::test
