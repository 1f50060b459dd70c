// What the peers' programs share: sampling and the JSON object of hadal's benches
// (support/bench.cpp), whose path names the peer. Standard library only: they are compiled inside
// another root.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace peer {

inline double now_ns() {
  return std::chrono::duration<double, std::nano>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

inline double environment(const char* name, double otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atof(text) : otherwise;
}

struct Report {
  std::string kernel, shape, path, device, driver;
  double flop = 0, bytes = 0;
  double worst = -1;  // error over bound; negative: no bound is known
};

// Calls run_ns, which returns the nanoseconds of one run, until PEER_SECONDS (default 1) and
// PEER_SAMPLES (default 30) are met; slow cases
// stop at four times the seconds with three samples, at twelve times with fewer.
template <class Run>
std::vector<double> sample(const Run& run_ns) {
  const double seconds = environment("PEER_SECONDS", 1);
  const size_t samples = size_t(environment("PEER_SAMPLES", 30));
  std::vector<double> ns;
  const double start = now_ns();
  for (;;) {
    ns.push_back(run_ns());
    const double spent = (now_ns() - start) * 1e-9;
    if (ns.size() >= samples && spent >= seconds) break;
    if (spent >= (ns.size() >= 3 ? 4 : 12) * seconds) break;
  }
  std::sort(ns.begin(), ns.end());
  return ns;
}

inline void print(const Report& r, const std::vector<double>& ns) {
  const auto quantile = [&](double q) { return ns[size_t(q * double(ns.size() - 1) + 0.5)]; };
  const double median = quantile(0.5);
  char worst[32] = "null";
  if (r.worst >= 0) std::snprintf(worst, sizeof worst, "%.5g", r.worst);
  std::printf(
      "{\"kernel\":\"%s\",\"shape\":\"%s\",\"path\":\"%s\",\"device\":\"%s\",\"driver\":\"%s\","
      "\"threads\":1,\"median_ns\":%.0f,\"p10_ns\":%.0f,\"p90_ns\":%.0f,\"tflops\":%.5g,"
      "\"gb_per_s\":%.5g,\"roofline_share\":null,\"worst_error_over_bound\":%s,\"samples\":%zu,"
      "\"cold\":false}\n",
      r.kernel.c_str(), r.shape.c_str(), r.path.c_str(), r.device.c_str(), r.driver.c_str(), median,
      quantile(0.1), quantile(0.9), r.flop / median * 1e-3, r.bytes / median, worst, ns.size());
}

}  // namespace peer
