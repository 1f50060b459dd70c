// Writes .safetensors files and checkpoint directories for tests: right ones by default, and broken
// ones on purpose, one lie at a time:
//
//   TempDir dir;
//   SafetensorsWriter().add("a", "F32", {2, 3}).write(dir / "model.safetensors");
//   SafetensorsWriter().add("a", "F32", {2}).trailing("x").write(dir / "model.safetensors");
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace hadal::testing {

// A fresh directory that disappears with the object.
class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "hadal-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) ADD_FAILURE() << "mkdtemp failed: " << pattern;
    path_ = pattern;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::filesystem::path operator/(std::string_view name) const {
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

inline void write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) ADD_FAILURE() << "cannot write " << path;
}

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) ADD_FAILURE() << "cannot read " << path;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Names are written as they are: escape them yourself where JSON asks for it.
class SafetensorsWriter {
 public:
  // One tensor behind the last one. `data` is zeros when not given; its size is the offsets' truth,
  // so that data of another size than the shape's makes a file whose offsets contradict the shape.
  SafetensorsWriter& add(const std::string& name, const std::string& dtype,
                         const std::vector<uint64_t>& shape,
                         std::optional<std::string> data = std::nullopt) {
    const std::string bytes = data ? *std::move(data) : std::string(size_of(dtype, shape), '\0');
    const uint64_t begin = data_.size();
    data_ += bytes;
    return entry(name, tensor_json(dtype, shape, begin, data_.size()));
  }
  // "name": json in the header, verbatim; adds no data.
  SafetensorsWriter& entry(const std::string& name, const std::string& json) {
    if (!header_.empty()) header_ += ',';
    header_.append("\"").append(name).append("\":").append(json);
    return *this;
  }
  // Data that no tensor names, at the current end.
  SafetensorsWriter& gap(std::string_view bytes) {
    data_ += bytes;
    return *this;
  }
  SafetensorsWriter& trailing(std::string_view bytes) { return gap(bytes); }
  // Replaces the whole header text.
  SafetensorsWriter& header(std::string text) {
    header_text_ = std::move(text);
    return *this;
  }
  // The length that the file claims for its header.
  SafetensorsWriter& claim_header_bytes(uint64_t length) {
    claimed_ = length;
    return *this;
  }

  [[nodiscard]] std::string bytes() const {
    const std::string text = header_text_ ? *header_text_ : "{" + header_ + "}";
    const uint64_t length = claimed_.value_or(text.size());
    std::string out;
    for (int i = 0; i < 8; ++i) out += static_cast<char>(length >> (8 * i) & 0xff);
    return out + text + data_;
  }
  void write(const std::filesystem::path& path) const { write_file(path, bytes()); }

  // The value of one header entry.
  [[nodiscard]] static std::string tensor_json(const std::string& dtype,
                                               const std::vector<uint64_t>& shape, uint64_t begin,
                                               uint64_t end) {
    std::string dims;
    for (const uint64_t dim : shape) {
      if (!dims.empty()) dims += ',';
      dims += std::to_string(dim);
    }
    std::string json("{\"dtype\":\"");  // appended to: g++ 12 warns about operator+ here
    json.append(dtype).append("\",\"shape\":[").append(dims).append("],\"data_offsets\":[");
    return json.append(std::to_string(begin)).append(",").append(std::to_string(end)).append("]}");
  }

 private:
  static uint64_t size_of(const std::string& dtype, const std::vector<uint64_t>& shape) {
    uint64_t bytes = dtype.ends_with("64") ? 8 : dtype.ends_with("32") ? 4 : 1;
    if (dtype.ends_with("16")) bytes = 2;
    for (const uint64_t dim : shape) bytes *= dim;
    return bytes;
  }

  std::string header_;
  std::string data_;
  std::optional<std::string> header_text_;
  std::optional<uint64_t> claimed_;
};

// model.safetensors.index.json of a weight_map {tensor: file}.
inline void write_index(const TempDir& dir, const std::map<std::string, std::string>& weight_map) {
  std::string text = "{\"metadata\":{\"total_size\":0},\"weight_map\":{";
  for (const char* comma = ""; const auto& [tensor, file] : weight_map) {
    text.append(comma).append("\"").append(tensor).append("\":\"").append(file).append("\"");
    comma = ",";
  }
  write_file(dir / "model.safetensors.index.json", text + "}}");
}

}  // namespace hadal::testing
