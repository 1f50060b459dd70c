// What a server counts, in Prometheus' text format. Not thread-safe: the server's io thread's.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "hadal/runtime/engine.h"

namespace hadal::serve {

// Cumulative counts of values at most a bound, as Prometheus wants them.
class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds);
  void add(double value);
  [[nodiscard]] uint64_t count() const { return count_; }
  // Appends NAME_bucket, NAME_sum and NAME_count.
  void append(std::string& out, const std::string& name, const std::string& help) const;

 private:
  std::vector<double> bounds_;
  std::vector<uint64_t> counts_;  // of each bound alone, and behind the last
  double sum_ = 0;
  uint64_t count_ = 0;
};

// Tokens a second over the last whole seconds.
class TokenRate {
 public:
  using Time = std::chrono::steady_clock::time_point;
  void add(Time now, uint64_t tokens);
  [[nodiscard]] double per_second(Time now);

 private:
  static constexpr size_t kSeconds = 5;
  void move_to(Time now);
  std::array<uint64_t, kSeconds + 1> tokens_{};  // of a second each, the last one under way
  int64_t second_ = 0;
};

class Metrics {
 public:
  Metrics();

  // Engine requests by how they ended: "stop", "length", "deadline", "cancelled", "failed".
  std::map<std::string, uint64_t> finished;
  std::map<uint32_t, uint64_t> responses;  // by HTTP status
  uint64_t prompt_tokens = 0, generated_tokens = 0;
  uint64_t refused_connections = 0, cut_connections = 0, clients_gone = 0;
  Histogram first_token, between_tokens;  // seconds
  TokenRate rate;

  struct Now {
    runtime::EngineStats engine;
    uint64_t connections = 0, requests = 0;  // open, and handed to the engine without an end
  };
  [[nodiscard]] std::string text(const Now& now);
};

}  // namespace hadal::serve
