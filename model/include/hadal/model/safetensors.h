// Read-only, validated views of .safetensors files and of sharded checkpoints of them.
// Source: the safetensors format description (8-byte little-endian header size, JSON, data).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "hadal/status.h"

namespace hadal::model {

// The format's types of whole bytes; its 4- and 6-bit ones are refused.
enum class DType {
  kF64,
  kF32,
  kF16,
  kBf16,
  kF8E4M3,
  kF8E5M2,
  kI64,
  kI32,
  kI16,
  kI8,
  kU8,
  kBool,
  kU64,
  kU32,
  kU16,
  kF8E8M0
};
[[nodiscard]] std::string_view dtype_name(DType dtype) noexcept;  // the format's, e.g. "F8_E4M3"
[[nodiscard]] size_t dtype_bytes(DType dtype) noexcept;

// One tensor: bytes inside a mapped file, valid while its Checkpoint lives. Row-major.
struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;
  std::span<const std::byte> bytes;  // exactly product(shape) * dtype_bytes(dtype), any alignment
  std::string file;                  // path, for messages
};

// All tensors of a checkpoint directory: every shard of model.safetensors.index.json, or
// model.safetensors alone. Files are mapped read-only; nothing is read until touched. A file that
// another process shortens while it is mapped kills the process (SIGBUS), as with every mapping.
// Thread safety: const functions may be called concurrently.
class Checkpoint {
 public:
  // Errors (message names the file, the tensor and the rule): kIo, kMalformed. Refuses: a header
  // longer than the file or than 100 MB, malformed JSON, unknown dtype, offsets out of range,
  // overlapping or leaving holes, sizes that overflow or disagree with the shape, more than 8
  // dimensions, bytes after the data, a shard missing or outside the directory, a tensor missing
  // from its shard, or present twice in one shard or in two. Tensors that a shard has beyond the
  // index are kept.
  [[nodiscard]] static Result<Checkpoint> open(const std::filesystem::path& model_dir);

  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  [[nodiscard]] const TensorView* find(std::string_view name) const;  // nullptr when absent
  [[nodiscard]] const std::vector<TensorView>& tensors() const;       // in order of file and offset
  [[nodiscard]] uint64_t data_bytes() const;                          // sum over all tensors

  // The whole file that holds `tensor`, as it is mapped (page-aligned), and what keeps it mapped
  // beyond the Checkpoint's life.
  struct File {
    std::span<const std::byte> bytes;
    std::shared_ptr<const void> owner;
  };
  [[nodiscard]] File file_of(const TensorView& tensor) const;

  // Reads the pages under `bytes` (of one of our views) into memory ahead of their use; may be
  // called from any thread.
  void fetch_pages(std::span<const std::byte> bytes) const;
  // Tells the kernel that the pages under `bytes` (of one of our views) will not be read again, so
  // that resident memory while loading stays bounded.
  void release_pages(std::span<const std::byte> bytes) const;

 private:
  struct Impl;
  explicit Checkpoint(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace hadal::model
