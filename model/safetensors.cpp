#include "hadal/model/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <new>
#include <utility>

#include "json_fields.h"
#include "mapped_file.h"
#include "safetensors_json.h"

namespace hadal::model {
namespace {

constexpr uint64_t kLengthBytes = 8;  // the header's size, in front of the header

Status malformed(const std::string& file, std::string_view what) {
  return {Errc::kMalformed, fmt::format("{}: {}", file, what)};
}

Status malformed(const std::string& file, const HeaderEntry& entry, std::string_view what) {
  return malformed(file, fmt::format("tensor {} {}", in_quotes(entry.name), what));
}

// The header's text, whose length the file's first 8 bytes claim.
Result<std::string_view> header_text(const MappedFile& file) {
  const std::string_view text = file.text();
  if (text.size() < kLengthBytes) {
    return malformed(file.path(),
                     fmt::format("size must be at least 8 bytes, got {}", text.size()));
  }
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    length |= uint64_t{static_cast<unsigned char>(text[i])} << (8 * i);
  }
  if (length > kMaxHeaderBytes) {
    return malformed(file.path(), fmt::format("header must be at most {} bytes, got {}",
                                              kMaxHeaderBytes, length));
  }
  if (length > text.size() - kLengthBytes) {
    return malformed(file.path(), fmt::format("header must end inside the file, got {} > {} bytes",
                                              length, text.size() - kLengthBytes));
  }
  return text.substr(kLengthBytes, length);
}

// product(shape) * dtype_bytes must not overflow and must be what the offsets span.
Status check_size(const std::string& file, const HeaderEntry& entry) {
  uint64_t bytes = dtype_bytes(entry.dtype);
  for (const uint64_t dim : entry.shape) {
    if (dim != 0 && bytes > std::numeric_limits<uint64_t>::max() / dim) {
      return malformed(file, entry,
                       fmt::format("size must fit 64 bits, got {} x [{}]", dtype_name(entry.dtype),
                                   fmt::join(entry.shape, ",")));
    }
    bytes *= dim;
  }
  if (entry.begin > entry.end || entry.end - entry.begin != bytes) {
    return malformed(
        file, entry,
        fmt::format("data_offsets must span {} bytes ({} x [{}]), got [{},{}]", bytes,
                    dtype_name(entry.dtype), fmt::join(entry.shape, ","), entry.begin, entry.end));
  }
  return {};
}

// The tensors must cover the data section exactly, as the reference implementation demands: no byte
// of the file can be read as two tensors, and none can hide.
Status check_tiling(const std::string& file, const std::vector<HeaderEntry>& sorted,
                    uint64_t data_bytes) {
  uint64_t end = 0;
  for (const HeaderEntry& entry : sorted) {
    if (entry.begin != end) {
      return malformed(file, entry,
                       fmt::format("data must begin where the data before it ends, got {} {} {}",
                                   entry.begin, entry.begin < end ? "<" : ">", end));
    }
    if (entry.end > data_bytes) {
      return malformed(
          file, entry,
          fmt::format("data must end inside the file, got {} > {}", entry.end, data_bytes));
    }
    end = entry.end;
  }
  if (end != data_bytes) {
    return malformed(file, fmt::format("data must end with the last tensor, got {} bytes more",
                                       data_bytes - end));
  }
  return {};
}

Status append_tensors(const MappedFile& file, std::vector<TensorView>& tensors) {
  HADAL_ASSIGN(const std::string_view text, header_text(file));
  if (!text.starts_with('{')) {
    return malformed(file.path(), fmt::format("header must begin with {{, got {}",
                                              in_quotes(text.substr(0, 1))));
  }
  HADAL_ASSIGN(std::vector<HeaderEntry> entries, parse_safetensors_header(text, file.path()));
  if (entries.size() > kMaxTensors - tensors.size()) {
    return malformed(file.path(),
                     fmt::format("checkpoint must have at most {} tensors, got more", kMaxTensors));
  }
  const auto data = file.bytes().subspan(kLengthBytes + text.size());
  for (const HeaderEntry& entry : entries) HADAL_TRY(check_size(file.path(), entry));
  std::sort(entries.begin(), entries.end(), [](const HeaderEntry& a, const HeaderEntry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  HADAL_TRY(check_tiling(file.path(), entries, data.size()));

  for (HeaderEntry& entry : entries) {
    tensors.push_back({std::move(entry.name), entry.dtype, std::move(entry.shape),
                       data.subspan(entry.begin, entry.end - entry.begin), file.path()});
  }
  file.release(file.bytes().first(kLengthBytes + text.size()));
  file.expect_sequential_reads();
  return {};
}

// Names and order of the shards, and what the index claims about them; no entries without an index.
Result<ShardIndex> find_shards(const std::filesystem::path& dir) {
  bool found = false;
  const auto file = MappedFile::open(dir / "model.safetensors.index.json", &found);
  if (!found) return ShardIndex{{}, {"model.safetensors"}};
  HADAL_TRY(file.status());
  const std::string& name = file->path();
  if (file->bytes().size() > kMaxIndexBytes) {
    return malformed(name, fmt::format("size must be at most {} bytes, got {}", kMaxIndexBytes,
                                       file->bytes().size()));
  }
  return parse_shard_index(file->text(), name);
}

}  // namespace

std::string_view dtype_name(DType dtype) noexcept {
  switch (dtype) {
    case DType::kF64: return "F64";
    case DType::kF32: return "F32";
    case DType::kF16: return "F16";
    case DType::kBf16: return "BF16";
    case DType::kF8E4M3: return "F8_E4M3";
    case DType::kF8E5M2: return "F8_E5M2";
    case DType::kI64: return "I64";
    case DType::kI32: return "I32";
    case DType::kI16: return "I16";
    case DType::kI8: return "I8";
    case DType::kU8: return "U8";
    case DType::kBool: return "BOOL";
    case DType::kU64: return "U64";
    case DType::kU32: return "U32";
    case DType::kU16: return "U16";
    case DType::kF8E8M0: return "F8_E8M0";
  }
  return "unknown";
}

size_t dtype_bytes(DType dtype) noexcept {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
    case DType::kU64: return 8;
    case DType::kF32:
    case DType::kI32:
    case DType::kU32: return 4;
    case DType::kF16:
    case DType::kBf16:
    case DType::kI16:
    case DType::kU16: return 2;
    case DType::kF8E4M3:
    case DType::kF8E5M2:
    case DType::kF8E8M0:
    case DType::kI8:
    case DType::kU8:
    case DType::kBool: return 1;
  }
  return 0;
}

struct Checkpoint::Impl {
  std::vector<MappedFile> files;
  std::vector<TensorView> tensors;
  std::unordered_map<std::string_view, size_t> by_name;  // keys view the tensors' names
  uint64_t data_bytes = 0;

  Status load(const std::filesystem::path& dir);
  Status index_names();
  Status check_index(const std::filesystem::path& dir, const ShardIndex& index) const;
};

Status Checkpoint::Impl::load(const std::filesystem::path& dir) {
  HADAL_ASSIGN(ShardIndex index, find_shards(dir));
  std::vector<std::string> names = index.files;
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    bool found = false;
    auto file = MappedFile::open(dir / name, &found);
    if (!found && index.entries.empty()) {
      return {Errc::kIo, fmt::format("{}: directory must hold model.safetensors or "
                                     "model.safetensors.index.json, got neither",
                                     dir.string())};
    }
    HADAL_TRY(file.status());
    HADAL_TRY(append_tensors(*file, tensors));
    files.push_back(*std::move(file));
  }
  HADAL_TRY(index_names());
  for (const TensorView& tensor : tensors) data_bytes += tensor.bytes.size();
  return check_index(dir, index);
}

// Runs after all tensors are in place: a growing vector would move the names that the keys view.
Status Checkpoint::Impl::index_names() {
  by_name.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto [it, added] = by_name.emplace(tensors[i].name, i);
    if (added) continue;
    const std::string& first = tensors[it->second].file;
    return malformed(tensors[i].file,
                     fmt::format("tensor {} must occur once, got it {}", in_quotes(tensors[i].name),
                                 first == tensors[i].file ? "twice" : "in " + first + " too"));
  }
  return {};
}

Status Checkpoint::Impl::check_index(const std::filesystem::path& dir,
                                     const ShardIndex& index) const {
  for (const ShardIndex::Entry& entry : index.entries) {
    const std::string file = (dir / index.files[entry.file]).string();
    const auto it = by_name.find(entry.tensor);
    if (it == by_name.end() || tensors[it->second].file != file) {
      return malformed(
          file,
          fmt::format("tensor {} must be in this file, got {}", in_quotes(entry.tensor),
                      it == by_name.end() ? "it nowhere" : "it in " + tensors[it->second].file));
    }
  }
  return {};
}

Result<Checkpoint> Checkpoint::open(const std::filesystem::path& model_dir) {
  try {
    auto impl = std::make_shared<Impl>();
    HADAL_TRY(impl->load(model_dir));
    return Checkpoint(std::move(impl));
  } catch (const std::bad_alloc&) {
    return Status(Errc::kOutOfHostMemory, model_dir.string());
  } catch (const std::exception& e) {  // the JSON library's; none is expected
    return Status(Errc::kInternal, model_dir.string() + ": " + e.what());
  }
}

Checkpoint::Checkpoint(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

const TensorView* Checkpoint::find(std::string_view name) const {
  const auto it = impl_->by_name.find(name);
  return it == impl_->by_name.end() ? nullptr : &impl_->tensors[it->second];
}

const std::vector<TensorView>& Checkpoint::tensors() const {
  return impl_->tensors;
}

uint64_t Checkpoint::data_bytes() const {
  return impl_->data_bytes;
}

Checkpoint::File Checkpoint::file_of(const TensorView& tensor) const {
  for (const MappedFile& file : impl_->files) {
    if (file.contains(tensor.bytes)) return {file.bytes(), impl_};
  }
  return {};
}

void Checkpoint::fetch_pages(std::span<const std::byte> bytes) const {
  for (const MappedFile& file : impl_->files) file.fetch(bytes);  // ignores what is not its own
}

void Checkpoint::release_pages(std::span<const std::byte> bytes) const {
  for (const MappedFile& file : impl_->files) file.release(bytes);  // ignores what is not its own
}

}  // namespace hadal::model
