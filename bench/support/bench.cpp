#include "support/bench.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>

namespace hadal::bench {
namespace {

using Clock = std::chrono::steady_clock;

double quantile(const std::vector<double>& sorted, double q) {
  return sorted[size_t(q * double(sorted.size() - 1) + 0.5)];
}

}  // namespace

void require(const Status& status) {
  if (status.ok()) return;
  fmt::print(stderr, "bench: {}\n", status.message());
  std::exit(2);
}

Options parse_options(int argc, char** argv) {
  Options options;
  CLI::App app("hadal kernel bench: checks each result, then times it on the device");
  app.add_option("--device", options.device, "device index or part of its name");
  app.add_option("--json", options.json, "also write the lines to this file as JSON");
  app.add_option("--filter", options.filter, "only cases whose name contains this");
  app.add_option("--seconds", options.min_seconds, "least time per case")->capture_default_str();
  app.add_flag("--quick", options.quick, "few samples: a smoke run, not a measurement");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::exit(app.exit(e) == 0 ? 0 : 2);
  }
  if (options.quick) options.min_seconds = 0.05, options.min_samples = 3;
  return options;
}

Bench::Bench(const std::string& title, const Options& options) : options_(options) {
  DeviceOptions device_options;
  device_options.select = options.device;
  device_ = require(Device::create(device_options));
  const Caps& caps = device_->caps();
  fmt::print("{}: {} ({} {}), subgroup {}\n", title, caps.device_name, caps.driver_name,
             caps.driver_info, caps.subgroup_size);
  // The memory roof: a copy of 256 MiB, read and write counted.
  const uint64_t bytes = options.quick ? 16u << 20 : 256u << 20;
  const Buffer from = buffer(bytes), to = buffer(bytes);
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    Recorder recorder = require(Recorder::create(*device_));
    require(recorder.copy(from, 0, to, 0, bytes));
    require(recorder.end());
    const auto start = Clock::now();
    require(device_->run(recorder));
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::max(best, 2.0 * double(bytes) / seconds);
  }
  copy_bytes_per_s_ = best;
  fmt::print("copy {:.1f} GB/s (read + write)\n", best * 1e-9);
  fmt::print("{:<44} {:>10} {:>10} {:>10} {:>9} {:>8} {:>7}\n", "case", "median us", "p10", "p90",
             "GFLOP/s", "GB/s", "copy %");
}

Bench::~Bench() {
  if (options_.json.empty()) return;
  std::ofstream out(options_.json);
  for (const std::string& line : json_lines_) out << line << '\n';
}

bool Bench::selected(const std::string& name) const {
  return options_.filter.empty() || name.find(options_.filter) != std::string::npos;
}

Buffer Bench::buffer(uint64_t bytes) {
  return require(device_->allocate(std::max<uint64_t>(bytes, 16)));
}

Buffer Bench::floats(uint64_t count, float low, float high) {
  std::mt19937 engine(1);
  std::vector<float> values(count);
  for (float& v : values) v = low + (high - low) * (float(engine() >> 8) * 0x1p-24f);
  Buffer result = buffer(count * 4);
  require(device_->upload(result, 0, std::as_bytes(std::span(values))));
  return result;
}

Buffer Bench::e4m3(uint64_t count) {
  std::mt19937 engine(2);
  std::vector<uint8_t> codes(count);
  for (uint8_t& c : codes) {
    c = uint8_t(engine());
    if ((c & 0x7f) == 0x7f) c ^= 1;  // no NaN
  }
  Buffer result = buffer(count);
  require(device_->upload(result, 0, std::as_bytes(std::span(codes))));
  return result;
}

Buffer Bench::bf16(uint64_t count, float low, float high) {
  std::mt19937 engine(3);
  std::vector<uint16_t> values(count);
  for (uint16_t& v : values) {
    const float x = low + (high - low) * (float(engine() >> 8) * 0x1p-24f);
    uint32_t bits = 0;
    std::memcpy(&bits, &x, 4);
    v = uint16_t(bits >> 16);
  }
  Buffer result = buffer(count * 2);
  require(device_->upload(result, 0, std::as_bytes(std::span(values))));
  return result;
}

std::vector<float> Bench::read_floats(const Buffer& source, uint64_t count) {
  std::vector<float> values(count);
  require(device_->download(source, 0, std::as_writable_bytes(std::span(values))));
  return values;
}

Timing Bench::time(const Case& c, const std::function<Status(Recorder&)>& record,
                   const std::function<bool()>& check) {
  RecorderOptions recorder_options;
  recorder_options.timestamps = true;
  Recorder recorder = require(Recorder::create(*device_, recorder_options));
  require(record(recorder));
  require(recorder.end());
  require(device_->run(recorder));
  if (!check()) {
    fmt::print("{:<44} WRONG RESULT, not timed\n", c.name);
    return {};
  }
  require(device_->run(recorder));  // warm caches and the driver's compiled code
  const bool timestamps = device_->caps().timestamp_period_ns > 0;
  std::vector<double> samples;
  const auto start = Clock::now();
  while (samples.size() < options_.min_samples ||
         std::chrono::duration<double>(Clock::now() - start).count() < options_.min_seconds) {
    const auto before = Clock::now();
    require(device_->run(recorder));
    double ns = std::chrono::duration<double, std::nano>(Clock::now() - before).count();
    if (timestamps) {
      ns = 0;
      for (const DispatchTiming& t : require(recorder.timings())) ns += t.ns;
    }
    samples.push_back(ns);
    if (std::chrono::duration<double>(Clock::now() - start).count() > 20 * options_.min_seconds)
      break;
  }
  std::sort(samples.begin(), samples.end());
  const Timing t{quantile(samples, 0.5), quantile(samples, 0.1), quantile(samples, 0.9),
                 uint32_t(samples.size())};
  const double gbs = c.bytes / t.median_ns;
  fmt::print("{:<44} {:>10.1f} {:>10.1f} {:>10.1f} {:>9.2f} {:>8.2f} {:>7.1f}\n", c.name,
             t.median_ns * 1e-3, t.p10_ns * 1e-3, t.p90_ns * 1e-3, c.flop / t.median_ns, gbs,
             100.0 * gbs * 1e9 / copy_bytes_per_s_);
  std::fflush(stdout);
  json_lines_.push_back(fmt::format(
      R"({{"case":"{}","median_ns":{:.0f},"p10_ns":{:.0f},"p90_ns":{:.0f},"samples":{},"gflops":{:.3f},"gb_per_s":{:.3f},"device":"{}"}})",
      c.name, t.median_ns, t.p10_ns, t.p90_ns, t.samples, c.flop / t.median_ns, gbs,
      device_->caps().device_name));
  return t;
}

}  // namespace hadal::bench
