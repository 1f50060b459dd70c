// OnceMap under threads; this file is also built with ThreadSanitizer.
#include "vk/once_map.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace hadal::vk {
namespace {

using Map = OnceMap<int, std::string>;

auto maker(std::atomic<int>& calls, std::string value) {
  return [&calls, value = std::move(value)]() -> Result<std::unique_ptr<std::string>> {
    ++calls;
    return std::make_unique<std::string>(value);
  };
}

TEST(OnceMapHost, ThreadsShareOneValuePerKey) {
  constexpr int kThreads = 8, kKeys = 50;
  Map map;
  std::atomic<int> calls = 0;
  std::vector<std::vector<const std::string*>> got(kThreads);
  std::latch start(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      start.arrive_and_wait();
      for (int key = 0; key < kKeys; ++key) {
        const std::string* found = map.find(key);
        const auto made = map.get(key, maker(calls, std::to_string(key)));
        EXPECT_TRUE(made.ok());
        EXPECT_TRUE(!found || found == *made);
        got[size_t(t)].push_back(*made);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(calls, kKeys);
  for (int key = 0; key < kKeys; ++key) {
    EXPECT_EQ(*got[0][size_t(key)], std::to_string(key));
    for (const auto& pointers : got) EXPECT_EQ(pointers[size_t(key)], got[0][size_t(key)]);
  }
}

// Each maker returns only once the other has begun: one after the other they would wait for ever.
TEST(OnceMapHost, DifferentKeysAreMadeAtOnce) {
  Map map;
  std::latch both(2);
  const auto make = [&]() -> Result<std::unique_ptr<std::string>> {
    both.arrive_and_wait();
    return std::make_unique<std::string>("made");
  };
  std::thread other([&] { EXPECT_TRUE(map.get(1, make).ok()); });
  EXPECT_TRUE(map.get(2, make).ok());
  other.join();
  EXPECT_NE(map.find(1), nullptr);
  EXPECT_NE(map.find(1), map.find(2));
}

TEST(OnceMapHost, OthersAreFoundWhileOneIsMade) {
  Map map;
  std::atomic<int> calls = 0;
  ASSERT_TRUE(map.get(1, maker(calls, "one")).ok());
  const auto made = map.get(2, [&]() -> Result<std::unique_ptr<std::string>> {
    EXPECT_EQ(map.find(2), nullptr);
    EXPECT_EQ(*map.find(1), "one");
    return std::make_unique<std::string>("two");
  });
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(**made, "two");
}

TEST(OnceMapHost, AFailureIsItsCallersAndIsTriedAgain) {
  Map map;
  std::atomic<int> calls = 0;
  std::latch begun(1);
  std::thread waiting([&] {
    begun.wait();
    const auto made = map.get(1, maker(calls, "second"));
    EXPECT_TRUE(made.ok());
    EXPECT_EQ(**made, "second");
  });
  const auto failed = map.get(1, [&]() -> Result<std::unique_ptr<std::string>> {
    begun.count_down();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the other comes to wait
    return Status(Errc::kOutOfDeviceMemory, "first");
  });
  EXPECT_EQ(failed.status().message(), "first");
  waiting.join();
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(*map.find(1), "second");
}

TEST(OnceMapHost, AMakerThatThrowsLeavesNobodyWaiting) {
  Map map;
  std::atomic<int> calls = 0;
  EXPECT_THROW((void)map.get(1,
                             []() -> Result<std::unique_ptr<std::string>> {
                               throw std::runtime_error("no memory");
                             }),
               std::runtime_error);
  EXPECT_EQ(map.find(1), nullptr);
  EXPECT_TRUE(map.get(1, maker(calls, "made")).ok());
}

}  // namespace
}  // namespace hadal::vk
