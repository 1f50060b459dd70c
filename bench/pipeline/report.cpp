#include "pipeline/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "support/bench.h"

namespace hadal::bench {
namespace {

std::string driver_threads() {
  const char* threads = std::getenv("LP_NUM_THREADS");
  return threads ? threads : "";
}

}  // namespace

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[size_t(q * double(values.size() - 1) + 0.5)];
}

void Report::print_head(const ServedModel& model, double first_token_seconds,
                        double seconds_since_start) {
  const Caps& caps = model.caps();
  const std::string threads = driver_threads();
  fmt::print("pipeline: {} ({} {}), subgroup {}, LP_NUM_THREADS {}\n", caps.device_name,
             caps.driver_name, caps.driver_info, caps.subgroup_size,
             threads.empty() ? "unset" : threads);
  fmt::print("load {:.3f} s, first token {:.3f} s ({:.3f} s after the program's start)\n",
             model.load_seconds(), first_token_seconds, seconds_since_start);
  fmt::print("{:<36} {:>10} {:>10} {:>10}\n", "", "median", "p10", "p90");
  first_token_seconds_ = first_token_seconds;
}

void Report::add(Figure figure) {
  const int digits = figure.median() < 10 ? 3 : 1;
  fmt::print("{:<22} {:<13} {:>10.{}f} {:>10.{}f} {:>10.{}f}\n", figure.name, figure.unit,
             figure.median(), digits, quantile(figure.samples, 0.1), digits,
             quantile(figure.samples, 0.9), digits);
  std::fflush(stdout);
  figures_.push_back(std::move(figure));
}

void Report::add(std::vector<KernelTime> kernels) {
  std::sort(kernels.begin(), kernels.end(), [](const KernelTime& a, const KernelTime& b) {
    return a.microseconds > b.microseconds;
  });
  for (const KernelTime& k : kernels) {
    fmt::print("  {:<20} {:<22} {:>6.1f} dispatches {:>10.1f} us {:>6.1f} %\n", k.what, k.kernel,
               k.dispatches, k.microseconds, 100 * k.share);
  }
  kernels_.insert(kernels_.end(), kernels.begin(), kernels.end());
}

void Report::wrong(const std::string& name) {
  fmt::print("{:<22} WRONG RESULT, speed not printed\n", name);
  right_ = false;
}

const Figure* Report::find(const std::string& name) const {
  const auto found = std::find_if(figures_.begin(), figures_.end(),
                                  [&](const Figure& figure) { return figure.name == name; });
  return found == figures_.end() ? nullptr : &*found;
}

void Report::write_json(const std::string& file, const ServedModel& model) const {
  if (file.empty()) return;
  nlohmann::ordered_json json;
  const Caps& caps = model.caps();
  json["model"] = model.options().directory;
  json["device"] = caps.device_name;
  json["driver"] = fmt::format("{} {}", caps.driver_name, caps.driver_info);
  json["subgroup"] = caps.subgroup_size;
  json["lp_num_threads"] = driver_threads();
  json["load_s"] = model.load_seconds();
  json["first_token_s"] = first_token_seconds_;
  json["figures"] = nlohmann::json::array();
  for (const Figure& f : figures_) {
    json["figures"].push_back({{"name", f.name},
                               {"unit", f.unit},
                               {"median", f.median()},
                               {"p10", quantile(f.samples, 0.1)},
                               {"p90", quantile(f.samples, 0.9)},
                               {"samples", f.samples}});
  }
  json["kernels"] = nlohmann::json::array();
  for (const KernelTime& k : kernels_) {
    json["kernels"].push_back({{"what", k.what},
                               {"kernel", k.kernel},
                               {"dispatches", k.dispatches},
                               {"us", k.microseconds},
                               {"share", k.share}});
  }
  std::ofstream out(file);
  out << json.dump(1) << '\n';
  out.close();
  if (!out) require(Status(Errc::kIo, file + ": cannot be written"));
}

}  // namespace hadal::bench
