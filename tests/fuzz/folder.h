// A folder for what a target reads as files.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>

namespace hadal::fuzz {

// Of the process, gone at its end.
class Folder {
 public:
  Folder()
      : path_(std::filesystem::temp_directory_path() / ("hadal-fuzz-" + std::to_string(getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace hadal::fuzz
