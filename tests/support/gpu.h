// Running kernels under test: one device with validation on, buffers between guards, and every case
// run forwards, again, and with the dispatches between barriers reversed, all bitwise equal.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "hadal/device.h"
#include "hadal/recorder.h"
#include "support/fenced_memory.h"

namespace hadal::test {

// The device that tests run on, created at the first call with the validation layer; nullptr when
// there is none (see GpuTest).
[[nodiscard]] Device* device();

// Base of every suite that needs a device: skips without one, and fails after a test during which
// the validation layer said anything.
class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;
};

// A device buffer with a pattern before and behind it. The bytes that a test does not set are NaN
// in every format of ours (0xff), so that reading padding shows. On CPU drivers that import host
// memory the buffer ends, up to a multiple of 16 bytes, where no access is allowed: there a read
// outside is found, too.
class GuardedBuffer {
 public:
  GuardedBuffer(Device& device, uint64_t bytes);
  [[nodiscard]] DeviceAddress address() const;
  [[nodiscard]] uint64_t bytes() const { return bytes_; }
  void write(std::span<const std::byte> data, uint64_t offset = 0);
  [[nodiscard]] std::vector<std::byte> read() const;
  [[nodiscard]] bool guards_intact() const;
  // FencedMemory::take_overrun; -1 where there is no fence.
  [[nodiscard]] int64_t take_overrun();
  // For indirect arguments: the buffer that holds the bytes (address() lies inside it).
  [[nodiscard]] const Buffer& buffer() const { return buffer_; }

 private:
  void write_at(uint64_t at, std::span<const std::byte> data);
  [[nodiscard]] std::vector<std::byte> read_at(uint64_t at, uint64_t bytes) const;
  Device& device_;
  std::unique_ptr<FencedMemory> fenced_;  // what buffer_ imports
  Buffer buffer_;
  uint64_t begin_ = 0;  // of the bytes in buffer_
  uint64_t bytes_;
};

// One kernel case: inputs and outputs, then run().
class GpuCase {
 public:
  explicit GpuCase(Device& device) : device_(device) {}

  // Copies `data` to the device between guards. The reference stays valid.
  template <class T>
  GuardedBuffer& input(const std::vector<T>& data) {
    return add(data.size() * sizeof(T), std::as_bytes(std::span(data)));
  }
  // As input, but rows of `width` elements are spread to `stride`, the rest left NaN. Ends with the
  // last row.
  template <class T>
  GuardedBuffer& input_rows(const std::vector<T>& data, size_t width, size_t stride) {
    const size_t rows = width ? data.size() / width : 0;
    GuardedBuffer& buffer = add(rows ? ((rows - 1) * stride + width) * sizeof(T) : 0, {});
    for (size_t r = 0; r < rows; ++r) {
      buffer.write(std::as_bytes(std::span(data).subspan(r * width, width)),
                   r * stride * sizeof(T));
    }
    remember(buffer);
    return buffer;
  }
  // Uninitialised (0xff) bytes; its content before the run is restored for each repetition.
  GuardedBuffer& output(uint64_t bytes) { return add(bytes, {}); }

  // Records with `record` three times (forward with hazard checks, again, reversed), restoring all
  // buffers before each. Demands Ok, guards intact, no access past the end and identical contents
  // of every buffer.
  void run(const std::function<Status(Recorder&)>& record);

  template <class T>
  [[nodiscard]] std::vector<T> values(const GuardedBuffer& buffer) const {
    const std::vector<std::byte> bytes = buffer.read();
    std::vector<T> result(bytes.size() / sizeof(T));
    std::memcpy(result.data(), bytes.data(), result.size() * sizeof(T));
    return result;
  }
  // Rows of `width` out of a strided output, and a check that the padding kept its 0xff bytes.
  template <class T>
  [[nodiscard]] std::vector<T> rows(const GuardedBuffer& buffer, size_t row_count, size_t width,
                                    size_t stride) const {
    const std::vector<T> all = values<T>(buffer);
    std::vector<T> result;
    T untouched;
    std::memset(&untouched, 0xff, sizeof(T));
    for (size_t r = 0; r < row_count; ++r) {
      for (size_t c = 0; c < stride && r * stride + c < all.size(); ++c) {
        const T& value = all[r * stride + c];
        if (c < width) {
          result.push_back(value);
        } else {
          EXPECT_EQ(std::memcmp(&value, &untouched, sizeof(T)), 0) << "padding written: row " << r;
        }
      }
    }
    return result;
  }

 private:
  GuardedBuffer& add(uint64_t bytes, std::span<const std::byte> data);
  void remember(GuardedBuffer& buffer);
  Device& device_;
  std::deque<GuardedBuffer> buffers_;
  std::vector<std::vector<std::byte>> initial_;
};

}  // namespace hadal::test
