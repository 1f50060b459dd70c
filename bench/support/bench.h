// What every bench shares: options, timing a recorded case on the device, one printed line per
// case.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "hadal/device.h"
#include "hadal/recorder.h"

namespace hadal::bench {

struct Options {
  std::string device;  // DeviceOptions::select
  std::string json;    // file for the same lines as JSON objects; empty = none
  double min_seconds =
      1.0;  // each case runs at least this long or 30 samples, whichever is first met last
  uint32_t min_samples = 30;
  bool quick = false;  // a few samples of a few cases, for a smoke run
  std::string filter;  // run only cases whose name contains this
};

// Parses argv (--device --json --quick --filter --seconds); prints help and exits when asked.
[[nodiscard]] Options parse_options(int argc, char** argv);

// Quantiles of the samples of one case, in nanoseconds.
struct Timing {
  double median_ns = 0, p10_ns = 0, p90_ns = 0;
  uint32_t samples = 0;
};

// One case: what it does (for the rates), and whether its result was right.
struct Case {
  std::string name;  // e.g. "fp8_gemm m=128 n=2112 k=7168"
  double flop = 0;   // floating-point operations per run
  double bytes = 0;  // bytes that must move per run
};

// Owns the device and prints a header with the machine, the driver and its limits.
class Bench {
 public:
  Bench(const std::string& title, const Options& options);
  ~Bench();
  [[nodiscard]] Device& device() { return *device_; }
  [[nodiscard]] const Options& options() const { return options_; }
  [[nodiscard]] bool selected(const std::string& name) const;

  // Buffers filled with random bytes that are right for the format.
  [[nodiscard]] Buffer buffer(uint64_t bytes);
  [[nodiscard]] Buffer floats(uint64_t count, float low, float high);
  [[nodiscard]] Buffer e4m3(uint64_t count);
  [[nodiscard]] Buffer bf16(uint64_t count, float low, float high);
  [[nodiscard]] std::vector<float> read_floats(const Buffer& buffer, uint64_t count);

  // Times `record` by timestamps around it (host clock where the queue has none), after one warm-up
  // run, and prints one line. A case whose check failed prints that instead of a speed.
  Timing time(const Case& c, const std::function<Status(Recorder&)>& record,
              const std::function<bool()>& check);

 private:
  Options options_;
  std::unique_ptr<Device> device_;
  double copy_bytes_per_s_ = 0;  // roofline of this machine, measured at the start
  std::vector<std::string> json_lines_;
};

// Ends the program with a message on an error that a bench cannot go on from.
void require(const Status& status);
template <class T>
[[nodiscard]] T require(Result<T> result) {
  require(result.status());
  return std::move(result).value();
}

}  // namespace hadal::bench
