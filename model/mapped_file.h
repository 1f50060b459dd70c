// A regular file mapped read-only; the only way in which hadal::model reads files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "hadal/status.h"

namespace hadal::model {

class MappedFile {
 public:
  // Errors: kIo with errno's text; a directory, pipe or device is refused and never waited for.
  // `found` (when given) tells an absent file, which is no error for optional files, from the rest.
  [[nodiscard]] static Result<MappedFile> open(const std::filesystem::path& path,
                                               bool* found = nullptr);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }
  [[nodiscard]] std::string_view text() const;

  [[nodiscard]] bool contains(std::span<const std::byte> bytes) const;
  // Asks for read-ahead: the file will be read from front to back.
  void expect_sequential_reads() const;
  // Reads the pages under `bytes`, which must lie inside, into memory and maps them: a read of them
  // does not wait. Ignored where they cannot be read.
  void fetch(std::span<const std::byte> bytes) const;
  // Drops the resident pages under `bytes`, which must lie inside; a later read maps them again.
  void release(std::span<const std::byte> bytes) const;

 private:
  MappedFile(std::string path, const std::byte* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}
  // madvise() on the whole pages that hold `bytes`; false when the kernel refuses.
  bool advise(std::span<const std::byte> bytes, int advice) const;

  std::string path_;
  const std::byte* data_ = nullptr;  // null for an empty file
  size_t size_ = 0;
};

}  // namespace hadal::model
