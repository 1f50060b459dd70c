#include "mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <limits>
#include <system_error>
#include <utility>

namespace hadal::model {
namespace {

// Closes the descriptor on every way out; a mapping outlives it.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

Status io_error(const std::string& path, std::string_view what, int error) {
  return {Errc::kIo, fmt::format("{}: file must be {}, got {}", path, what,
                                 std::error_code(error, std::generic_category()).message())};
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::filesystem::path& path, bool* found) {
  const std::string name = path.string();
  if (found != nullptr) *found = true;
  // O_NONBLOCK: opening a pipe without a writer must not wait for one.
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) {
    const int error = errno;
    if (found != nullptr) *found = error != ENOENT;
    return io_error(name, "readable", error);
  }
  struct stat info = {};
  if (::fstat(file.fd, &info) != 0) return io_error(name, "readable", errno);
  if (!S_ISREG(info.st_mode)) {
    return Status(Errc::kIo,
                  fmt::format("{}: file must be a regular file, got another kind", name));
  }
  if (static_cast<uint64_t>(info.st_size) > std::numeric_limits<size_t>::max()) {
    return io_error(name, "mappable", EFBIG);
  }
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) return MappedFile(name, nullptr, 0);  // mmap refuses a length of zero
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (data == MAP_FAILED) return io_error(name, "mappable", errno);
  return MappedFile(name, static_cast<const std::byte*>(data), size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

std::string_view MappedFile::text() const {
  return {reinterpret_cast<const char*>(data_), size_};
}

bool MappedFile::contains(std::span<const std::byte> bytes) const {
  const std::less_equal<> before;  // a total order even over unrelated pointers
  return data_ != nullptr && before(data_, bytes.data()) &&
         before(bytes.data() + bytes.size(), data_ + size_);
}

void MappedFile::expect_sequential_reads() const {
  if (data_ != nullptr) ::madvise(const_cast<std::byte*>(data_), size_, MADV_SEQUENTIAL);
}

bool MappedFile::advise(std::span<const std::byte> bytes, int advice) const {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = static_cast<size_t>(bytes.data() - data_) / page * page;
  const auto end = static_cast<size_t>(bytes.data() - data_) + bytes.size();
  return ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, advice) == 0;
}

void MappedFile::fetch(std::span<const std::byte> bytes) const {
  if (bytes.empty() || !contains(bytes)) return;
#ifdef MADV_POPULATE_READ
  if (advise(bytes, MADV_POPULATE_READ)) return;
#endif
  // An older kernel starts to read, without mapping and without a wait.
  advise(bytes, MADV_WILLNEED);
}

void MappedFile::release(std::span<const std::byte> bytes) const {
  if (bytes.empty() || !contains(bytes)) return;
  // Rounded outwards: a page shared with a neighbour is read again from the file when needed.
  advise(bytes, MADV_DONTNEED);
}

}  // namespace hadal::model
