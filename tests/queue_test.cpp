// Submissions: in order on a queue, from several threads, again and again.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "hadal/buffer.h"
#include "hadal/device.h"
#include "hadal/recorder.h"
#include "support/gpu.h"

namespace hadal::test {
namespace {

class QueueGpu : public GpuTest {};

Recorder recorder_on(uint32_t queue) {
  RecorderOptions options;
  options.queue = queue;
  Result<Recorder> recorder = Recorder::create(*device(), options);
  EXPECT_TRUE(recorder.ok()) << recorder.status().message();
  return std::move(recorder).value();
}

Buffer allocate(uint32_t words, MemoryKind kind = MemoryKind::kDevice) {
  Result<Buffer> buffer = device()->allocate(4ull * words, kind);
  EXPECT_TRUE(buffer.ok()) << buffer.status().message();
  return std::move(buffer).value();
}

std::vector<uint32_t> download(const Buffer& buffer) {
  std::vector<uint32_t> words(buffer.bytes() / 4);
  EXPECT_TRUE(device()->download(buffer, 0, std::as_writable_bytes(std::span(words))).ok());
  return words;
}

// Each submission fills the shared word anew and copies it to a place of its own; one wait for all.
TEST_F(QueueGpu, SubmissionsOfAQueueRunOneAfterAnother) {
  constexpr uint32_t kSubmissions = 20;
  for (uint32_t queue = 0; queue < device()->queue_count(); ++queue) {
    const Buffer word = allocate(1), all = allocate(kSubmissions);
    std::vector<Recorder> recorders;
    Ticket last;
    for (uint32_t i = 0; i < kSubmissions; ++i) {
      Recorder& recorder = recorders.emplace_back(recorder_on(queue));
      ASSERT_TRUE(recorder.fill(word, 0, 4, 100 + i).ok());
      recorder.barrier();
      ASSERT_TRUE(recorder.copy(word, 0, all, 4ull * i, 4).ok());
      ASSERT_TRUE(recorder.end().ok());
      const Result<Ticket> ticket = device()->submit(recorder);
      ASSERT_TRUE(ticket.ok()) << ticket.status().message();
      EXPECT_EQ(ticket->queue, queue);
      EXPECT_GT(ticket->value, last.value);
      last = *ticket;
    }
    ASSERT_TRUE(device()->wait(last).ok());
    const std::vector<uint32_t> got = download(all);
    for (uint32_t i = 0; i < kSubmissions; ++i) EXPECT_EQ(got[i], 100 + i);
  }
}

// What lies in memory at each submission is what counts.
TEST_F(QueueGpu, ARecorderIsSubmittedAgainAsItIs) {
  for (uint32_t queue = 0; queue < device()->queue_count(); ++queue) {
    const Buffer input = allocate(1, MemoryKind::kUpload), output = allocate(1);
    Recorder recorder = recorder_on(queue);
    ASSERT_TRUE(recorder.copy(input, 0, output, 0, 4).ok());
    ASSERT_TRUE(recorder.end().ok());
    for (uint32_t i = 0; i < 10; ++i) {
      ASSERT_TRUE(device()->upload(input, 0, std::as_bytes(std::span(&i, 1))).ok());
      ASSERT_TRUE(device()->run(recorder).ok());
      EXPECT_EQ(download(output), std::vector<uint32_t>{i});
    }
  }
}

TEST_F(QueueGpu, ThreadsSubmitAndWaitAtOnce) {
  constexpr uint32_t kThreads = 4, kRuns = 50;
  const Buffer words = allocate(kThreads);
  std::vector<std::thread> threads;
  std::atomic<uint32_t> failures = 0;
  std::vector<std::vector<uint64_t>> values(kThreads);
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Recorder recorder = recorder_on(t % device()->queue_count());
      for (uint32_t i = 0; i < kRuns; ++i) {
        const bool recorded =
            recorder.fill(words, 4ull * t, 4, 1000 * t + i).ok() && recorder.end().ok();
        const Result<Ticket> ticket = device()->submit(recorder);
        if (!recorded || !ticket.ok() || !device()->wait(*ticket).ok() || !recorder.reset().ok()) {
          ++failures;
          return;
        }
        values[t].push_back(uint64_t{ticket->queue} << 60 | ticket->value);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0u);
  const std::vector<uint32_t> got = download(words);
  std::vector<uint64_t> all;
  for (uint32_t t = 0; t < kThreads; ++t) {
    EXPECT_EQ(got[t], 1000 * t + kRuns - 1);
    all.insert(all.end(), values[t].begin(), values[t].end());
  }
  std::ranges::sort(all);
  EXPECT_EQ(std::ranges::adjacent_find(all), all.end()) << "two submissions have one ticket";
}

TEST_F(QueueGpu, NoTicketIsDoneAndNoQueueIsRefused) {
  EXPECT_TRUE(device()->wait({}).ok());
  ASSERT_GE(device()->queue_count(), 1u);
  RecorderOptions options;
  options.queue = device()->queue_count();
  EXPECT_EQ(Recorder::create(*device(), options).status().message(),
            fmt::format("recorder: queue must be below the device's {}, got {}",
                        device()->queue_count(), device()->queue_count()));
}

}  // namespace
}  // namespace hadal::test
