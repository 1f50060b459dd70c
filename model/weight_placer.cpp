#include "weight_placer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "hadal/reference/formats.h"
#include "hadal/types.h"

namespace hadal::model {
namespace {

constexpr uint64_t kTensorAlignment = 256;            // of every tensor in device memory
constexpr uint64_t kBlockBytes = uint64_t{1} << 30;   // some drivers allocate at most 2 GiB at once
constexpr uint64_t kChunkBytes = uint64_t{16} << 20;  // copied, then dropped from memory, at a time
constexpr uint64_t kCachedBytes = uint64_t{256} << 10;  // stays in a core's cache between two reads

constexpr uint64_t align(uint64_t bytes, uint64_t to) {
  return (bytes + to - 1) / to * to;
}

std::string shape_text(const std::vector<uint64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

Status malformed(const TensorView& view, const std::string& rule) {
  return {Errc::kMalformed, fmt::format("{}: tensor {} {}", view.file, view.name, rule)};
}

// Index of the first e4m3 NaN code, or -1.
ptrdiff_t find_nan_code(std::span<const std::byte> codes) {
  const auto* p = reinterpret_cast<const uint8_t*>(codes.data());
  constexpr size_t kBlock = 4096;  // without a branch inside, so that the compiler uses vectors
  size_t i = 0;
  for (; i + kBlock <= codes.size(); i += kBlock) {
    uint64_t found = 0;
    for (size_t j = 0; j < kBlock; j += 8) {
      uint64_t w = 0;
      std::memcpy(&w, p + i + j, 8);
      // A byte is 0x7f after masking the sign exactly when adding 1 sets its top bit.
      found |= (w & 0x7f7f7f7f7f7f7f7full) + 0x0101010101010101ull;
    }
    if (found & 0x8080808080808080ull) break;
  }
  for (; i < codes.size(); ++i) {
    if ((p[i] & 0x7f) == 0x7f) return ptrdiff_t(i);
  }
  return -1;
}

}  // namespace

WeightPlacer::WeightPlacer(const Checkpoint& checkpoint, uint64_t max_allocation_bytes,
                           Device* importer)
    : checkpoint_(checkpoint), max_allocation_bytes_(max_allocation_bytes), importer_(importer) {}

WeightPlacer::WeightPlacer(WeightPlacer&& plan, Device& device, std::span<const Buffer> blocks,
                           const LoadOptions& options)
    : checkpoint_(plan.checkpoint_),
      max_allocation_bytes_(plan.max_allocation_bytes_),
      importer_(plan.importer_),
      imports_(std::move(plan.imports_)),
      device_(&device),
      blocks_(blocks),
      options_(&options),
      block_bytes_(plan.block_bytes_),
      source_total_(plan.source_bytes_),
      equal_(std::move(plan.equal_)) {
  if (options.read_ahead_bytes == 0 || plan.order_.empty()) return;
  read_ahead_ =
      std::make_unique<ReadAhead>(std::move(plan.order_), options.read_ahead_bytes,
                                  [&checkpoint = checkpoint_](std::span<const std::byte> piece) {
                                    checkpoint.fetch_pages(piece);
                                  });
}

uint64_t WeightPlacer::total_bytes() const {
  uint64_t total = 0;
  for (uint64_t bytes : block_bytes_) total += bytes;
  return total;
}

Result<WeightPlacer::Slot> WeightPlacer::place(uint64_t bytes, const std::string& what) {
  const uint64_t size = align(std::max<uint64_t>(bytes, 16), kTensorAlignment);
  const uint64_t limit = std::min(kBlockBytes, max_allocation_bytes_);
  if (size > max_allocation_bytes_) {
    return Status(Errc::kOutOfDeviceMemory,
                  fmt::format("{}: needs one allocation of {} bytes, the device allows {}", what,
                              size, max_allocation_bytes_));
  }
  if (!device_) {
    if (block_bytes_.empty() || block_bytes_.back() + size > limit) block_bytes_.push_back(0);
    block_bytes_.back() += size;
    return Slot{};
  }
  if (block_used_ + size > block_bytes_[block_]) {
    ++block_;
    block_used_ = 0;
  }
  // The plan compared tensors; it no longer fits when their file has changed since.
  if (block_ >= blocks_.size() || block_used_ + size > block_bytes_[block_]) {
    return Status(Errc::kMalformed, fmt::format("{}: file changed while it was loaded", what));
  }
  const Slot slot{blocks_[block_].address() + block_used_, &blocks_[block_], block_used_};
  block_used_ += size;
  return slot;
}

DeviceAddress WeightPlacer::in_place(const TensorView& view, uint64_t row_bytes) {
  if (!importer_ || view.bytes.empty() || row_bytes % 16) return 0;
  const Checkpoint::File file = checkpoint_.file_of(view);
  const auto offset = uint64_t(view.bytes.data() - file.bytes.data());
  if (offset % kTensorAlignment) return 0;
  auto found = imports_.find(file.bytes.data());
  if (found == imports_.end()) {
    // A driver that refuses is asked once per file; its tensors are then copied.
    Result<Buffer> buffer = importer_->import_host(file.bytes);
    ImportedFile imported{buffer.ok() ? std::move(buffer).value() : Buffer(), file.owner};
    found = imports_.emplace(file.bytes.data(), std::move(imported)).first;
  }
  return found->second.buffer ? found->second.buffer.address() + offset : 0;
}

std::vector<ImportedFile> WeightPlacer::take_imports() {
  std::vector<ImportedFile> files;
  for (auto& [data, file] : imports_) {
    if (file.buffer) files.push_back(std::move(file));
  }
  imports_.clear();
  return files;
}

Status WeightPlacer::write(const Slot& slot, uint64_t offset, std::span<const std::byte> data) {
  return device_->upload(*slot.block, slot.offset + offset, data);
}

void WeightPlacer::reads(std::span<const std::byte> bytes) {
  if (!device_) {
    order_.push_back(bytes);
  } else if (read_ahead_) {
    read_ahead_->consumed(bytes.size());
  }
}

Status WeightPlacer::report(uint64_t bytes) const {
  if (options_->progress && !options_->progress(source_bytes_ + bytes, source_total_)) {
    return {Errc::kCancelled, "load: cancelled"};
  }
  return {};
}

Status WeightPlacer::finished(const TensorView& view) {
  source_bytes_ += view.bytes.size();
  if (!device_) return {};
  checkpoint_.release_pages(view.bytes);
  return report(0);
}

Status WeightPlacer::copy_chunk(std::span<const std::byte> source, const Slot& slot,
                                uint64_t offset, uint64_t row_bytes, uint64_t dst_stride_bytes) {
  const uint64_t rows = source.size() / row_bytes;
  const std::span<std::byte> mapped = slot.block->mapped();
  std::vector<std::byte> staging(mapped.empty() ? rows * dst_stride_bytes : 0);
  std::byte* out = mapped.empty() ? staging.data() : &mapped[slot.offset + offset];
  if (row_bytes == dst_stride_bytes) {
    std::memcpy(out, source.data(), source.size());
  } else {
    for (uint64_t r = 0; r < rows; ++r) {
      std::memcpy(out + r * dst_stride_bytes, &source[r * row_bytes], row_bytes);
      std::memset(out + r * dst_stride_bytes + row_bytes, 0, dst_stride_bytes - row_bytes);
    }
  }
  return mapped.empty() ? write(slot, offset, staging) : Status();
}

Status WeightPlacer::copy_rows(const TensorView& view, const Slot& slot, uint32_t rows,
                               uint64_t row_bytes, uint64_t dst_stride_bytes) {
  if (!device_) {
    reads(view.bytes);
    return finished(view);
  }
  // Mapped memory takes small chunks, which are checked and copied while they are in the cache.
  const uint64_t chunk_bytes = slot.block->mapped().empty() ? kChunkBytes : kCachedBytes;
  const uint64_t rows_per_chunk = std::max<uint64_t>(1, chunk_bytes / dst_stride_bytes);
  uint64_t kept = 0;  // first byte whose pages have not been dropped
  for (uint64_t row = 0; row < rows; row += rows_per_chunk) {
    const uint64_t at = row * row_bytes, count = std::min<uint64_t>(rows_per_chunk, rows - row);
    const auto source = view.bytes.subspan(at, count * row_bytes);
    const bool is_e4m3 = view.dtype == DType::kF8E4M3;
    if (const ptrdiff_t nan = is_e4m3 ? find_nan_code(source) : -1; nan >= 0) {
      return malformed(view,
                       fmt::format("must hold no NaN, got one at element {}", at + uint64_t(nan)));
    }
    HADAL_TRY(copy_chunk(source, slot, row * dst_stride_bytes, row_bytes, dst_stride_bytes));
    reads(source);
    if (const uint64_t done = at + source.size(); done - kept >= kChunkBytes) {
      checkpoint_.release_pages(view.bytes.subspan(kept, done - kept));
      kept = done;
      HADAL_TRY(report(done));
    }
  }
  return finished(view);
}

Result<const TensorView*> WeightPlacer::matrix_view(const std::string& name, uint32_t n,
                                                    uint32_t k) {
  const TensorView* view = checkpoint_.find(name);
  if (!view) return Status(Errc::kMalformed, fmt::format("checkpoint: tensor {} is missing", name));
  if (view->shape != std::vector<uint64_t>{n, k}) {
    return malformed(
        *view, fmt::format("must have shape [{}, {}], got {}", n, k, shape_text(view->shape)));
  }
  return view;
}

Result<const TensorView*> WeightPlacer::scale_view(const TensorView& weight, uint32_t n,
                                                   uint32_t k) {
  const std::string name = weight.name + "_scale_inv";
  const TensorView* scale = checkpoint_.find(name);
  if (!scale) {
    return malformed(weight, fmt::format("is F8_E4M3 and needs {}, which is missing", name));
  }
  const std::vector<uint64_t> shape{ceil_div(n, kFp8BlockElems), ceil_div(k, kFp8BlockElems)};
  if (scale->shape != shape) {
    return malformed(*scale, fmt::format("must have shape {}, got {}", shape_text(shape),
                                         shape_text(scale->shape)));
  }
  if (scale->dtype != DType::kF32) {
    return malformed(*scale, fmt::format("must be F32, got {}", dtype_name(scale->dtype)));
  }
  reads(scale->bytes);
  if (device_) {
    for (size_t i = 0; i < scale->bytes.size(); i += 4) {
      float value = 0;
      std::memcpy(&value, &scale->bytes[i], 4);
      if (std::isfinite(value)) continue;
      return malformed(*scale, fmt::format("must be finite, got {} at element {}", value, i / 4));
    }
  }
  return scale;
}

Result<LinearWeight> WeightPlacer::fp8_matrix(const TensorView& view, uint32_t n, uint32_t k) {
  HADAL_ASSIGN(const TensorView* scale, scale_view(view, n, k));
  LinearWeight w;
  w.n = n, w.k = k;
  w.b_stride = round_up(k, 16);
  w.b_scale_stride = ceil_div(k, kFp8BlockElems);
  w.b = in_place(view, k);
  if (w.b) {
    HADAL_TRY(finished(view));
  } else {
    HADAL_ASSIGN(const Slot codes, place(uint64_t{n} * w.b_stride, view.name));
    HADAL_TRY(copy_rows(view, codes, n, k, w.b_stride));
    w.b = codes.address;
  }
  const uint64_t scale_row = uint64_t{w.b_scale_stride} * 4;
  HADAL_ASSIGN(const Slot scales, place(scale->bytes.size(), scale->name));
  HADAL_TRY(copy_rows(*scale, scales, ceil_div(n, kFp8BlockElems), scale_row, scale_row));
  // While planning there is no address yet; is_fp8() must tell the truth all the same.
  w.b_scale = device_ ? scales.address : 1;
  return w;
}

Result<LinearWeight> WeightPlacer::bf16_matrix(const std::string& name, uint32_t n, uint32_t k) {
  HADAL_ASSIGN(const TensorView* view, matrix_view(name, n, k));
  if (view->dtype != DType::kBf16) {
    return malformed(*view, fmt::format("must be BF16, got {}", dtype_name(view->dtype)));
  }
  LinearWeight w;
  w.n = n, w.k = k;
  w.b_stride = round_up(k, 8);
  w.b = in_place(*view, uint64_t{k} * 2);
  if (w.b) {
    HADAL_TRY(finished(*view));
    return w;
  }
  HADAL_ASSIGN(const Slot slot, place(uint64_t{n} * w.b_stride * 2, name));
  HADAL_TRY(copy_rows(*view, slot, n, uint64_t{k} * 2, uint64_t{w.b_stride} * 2));
  w.b = slot.address;
  return w;
}

Result<LinearWeight> WeightPlacer::linear(const std::string& name, uint32_t n, uint32_t k) {
  HADAL_ASSIGN(const TensorView* view, matrix_view(name, n, k));
  if (view->dtype == DType::kF8E4M3) return fp8_matrix(*view, n, k);
  if (view->dtype == DType::kBf16) return bf16_matrix(name, n, k);
  return malformed(*view, fmt::format("must be F8_E4M3 or BF16, got {}", dtype_name(view->dtype)));
}

Result<LinearWeight> WeightPlacer::linear_as_bf16(const std::string& name, uint32_t n, uint32_t k) {
  HADAL_ASSIGN(const TensorView* view, matrix_view(name, n, k));
  if (view->dtype != DType::kF8E4M3) return bf16_matrix(name, n, k);
  HADAL_ASSIGN(const TensorView* scale, scale_view(*view, n, k));
  LinearWeight w;
  w.n = n, w.k = k;
  w.b_stride = round_up(k, 8);
  HADAL_ASSIGN(const Slot slot, place(uint64_t{n} * w.b_stride * 2, name));
  w.b = slot.address;
  reads(view->bytes);
  if (!device_) return w;
  const uint32_t k_blocks = ceil_div(k, kFp8BlockElems);
  std::vector<uint16_t> row(w.b_stride, 0);
  for (uint32_t r = 0; r < n; ++r) {
    for (uint32_t c = 0; c < k; ++c) {
      float s = 0;
      const size_t block = size_t(r / kFp8BlockElems) * k_blocks + c / kFp8BlockElems;
      std::memcpy(&s, &scale->bytes[block * 4], 4);
      const auto code = uint8_t(view->bytes[size_t(r) * k + c]);
      row[c] = reference::bf16_encode(reference::e4m3_decode(code) * s);
    }
    HADAL_TRY(write(slot, uint64_t{r} * w.b_stride * 2, std::as_bytes(std::span(row))));
  }
  checkpoint_.release_pages(view->bytes);
  return w;
}

Result<DeviceAddress> WeightPlacer::vector(const std::string& name, uint32_t n) {
  const TensorView* view = checkpoint_.find(name);
  if (!view) return Status(Errc::kMalformed, fmt::format("checkpoint: tensor {} is missing", name));
  if (view->shape != std::vector<uint64_t>{n}) {
    return malformed(*view,
                     fmt::format("must have shape [{}], got {}", n, shape_text(view->shape)));
  }
  if (view->dtype != DType::kBf16 && view->dtype != DType::kF32) {
    return malformed(*view, fmt::format("must be BF16 or F32, got {}", dtype_name(view->dtype)));
  }
  HADAL_ASSIGN(const Slot slot, place(uint64_t{n} * 4, name));
  reads(view->bytes);
  if (device_) {
    std::vector<float> values(n);
    for (uint32_t i = 0; i < n; ++i) {
      if (view->dtype == DType::kF32) {
        std::memcpy(&values[i], &view->bytes[size_t(i) * 4], 4);
      } else {
        uint16_t code = 0;
        std::memcpy(&code, &view->bytes[size_t(i) * 2], 2);
        values[i] = reference::bf16_decode(code);
      }
    }
    HADAL_TRY(write(slot, 0, std::as_bytes(std::span(values))));
  }
  HADAL_TRY(finished(*view));
  return slot.address;
}

Result<DeviceAddress> WeightPlacer::bytes(std::span<const std::byte> data) {
  HADAL_ASSIGN(const Slot slot, place(data.size(), "weight table"));
  if (device_) HADAL_TRY(write(slot, 0, data));
  return slot.address;
}

bool WeightPlacer::equal_tensors(const std::string& a, const std::string& b) {
  const auto [answer, is_new] = equal_.try_emplace({a, b}, false);
  if (!is_new) return answer->second;
  const TensorView *x = checkpoint_.find(a), *y = checkpoint_.find(b);
  if (!x || !y || x->dtype != y->dtype || x->shape != y->shape) return false;
  for (size_t at = 0; at < x->bytes.size(); at += kChunkBytes) {
    const size_t count = std::min<size_t>(kChunkBytes, x->bytes.size() - at);
    const bool equal = std::memcmp(&x->bytes[at], &y->bytes[at], count) == 0;
    checkpoint_.release_pages(x->bytes.subspan(at, count));
    checkpoint_.release_pages(y->bytes.subspan(at, count));
    if (!equal) return false;
  }
  return answer->second = true;
}

}  // namespace hadal::model
