// The same requests for an engine and for servers: prompts of a few words, answers of random
// lengths, so many at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace hadal::bench {

using Clock = std::chrono::steady_clock;

struct LoadRequest {
  std::string prompt;
  uint32_t tokens = 0;  // of the answer, exactly
};

// `count` requests with answers of least to most tokens; the same for a seed.
[[nodiscard]] std::vector<LoadRequest> make_load(uint32_t count, uint32_t least, uint32_t most,
                                                 uint32_t seed);

// What one run of a load showed.
struct LoadResult {
  double seconds = 0;
  uint64_t tokens = 0, requests = 0;
  std::vector<double> first_token;     // seconds from a request to its first piece
  std::vector<double> between_tokens;  // seconds from a piece to the next; a piece may be several
  double client_cpu_seconds = 0;       // of whoever asks
};

// Of sorted or unsorted values; 0 where there are none.
[[nodiscard]] double percentile(std::vector<double> values, double percent);

struct HttpTarget {
  std::string host, model;  // host: an IPv4 address
  uint16_t port = 0;
  bool keep_alive = true;  // llama-server closes behind a stream: a connection for each request
};

// Streams of POST /v1/completions, `streams` at a time. One thread. Throws std::runtime_error when
// the server refuses, ends or answers other than asked.
[[nodiscard]] LoadResult run_http_load(const HttpTarget& target,
                                       const std::vector<LoadRequest>& load, uint32_t streams);

}  // namespace hadal::bench
