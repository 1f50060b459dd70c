#include "safetensors_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <utility>

#include "json_fields.h"

namespace hadal::model {
namespace {

constexpr std::array kDTypes = {DType::kF64,    DType::kF32,    DType::kF16, DType::kBf16,
                                DType::kF8E4M3, DType::kF8E5M2, DType::kI64, DType::kI32,
                                DType::kI16,    DType::kI8,     DType::kU8,  DType::kBool,
                                DType::kU64,    DType::kU32,    DType::kU16, DType::kF8E8M0};

// Folds the library's events into those that a text of strings and whole numbers can contain;
// everything else is `unexpected`. Every event returns false to stop, after fail().
class TextReader : public nlohmann::json_sax<Json> {
 public:
  explicit TextReader(const std::string& name) : name_(name) {}
  [[nodiscard]] const std::string& error() const { return error_; }

  bool null() override { return unexpected("null"); }
  bool boolean(bool value) override { return unexpected(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { return unexpected(std::to_string(value)); }
  bool number_unsigned(number_unsigned_t value) override {
    return unexpected(std::to_string(value));
  }
  bool number_float(number_float_t value, const string_t&) override {
    return unexpected(fmt::format("{}", value));
  }
  bool string(string_t& value) override { return unexpected(in_quotes(value)); }
  bool binary(binary_t&) override { return unexpected("bytes"); }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    error_ = not_json(name_, position);
    return false;
  }

 protected:
  virtual bool unexpected(std::string_view got) = 0;
  bool fail(std::string_view message) {
    error_ = fmt::format("{}: {}", name_, message);
    return false;
  }

 private:
  const std::string& name_;
  std::string error_;
};

class HeaderReader final : public TextReader {
 public:
  using TextReader::TextReader;
  [[nodiscard]] std::vector<HeaderEntry> take() { return std::move(entries_); }

  bool start_object(std::size_t) override {
    switch (place_) {
      case Place::kOutside: place_ = Place::kTop; return true;
      case Place::kTop: place_ = in_metadata_ ? Place::kMetadata : Place::kTensor; return true;
      default: return unexpected("an object");
    }
  }
  bool end_object() override {
    if (place_ == Place::kTensor && found_.size() != kFields.size()) return refuse_incomplete();
    place_ = Place::kTop;
    return true;
  }
  bool start_array(std::size_t) override {
    if (place_ != Place::kTensor || field_ == "dtype") return unexpected("a list");
    place_ = Place::kList;
    count_ = 0;
    return true;
  }
  bool end_array() override {
    if (field_ == "data_offsets" && count_ != 2) {
      return unexpected(fmt::format("{} of them", count_));
    }
    place_ = Place::kTensor;
    return true;
  }
  bool key(string_t& key) override {
    if (place_ == Place::kTop) return start_tensor(key);
    if (place_ == Place::kMetadata) return true;
    const auto* known = std::find(kFields.begin(), kFields.end(), key);
    if (known == kFields.end()) {
      return refuse("fields must be dtype, shape and data_offsets", in_quotes(key));
    }
    if (std::find(found_.begin(), found_.end(), key) != found_.end()) {
      return refuse("fields must occur once", fmt::format("{} twice", in_quotes(key)));
    }
    field_ = *known;
    found_.push_back(field_);
    return true;
  }
  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kTensor || field_ != "dtype") return unexpected(in_quotes(value));
    for (const DType dtype : kDTypes) {
      if (dtype_name(dtype) != value) continue;
      entries_.back().dtype = dtype;
      return true;
    }
    return refuse("dtype must be one of the known types", in_quotes(value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kList) return unexpected(std::to_string(value));
    HeaderEntry& entry = entries_.back();
    ++count_;
    if (field_ == "data_offsets") {
      if (count_ > 2) return unexpected("more");
      (count_ == 1 ? entry.begin : entry.end) = value;
      return true;
    }
    if (count_ > kMaxDims) {
      return refuse(fmt::format("shape must have at most {} dimensions", kMaxDims), "more");
    }
    entry.shape.push_back(value);
    return true;
  }

 private:
  enum class Place { kOutside, kTop, kMetadata, kTensor, kList };
  static constexpr std::array<std::string_view, 3> kFields = {"dtype", "shape", "data_offsets"};

  bool start_tensor(string_t& name) {
    in_metadata_ = name == "__metadata__";
    if (in_metadata_) {
      if (metadata_seen_) return fail("__metadata__ must occur once, got it twice");
      metadata_seen_ = true;
      return true;
    }
    if (entries_.size() == kMaxTensors) {
      return fail(fmt::format("header must name at most {} tensors, got more", kMaxTensors));
    }
    entries_.emplace_back().name = std::move(name);
    found_.clear();
    return true;
  }
  bool refuse(std::string_view rule, std::string_view got) {
    return fail(fmt::format("tensor {} {}, got {}", in_quotes(entries_.back().name), rule, got));
  }
  bool refuse_incomplete() {
    for (const std::string_view field : kFields) {
      if (std::find(found_.begin(), found_.end(), field) == found_.end()) {
        return refuse(fmt::format("{} must be present", field), "nothing");
      }
    }
    return true;
  }
  bool unexpected(std::string_view got) override {
    if (place_ == Place::kOutside)
      return fail(fmt::format("header must be an object, got {}", got));
    if (in_metadata_) {
      return fail(fmt::format("__metadata__ must be an object of strings, got {}", got));
    }
    if (place_ == Place::kTop) return refuse("must be an object", got);
    if (field_ == "dtype") return refuse("dtype must be a string", got);
    if (field_ == "shape") return refuse("shape must be a list of whole numbers", got);
    return refuse("data_offsets must be two whole numbers", got);
  }

  std::vector<HeaderEntry> entries_;
  Place place_ = Place::kOutside;
  bool in_metadata_ = false;
  bool metadata_seen_ = false;
  std::string_view field_;               // of the current tensor, one of kFields
  std::vector<std::string_view> found_;  // fields of the current tensor so far
  size_t count_ = 0;                     // numbers of the current list so far
};

class IndexReader final : public TextReader {
 public:
  using TextReader::TextReader;
  [[nodiscard]] bool has_weight_map() const { return seen_; }
  [[nodiscard]] ShardIndex take() { return std::move(index_); }

  // Outside weight_map anything may stand (metadata, total_size) and is skipped.
  bool null() override { return !wanted() || unexpected("null"); }
  bool boolean(bool value) override { return !wanted() || TextReader::boolean(value); }
  bool number_integer(number_integer_t value) override {
    return !wanted() || TextReader::number_integer(value);
  }
  bool number_unsigned(number_unsigned_t value) override {
    return !wanted() || TextReader::number_unsigned(value);
  }
  bool number_float(number_float_t value, const string_t& text) override {
    return !wanted() || TextReader::number_float(value, text);
  }
  bool start_object(std::size_t) override {
    if (depth_ > 1 && wanted()) return unexpected("an object");
    return enter();
  }
  bool start_array(std::size_t) override { return wanted() ? unexpected("a list") : enter(); }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool key(string_t& key) override {
    if (depth_ == 1) {
      in_map_ = key == "weight_map";
      if (in_map_ && seen_) return fail("weight_map must occur once, got it twice");
      seen_ = seen_ || in_map_;
    } else if (in_map_) {
      tensor_ = std::move(key);
    }
    return true;
  }
  bool string(string_t& file) override {
    if (!wanted()) return true;
    if (depth_ != 2) return unexpected(in_quotes(file));
    return add(file);
  }

 private:
  // Whether the current value is the whole text, weight_map itself or one of its entries.
  [[nodiscard]] bool wanted() const { return depth_ == 0 || in_map_; }
  bool enter() {
    if (++depth_ <= kMaxJsonDepth) return true;
    return fail(fmt::format("nesting must be at most {} levels, got more", kMaxJsonDepth));
  }
  bool leave() {
    if (--depth_ == 1) in_map_ = false;
    return true;
  }
  bool add(const std::string& file) {
    // A shard lies in the checkpoint's directory; a path could name any file of the machine.
    const bool plain = !file.empty() && file != "." && file != ".." &&
                       std::none_of(file.begin(), file.end(), [](char c) {
                         return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20;
                       });
    if (!plain || file.size() > 255) {
      return fail(fmt::format("weight_map must name plain files of the same directory, got {}",
                              in_quotes(file)));
    }
    const auto [it, added] =
        file_ids_.try_emplace(file, static_cast<uint32_t>(index_.files.size()));
    if (added) {
      if (index_.files.size() == kMaxShards) {
        return fail(fmt::format("weight_map must name at most {} files, got more", kMaxShards));
      }
      index_.files.push_back(file);
    }
    if (index_.entries.size() == kMaxTensors) {
      return fail(fmt::format("weight_map must name at most {} tensors, got more", kMaxTensors));
    }
    index_.entries.push_back({std::move(tensor_), it->second});
    return true;
  }
  bool unexpected(std::string_view got) override {
    return fail(fmt::format("{} must be an object{}, got {}", depth_ == 0 ? "text" : "weight_map",
                            depth_ == 0 ? "" : " of file names", got));
  }

  ShardIndex index_;
  std::unordered_map<std::string, uint32_t> file_ids_;
  std::string tensor_;
  size_t depth_ = 0;
  bool in_map_ = false;
  bool seen_ = false;
};

}  // namespace

Result<std::vector<HeaderEntry>> parse_safetensors_header(std::string_view text,
                                                          const std::string& name) {
  HADAL_TRY(check_no_zero_byte(text, name));
  HeaderReader reader(name);
  if (!Json::sax_parse(text, &reader)) return Status(Errc::kMalformed, reader.error());
  return reader.take();
}

Result<ShardIndex> parse_shard_index(std::string_view text, const std::string& name) {
  HADAL_TRY(check_no_zero_byte(text, name));
  IndexReader reader(name);
  if (!Json::sax_parse(text, &reader)) return Status(Errc::kMalformed, reader.error());
  if (!reader.has_weight_map()) {
    return Status(Errc::kMalformed, name + ": weight_map must be present, got nothing");
  }
  ShardIndex index = reader.take();
  if (index.entries.empty()) {
    return Status(Errc::kMalformed, name + ": weight_map must name a tensor, got none");
  }
  const auto by_tensor = [](const auto& a, const auto& b) { return a.tensor < b.tensor; };
  std::sort(index.entries.begin(), index.entries.end(), by_tensor);
  const auto same = [](const auto& a, const auto& b) { return a.tensor == b.tensor; };
  const auto twice = std::adjacent_find(index.entries.begin(), index.entries.end(), same);
  if (twice != index.entries.end()) {
    return Status(Errc::kMalformed,
                  fmt::format("{}: weight_map must name each tensor once, got {} twice", name,
                              in_quotes(twice->tensor)));
  }
  return index;
}

}  // namespace hadal::model
