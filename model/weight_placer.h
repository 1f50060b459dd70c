// Puts tensors of a checkpoint into device memory. Weights::load walks the model twice with the
// same calls: once planning (sizes and checks only), once copying; both passes place alike.
// Private.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "hadal/model/safetensors.h"
#include "hadal/model/weights.h"
#include "read_ahead.h"

namespace hadal::model {

class WeightPlacer {
 public:
  // Planning pass: no device memory, no tensor data is touched. A tensor that needs
  // more than `max_allocation_bytes` is refused.
  // `importer`: a device that may read tensors in place; null copies everything.
  WeightPlacer(const Checkpoint& checkpoint, uint64_t max_allocation_bytes,
               Device* importer = nullptr);
  // Copying pass over the blocks that a finished plan asked for.
  WeightPlacer(WeightPlacer&& plan, Device& device, std::span<const Buffer> blocks,
               const LoadOptions& options);

  // A matrix [n, k], FP8 with scales or BF16, by the tensor's own type. Rows are re-strided.
  [[nodiscard]] Result<LinearWeight> linear(const std::string& name, uint32_t n, uint32_t k);
  // A BF16 copy of an FP8 matrix, dequantised and rounded to nearest.
  [[nodiscard]] Result<LinearWeight> linear_as_bf16(const std::string& name, uint32_t n,
                                                    uint32_t k);
  // A BF16 matrix only (embedding, head, router, eh_proj).
  [[nodiscard]] Result<LinearWeight> bf16_matrix(const std::string& name, uint32_t n, uint32_t k);
  // A vector of BF16 or F32, stored as float.
  [[nodiscard]] Result<DeviceAddress> vector(const std::string& name, uint32_t n);
  // Bytes made by the loader itself (address tables).
  [[nodiscard]] Result<DeviceAddress> bytes(std::span<const std::byte> data);

  // True when both tensors are present with equal types, shapes and contents; compared once.
  [[nodiscard]] bool equal_tensors(const std::string& a, const std::string& b);
  [[nodiscard]] bool has(const std::string& name) const {
    return checkpoint_.find(name) != nullptr;
  }

  // Files that the device reads in place, with what keeps them mapped.
  [[nodiscard]] std::vector<ImportedFile> take_imports();

  [[nodiscard]] const std::vector<uint64_t>& block_bytes() const { return block_bytes_; }
  [[nodiscard]] uint64_t total_bytes() const;
  [[nodiscard]] uint64_t source_bytes() const { return source_bytes_; }

 private:
  struct Slot {
    DeviceAddress address = 0;
    const Buffer* block = nullptr;
    uint64_t offset = 0;
  };
  [[nodiscard]] Result<const TensorView*> matrix_view(const std::string& name, uint32_t n,
                                                      uint32_t k);
  [[nodiscard]] Result<Slot> place(uint64_t bytes, const std::string& what);
  [[nodiscard]] Status copy_rows(const TensorView& view, const Slot& slot, uint32_t rows,
                                 uint64_t row_bytes, uint64_t dst_stride_bytes);
  [[nodiscard]] Status write(const Slot& slot, uint64_t offset, std::span<const std::byte> data);
  // The tensor's address inside its imported file when rows of `row_bytes` may stay where they are:
  // 256-byte aligned in the file and a multiple of 16 bytes long. 0: copy.
  [[nodiscard]] DeviceAddress in_place(const TensorView& view, uint64_t row_bytes);
  [[nodiscard]] Status finished(const TensorView& view);
  // Planning: `bytes` will be read next. Copying: they have been.
  void reads(std::span<const std::byte> bytes);
  // Tells how far the load is: `bytes` of the next tensor beside the finished ones.
  [[nodiscard]] Status report(uint64_t bytes) const;
  // Rows of one chunk of a matrix into a slot, padding zero; straight into mapped memory.
  [[nodiscard]] Status copy_chunk(std::span<const std::byte> source, const Slot& slot,
                                  uint64_t offset, uint64_t row_bytes, uint64_t dst_stride_bytes);
  [[nodiscard]] Result<LinearWeight> fp8_matrix(const TensorView& view, uint32_t n, uint32_t k);
  [[nodiscard]] Result<const TensorView*> scale_view(const TensorView& weight, uint32_t n,
                                                     uint32_t k);

  const Checkpoint& checkpoint_;
  uint64_t max_allocation_bytes_;
  Device* importer_;
  std::map<const std::byte*, ImportedFile> imports_;  // by the file's first byte
  Device* device_ = nullptr;                          // null while planning
  std::span<const Buffer> blocks_;
  const LoadOptions* options_ = nullptr;
  std::vector<uint64_t> block_bytes_;
  size_t block_ = 0;         // copying: index of the block in use
  uint64_t block_used_ = 0;  // bytes used in the current block
  uint64_t source_bytes_ = 0, source_total_ = 0;
  std::map<std::pair<std::string, std::string>, bool> equal_;  // answers of equal_tensors
  std::vector<std::span<const std::byte>> order_;              // planning: what copying will read
  std::unique_ptr<ReadAhead> read_ahead_;
};

}  // namespace hadal::model
