// The built programs as child processes, and what a refusal looks like: exit code 2, one line on
// standard error that names what is wrong, nothing on standard output.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "support/child.h"
#include "support/safetensors_writer.h"

namespace hadal::test {

// A cache that is kept for the whole run, so that pipelines are compiled once and the user's own is
// not touched.
inline const std::string& cache_variable() {
  static const hadal::testing::TempDir dir;
  static const std::string variable = "XDG_CACHE_HOME=" + dir.path().string();
  return variable;
}

// Of a child that needs no device, in bounded memory.
inline ChildOptions host_options() {
  ChildOptions options;
  options.environment = {cache_variable()};
#if !defined(__SANITIZE_ADDRESS__)  // whose shadow memory alone is terabytes of address space
  options.address_space_bytes = uint64_t{1} << 30;
#endif
  return options;
}

inline ChildOptions device_options() {
  ChildOptions options;
  options.environment = {cache_variable(), "LP_NUM_THREADS=0"};
  options.on_device = true;
  return options;
}

inline void expect_one_line(const ChildResult& r, int code) {
  EXPECT_EQ(r.code, code) << "signal " << r.signal << "\n" << r.errors;
  EXPECT_EQ(std::count(r.errors.begin(), r.errors.end(), '\n'), 1) << r.errors;
  EXPECT_TRUE(r.errors.starts_with("hadal-")) << r.errors;
}

// Refused: `part` is what the line must say.
inline void expect_refused(const std::vector<std::string>& command, const std::string& part,
                           const ChildOptions& options = host_options()) {
  SCOPED_TRACE(std::filesystem::path(command.front()).filename().string() + " ... " +
               command.back().substr(0, 80) + " -> " + part);
  const ChildResult r = run_child(command, options);
  expect_one_line(r, 2);
  EXPECT_EQ(r.output, "");
  EXPECT_NE(r.errors.find(part), std::string::npos) << r.errors;
}

}  // namespace hadal::test
