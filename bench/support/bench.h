// What every bench shares: options, the list of cases, the device and its roofline, timing a
// recorded case, one printed line and one JSON object per case.
//
//   bench::Bench bench("swiglu", argc, argv);
//   for (uint32_t rows : {1u, 512u}) bench.add({{"rows", rows}, {"n", 2048u}});
//   return bench.run([&](const bench::Shape& s) { run_case(bench, s["rows"], s["n"]); });
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hadal/device.h"
#include "hadal/gemm_path.h"
#include "hadal/recorder.h"
#include "hadal/tuning.h"
#include "support/check.h"
#include "support/roofline.h"
#include "support/shape.h"

namespace hadal::bench {

// What the command line of every bench says; --help describes each.
struct Options {
  std::string device;  // DeviceOptions::select
  std::string json;    // empty = none
  std::vector<Shape> shapes;
  std::string filter;
  double min_seconds = 1.0;
  uint32_t min_samples = 30;
  bool list = false, quick = false, cold = false, no_roofline = false;
  std::string policy = "invariant";  // of the FP8 GEMMs: GemmPolicy
  std::string tuning;                // of the FP8 GEMMs: a file of hadal-tune; empty = none
  std::string attention;  // the attention kernels' path (attention_path_name); empty: their choice
};

// Quantiles of the samples of one case, in nanoseconds.
struct Timing {
  double median_ns = 0, p10_ns = 0, p90_ns = 0;
  uint32_t samples = 0;
};

// What one run of a case does, for the rates.
struct Work {
  std::string path;  // which implementation: path_of(config)
  double flop = 0;   // floating-point operations that count as work
  double bytes = 0;  // bytes that must move
};

// "fp8_gemm: portable, tile 16x128; not coopmat: ..." -> "portable, tile 16x128".
[[nodiscard]] std::string path_of(const std::string& config_text);

class Bench {
 public:
  // Parses argv; prints help and ends the program when asked to or when it is wrong.
  Bench(std::string kernel, int argc, const char* const* argv);
  Bench(std::string kernel, const Options& options);
  ~Bench();

  [[nodiscard]] const Options& options() const { return options_; }

  // Adds a case; `kernel` where a bench measures two.
  void add(const Shape& shape) { add(kernel_, shape); }
  void add(const std::string& kernel, const Shape& shape);
  // Calls `run_case` for every selected case (none with --list), with kernel() set. A dimension
  // that --shape names replaces that of each listed case; cases that become equal run once, so that
  // a full shape is one case, listed or not. Returns the exit code: 1 if a result was wrong.
  [[nodiscard]] int run(const std::function<void(const Shape&)>& run_case);

  // For run_case.
  [[nodiscard]] Device& device() { return *device_; }
  [[nodiscard]] const Caps& caps() const { return device_->caps(); }
  [[nodiscard]] const std::string& kernel() const { return current_kernel_; }
  // What --policy and --tuning say.
  [[nodiscard]] GemmPolicy gemm_policy() const;

  // Buffers filled with random bytes that are right for the format, the same in every run.
  [[nodiscard]] Buffer buffer(uint64_t bytes);
  [[nodiscard]] Buffer floats(uint64_t count, float low, float high);
  [[nodiscard]] Buffer e4m3(uint64_t count);
  [[nodiscard]] Buffer bf16(uint64_t count, float low, float high);
  template <class T>
  [[nodiscard]] Buffer upload(const std::vector<T>& values) {
    Buffer result = buffer(values.size() * sizeof(T));
    upload(result, 0, std::as_bytes(std::span(values)));
    return result;
  }
  template <class T>
  [[nodiscard]] std::vector<T> read(const Buffer& source, uint64_t first, uint64_t count) {
    std::vector<T> values(count);
    download(source, first * sizeof(T), std::as_writable_bytes(std::span(values)));
    return values;
  }
  [[nodiscard]] std::vector<float> read_floats(const Buffer& source, uint64_t count) {
    return read<float>(source, 0, count);
  }

  // Runs `record` once and checks it; then times it by timestamps (host clock where the queue has
  // none) and prints one line. A result that failed its check gets no speed.
  Timing time(const Work& work, const std::function<Status(Recorder&)>& record,
              const std::function<Check()>& check);

 private:
  struct Case {
    std::string kernel;
    Shape shape;
    bool operator==(const Case&) const = default;
  };
  [[nodiscard]] std::vector<Case> selected() const;
  void open_device();
  void upload(const Buffer& target, uint64_t offset, std::span<const std::byte> bytes);
  void download(const Buffer& source, uint64_t offset, std::span<std::byte> bytes);
  [[nodiscard]] std::vector<double> samples(Recorder& recorder);
  void report(const std::string& kernel, const std::string& shape, const Work& work,
              const Timing& timing, std::optional<double> worst);
  void write_json() const;

  std::string kernel_, current_kernel_, current_shape_;
  Options options_;
  std::vector<Case> cases_;
  std::unique_ptr<Device> device_;
  std::optional<TuningTable> tuning_;
  Roofline roofline_;
  Buffer cold_;  // rewritten between samples with --cold
  std::vector<std::string> json_;
  size_t width_ = 0;  // of the column of cases
  bool wrong_ = false;
};

// Ends the program with a message on an error that a bench cannot go on from.
void require(const Status& status);
template <class T>
[[nodiscard]] T require(Result<T> result) {
  require(result.status());
  return std::move(result).value();
}

}  // namespace hadal::bench
