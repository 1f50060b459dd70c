// The figures of a run of the pipeline bench: a line each on standard output, and all as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pipeline/served_model.h"

namespace hadal::bench {

[[nodiscard]] double quantile(std::vector<double> values, double q);

// One figure, measured once per repetition.
struct Figure {
  std::string name, unit;  // "tg64x32", "tokens/s"
  std::vector<double> samples;
  [[nodiscard]] double median() const { return quantile(samples, 0.5); }
};

// A kernel's part of the device time of a step.
struct KernelTime {
  std::string what, kernel;  // "tg64", "fp8_gemm"
  double dispatches = 0, microseconds = 0, share = 0;
};

class Report {
 public:
  void print_head(const ServedModel& model, double first_token_seconds, double seconds_since_start);
  // Prints the figure and keeps it.
  void add(Figure figure);
  void add(std::vector<KernelTime> kernels);
  // A case whose result was wrong: it has no figures, and the program fails.
  void wrong(const std::string& name);
  [[nodiscard]] bool right() const { return right_; }
  // The figure of that name; null when its case did not run.
  [[nodiscard]] const Figure* find(const std::string& name) const;
  // Nothing for an empty name. Ends the program when the file cannot be written.
  void write_json(const std::string& file, const ServedModel& model) const;

 private:
  std::vector<Figure> figures_;
  std::vector<KernelTime> kernels_;
  double first_token_seconds_ = 0;
  bool right_ = true;
};

}  // namespace hadal::bench
