#include "support/bench.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

namespace hadal::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr uint64_t kColdBytes = 256u << 20;  // several times the largest last-level cache in use

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double quantile(const std::vector<double>& sorted, double q) {
  return sorted[size_t(q * double(sorted.size() - 1) + 0.5)];
}

// Five digits are more than a measurement has, so that the file reads like the table.
double rounded(double value) {
  return std::isfinite(value) ? std::stod(fmt::format("{:.5g}", value)) : value;
}

// 0 for a case of no work: a zero-sized problem is legal and takes no time.
double per_ns(double amount, double ns) {
  return ns > 0 ? amount / ns : 0.0;
}

// Uniform 32-bit values, quick enough for buffers of a gigabyte (Steele's SplitMix, upper half).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u) {}
  uint32_t operator()() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    return uint32_t((z ^ (z >> 27)) >> 32);
  }
  float between(float low, float high) {
    return low + (high - low) * (float((*this)() >> 8) * 0x1p-24f);
  }

 private:
  uint64_t state_;
};

// Fills a buffer piece by piece: no host copy of a gigabyte.
template <class T>
void fill(const std::function<void(uint64_t, std::span<const std::byte>)>& upload, uint64_t count,
          const std::function<T()>& next) {
  std::vector<T> piece;
  for (uint64_t at = 0; at < count; at += piece.size()) {
    piece.resize(std::min<uint64_t>(count - at, 1u << 20));
    for (T& value : piece) value = next();
    upload(at * sizeof(T), std::as_bytes(std::span(piece)));
  }
}

Options parse_options(const std::string& kernel, int argc, const char* const* argv) {
  Options options;
  std::vector<std::string> shapes;
  CLI::App app("Checks " + kernel + " against the reference, then times it on the device.");
  app.add_option("--shape", shapes,
                 "sizes to run instead of the listed ones, e.g. m=128,n=4096,k=7168 (--list shows "
                 "the dimensions; those left out take their listed values); may be repeated")
      ->delimiter('\0');
  app.add_option("--filter", options.filter, "only cases whose line in --list contains this");
  app.add_flag("--list", options.list, "print the cases and run nothing");
  app.add_option("--json", options.json, "write the results to this file, a list of objects");
  app.add_option("--device", options.device, "device index or part of its name");
  app.add_option("--seconds", options.min_seconds, "least time per case")->capture_default_str();
  app.add_option("--samples", options.min_samples,
                 "least samples per case; a case may stop at 3 "
                 "after four times --seconds")
      ->check(CLI::Range(1u, 1000000u))
      ->capture_default_str();
  app.add_flag("--cold", options.cold, "rewrite 256 MiB between samples, so that caches are cold");
  app.add_option("--policy", options.policy,
                 "which paths the FP8 GEMMs may take: invariant (the default: a row's bits do not "
                 "depend on m), variant, coarse (also float8 matrix units)")
      ->check(CLI::IsMember({"invariant", "variant", "coarse"}));
  app.add_option("--tuning", options.tuning,
                 "a file of hadal-tune: the FP8 GEMMs take its choices, and their path says tuned")
      ->check(CLI::ExistingFile);
  app.add_option("--attention", options.attention,
                 "the path of the attention kernels, if the device can run it, else portable; "
                 "without it their own choice")
      ->check(CLI::IsMember({"portable", "lanes", "shared", "coopmat"}));
  app.add_flag("--no-roofline", options.no_roofline, "do not measure the device's limits first");
  app.add_flag("--quick", options.quick, "few cases and samples: a smoke run, not a measurement");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    std::exit(app.exit(e) == 0 ? 0 : 2);
  }
  for (const std::string& text : shapes) {
    const std::optional<Shape> shape = Shape::parse(text);
    if (!shape) {
      fmt::print(stderr, "bench: --shape must be name=value,name=value, got {}\n", text);
      std::exit(2);
    }
    options.shapes.push_back(*shape);
  }
  if (options.quick) options.min_seconds = 0.05, options.min_samples = 3;
  return options;
}

}  // namespace

void require(const Status& status) {
  if (status.ok()) return;
  fmt::print(stderr, "bench: {}\n", status.message());
  std::exit(2);
}

std::string path_of(const std::string& config_text) {
  const size_t colon = config_text.find(": ");
  const size_t begin = colon == config_text.npos ? 0 : colon + 2;
  return config_text.substr(begin, config_text.find(';', begin) - begin);
}

Bench::Bench(std::string kernel, int argc, const char* const* argv)
    : Bench(kernel, parse_options(kernel, argc, argv)) {}

Bench::Bench(std::string kernel, const Options& options)
    : kernel_(std::move(kernel)), options_(options) {}

Bench::~Bench() = default;

void Bench::add(const std::string& kernel, const Shape& shape) {
  cases_.push_back({kernel, shape});
}

std::vector<Bench::Case> Bench::selected() const {
  std::vector<Case> result;
  const auto take = [&](const Case& c) {
    const std::string line = c.kernel + " " + c.shape.to_string();
    if (line.find(options_.filter) == line.npos) return;
    if (std::find(result.begin(), result.end(), c) == result.end()) result.push_back(c);
  };
  if (options_.shapes.empty()) {
    for (const Case& c : cases_) take(c);
    return result;
  }
  for (const Shape& wanted : options_.shapes) {
    // A shape with all dimensions of some cases is not one of those that have more.
    const bool full = std::any_of(cases_.begin(), cases_.end(), [&](const Case& c) {
      return c.shape.size() == wanted.size() && c.shape.with(wanted);
    });
    bool fits = false;
    for (const Case& c : cases_) {
      if (full && c.shape.size() != wanted.size()) continue;
      if (const std::optional<Shape> shape = c.shape.with(wanted)) {
        take({c.kernel, *shape});
        fits = true;
      }
    }
    if (fits) continue;
    fmt::print(stderr, "bench: no case of {} has the dimensions of {}; one is {}\n", kernel_,
               wanted.to_string(), cases_.empty() ? "" : cases_.front().shape.to_string());
    std::exit(2);
  }
  return result;
}

int Bench::run(const std::function<void(const Shape&)>& run_case) {
  const std::vector<Case> cases = selected();
  if (options_.list) {
    for (const Case& c : cases) fmt::print("{} {}\n", c.kernel, c.shape.to_string());
    return 0;
  }
  for (const Case& c : cases) {
    width_ = std::max(width_, c.kernel.size() + 1 + c.shape.to_string().size());
  }
  open_device();
  for (const Case& c : cases) {
    current_kernel_ = c.kernel, current_shape_ = c.shape.to_string();
    run_case(c.shape);
  }
  write_json();
  return wrong_ ? 1 : 0;
}

GemmPolicy Bench::gemm_policy() const {
  GemmPolicy policy;
  policy.batch_invariant = options_.policy == "invariant";
  policy.coarse_sums = options_.policy == "coarse";
  policy.tuning = tuning_ ? &*tuning_ : nullptr;
  return policy;
}

void Bench::open_device() {
  DeviceOptions device_options;
  device_options.select = options_.device;
  device_ = require(Device::create(device_options));
  const Caps& c = caps();
  fmt::print("{}: {} ({} {}), subgroup {}{}{}\n", kernel_, c.device_name, c.driver_name,
             c.driver_info, c.subgroup_size,
             c.is_cpu ? fmt::format(", {} threads", device_threads(c)) : "",
             options_.cold ? ", cold caches" : "");
  if (!options_.tuning.empty()) {
    std::ifstream file(options_.tuning, std::ios::binary);
    const std::string text(std::istreambuf_iterator<char>(file), {});
    tuning_ = require(TuningTable::parse(text, c));
  }
  if (options_.cold) cold_ = buffer(options_.quick ? kColdBytes / 4 : kColdBytes);
  if (!options_.no_roofline) {
    roofline_ = measure_roofline(*device_, options_.quick);
    fmt::print(
        "roofline: copy {:.1f} GB/s (read + write), read {:.1f} GB/s, multiply-add {:.1f} "
        "GFLOP/s\n",
        roofline_.copy_bytes_per_s * 1e-9, roofline_.read_bytes_per_s * 1e-9,
        roofline_.fma_flop_per_s * 1e-9);
    const auto roof = [&](const char* kernel, double flop_per_s, double bytes_per_s) {
      report(kernel, "", {"roofline", flop_per_s, bytes_per_s}, {1e9, 1e9, 1e9, 0}, {});
    };
    roof("copy", 0, roofline_.copy_bytes_per_s);
    roof("read", 0, roofline_.read_bytes_per_s);
    roof("fma", roofline_.fma_flop_per_s, 0);
  }
  fmt::print("{:<{}} {:>10} {:>10} {:>10} {:>9} {:>8} {:>6} {:>7}  {}\n", "case", width_,
             "median us", "p10", "p90", "GFLOP/s", "GB/s", "roof %", "err/bnd", "path");
}

Buffer Bench::buffer(uint64_t bytes) {
  return require(device_->allocate(std::max<uint64_t>(bytes, 16)));
}

Buffer Bench::floats(uint64_t count, float low, float high) {
  Buffer result = buffer(count * 4);
  Random random(1);
  fill<float>([&](uint64_t at, auto bytes) { upload(result, at, bytes); }, count,
              [&] { return random.between(low, high); });
  return result;
}

Buffer Bench::e4m3(uint64_t count) {
  Buffer result = buffer(count);
  Random random(2);
  fill<uint8_t>([&](uint64_t at, auto bytes) { upload(result, at, bytes); }, count,
                [&] {
                  const uint8_t code = uint8_t(random());
                  return uint8_t((code & 0x7f) == 0x7f ? code ^ 1 : code);  // no NaN
                });
  return result;
}

Buffer Bench::bf16(uint64_t count, float low, float high) {
  Buffer result = buffer(count * 2);
  Random random(3);
  fill<uint16_t>([&](uint64_t at, auto bytes) { upload(result, at, bytes); }, count,
                 [&] {
                   const float x = random.between(low, high);
                   uint32_t bits = 0;
                   std::memcpy(&bits, &x, 4);
                   return uint16_t(bits >> 16);
                 });
  return result;
}

void Bench::upload(const Buffer& target, uint64_t offset, std::span<const std::byte> bytes) {
  require(device_->upload(target, offset, bytes));
}

void Bench::download(const Buffer& source, uint64_t offset, std::span<std::byte> bytes) {
  require(device_->download(source, offset, bytes));
}

std::vector<double> Bench::samples(Recorder& recorder) {
  const bool timestamps = caps().timestamp_period_ns > 0;
  Recorder eviction = require(Recorder::create(*device_));
  if (cold_) require(eviction.fill(cold_, 0, cold_.bytes(), 1));
  require(eviction.end());
  std::vector<double> result;
  const auto start = Clock::now();
  for (;;) {
    if (cold_) require(device_->run(eviction));
    const auto before = Clock::now();
    require(device_->run(recorder));
    double ns = seconds_since(before) * 1e9;
    if (timestamps) {
      ns = 0;
      for (const DispatchTiming& t : require(recorder.timings())) ns += t.ns;
    }
    result.push_back(ns);
    const double seconds = seconds_since(start);
    if (result.size() >= options_.min_samples && seconds >= options_.min_seconds) break;
    // Cases of seconds a run.
    if (result.size() >= 3 && seconds >= 4 * options_.min_seconds) break;
  }
  std::sort(result.begin(), result.end());
  return result;
}

Timing Bench::time(const Work& work, const std::function<Status(Recorder&)>& record,
                   const std::function<Check()>& check) {
  RecorderOptions recorder_options;
  recorder_options.timestamps = true;
  Recorder recorder = require(Recorder::create(*device_, recorder_options));
  require(record(recorder));
  require(recorder.end());
  require(device_->run(recorder));  // also compiles the driver's code and warms caches
  const Check checked = check();
  if (!checked.ok()) {
    fmt::print("{:<{}} WRONG RESULT, not timed: error is {:.3g} times its bound\n",
               current_kernel_ + " " + current_shape_, width_, checked.worst());
    wrong_ = true;
    return {};
  }
  const std::vector<double> ns = samples(recorder);
  const Timing t{quantile(ns, 0.5), quantile(ns, 0.1), quantile(ns, 0.9), uint32_t(ns.size())};
  report(current_kernel_, current_shape_, work, t, checked.worst());
  return t;
}

void Bench::report(const std::string& kernel, const std::string& shape, const Work& work,
                   const Timing& t, std::optional<double> worst) {
  using nlohmann::json;
  // Share of the roofline: the least time that the limits allow, over the time taken. That is
  // achieved / min(peak, intensity * bandwidth), and means something without arithmetic, too.
  const double least_ns = roofline_.fma_flop_per_s == 0
                              ? 0.0
                              : 1e9 * std::max(work.flop / roofline_.fma_flop_per_s,
                                               work.bytes / roofline_.bytes_per_s());
  const double share = per_ns(least_ns, t.median_ns);
  if (worst) {
    fmt::print("{:<{}} {:>10.1f} {:>10.1f} {:>10.1f} {:>9.2f} {:>8.2f} {:>6.1f} {:>7.3f}  {}\n",
               kernel + " " + shape, width_, t.median_ns * 1e-3, t.p10_ns * 1e-3, t.p90_ns * 1e-3,
               per_ns(work.flop, t.median_ns), per_ns(work.bytes, t.median_ns), 100 * share, *worst,
               work.path);
    std::fflush(stdout);
  }
  const uint32_t threads = device_threads(caps());
  nlohmann::ordered_json object;
  object["kernel"] = kernel;
  object["shape"] = shape;
  object["path"] = work.path;
  object["device"] = caps().device_name;
  object["driver"] = caps().driver_name + " " + caps().driver_info;
  object["threads"] = threads;
  object["median_ns"] = rounded(t.median_ns);
  object["p10_ns"] = rounded(t.p10_ns);
  object["p90_ns"] = rounded(t.p90_ns);
  object["tflops"] = rounded(per_ns(work.flop, t.median_ns) * 1e-3);
  object["gb_per_s"] = rounded(per_ns(work.bytes, t.median_ns));
  object["roofline_share"] = least_ns == 0 ? json() : json(rounded(share));
  object["worst_error_over_bound"] = worst ? json(rounded(*worst)) : json();
  object["samples"] = t.samples;
  object["cold"] = options_.cold;
  json_.push_back(object.dump());
}

void Bench::write_json() const {
  if (options_.json.empty()) return;
  std::ofstream out(options_.json);
  for (size_t i = 0; i < json_.size(); ++i) {
    out << (i == 0 ? "[" : ",\n ") << json_[i];
  }
  out << (json_.empty() ? "[]\n" : "]\n");
  if (!out.flush()) {
    fmt::print(stderr, "bench: cannot write {}\n", options_.json);
    std::exit(2);
  }
}

}  // namespace hadal::bench
