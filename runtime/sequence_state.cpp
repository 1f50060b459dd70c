#include "hadal/runtime/sequence_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstring>

#include "hadal/model/fingerprint.h"

namespace hadal::runtime {
namespace {

constexpr std::array<char, 8> kMagic{'H', 'A', 'D', 'A', 'L', 'S', 'E', 'Q'};
constexpr uint32_t kRoundedLatents = 1, kMasked = 2;  // flags
constexpr uint32_t kNoLogprobs = UINT32_MAX;
// Far above any model's, far below what could overflow 64 bits together.
constexpr uint32_t kMostLayers = 1u << 12, kMostRowBytes = 1u << 20, kMostListed = 1u << 20;

Status malformed(std::string text) {
  return {Errc::kMalformed, "sequence_state: " + std::move(text)};
}

class Writer {
 public:
  explicit Writer(std::vector<std::byte>& bytes) : bytes_(&bytes) {}
  template <std::unsigned_integral T>
  void number(T value) {
    for (size_t i = 0; i < sizeof value; ++i) bytes_->push_back(std::byte(value >> (8 * i)));
  }
  void number(float value) { number(std::bit_cast<uint32_t>(value)); }
  void list(std::span<const uint32_t> values) {
    number(uint32_t(values.size()));
    for (const uint32_t value : values) number(value);
  }
  void texts(std::span<const std::string> values) {
    number(uint32_t(values.size()));
    for (const std::string& value : values) {
      number(uint32_t(value.size()));
      for (const char c : value) bytes_->push_back(std::byte(c));
    }
  }

 private:
  std::vector<std::byte>* bytes_;
};

// Reads until the bytes end; from then on everything is 0 and ok() false.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <std::unsigned_integral T>
  void number(T& value) {
    value = 0;
    if (!(ok_ = ok_ && bytes_.size() >= sizeof value)) return;
    for (size_t i = 0; i < sizeof value; ++i) value |= T(T(bytes_[i]) << (8 * i));
    bytes_ = bytes_.subspan(sizeof value);
  }
  void number(float& value) {
    uint32_t bits = 0;
    number(bits);
    value = std::bit_cast<float>(bits);
  }
  void list(std::vector<uint32_t>& values) {
    uint32_t count = 0;
    number(count);
    if (!(ok_ = ok_ && count <= bytes_.size() / 4)) return;  // before anything is allocated
    values.resize(count);
    for (uint32_t& value : values) number(value);
  }
  void texts(std::vector<std::string>& values) {
    uint32_t count = 0, length = 0;
    number(count);
    if (!(ok_ = ok_ && count <= bytes_.size() / 4)) return;
    for (; ok_ && count > 0; --count) {
      number(length);
      if (!(ok_ = ok_ && length <= bytes_.size())) return;
      values.emplace_back(reinterpret_cast<const char*>(bytes_.data()), length);
      bytes_ = bytes_.subspan(length);
    }
  }
  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] size_t left() const { return bytes_.size(); }

 private:
  std::span<const std::byte> bytes_;
  bool ok_ = true;
};

// What the bytes hold in another form than the state.
struct Coded {
  uint32_t format = 0, flags = 0, priority = 0, logprobs = 0;
  std::vector<uint32_t> bias_ids, bias_bits;
};

// One order of fields for both directions.
template <class Stream, class State>
void fields(Stream& stream, State& state, Coded& coded) {
  auto& cache = state.cache;
  stream.number(cache.model), stream.number(coded.format), stream.number(cache.page_tokens);
  stream.number(cache.layers), stream.number(cache.mtp_layers), stream.number(cache.row_bytes);
  stream.number(coded.flags);
  stream.number(state.prompt_tokens), stream.number(state.length), stream.number(state.computed);
  stream.number(coded.priority);
  stream.list(state.ids);
  auto& sampling = state.sampling;
  stream.number(sampling.temperature), stream.number(sampling.top_k);
  stream.number(sampling.top_p), stream.number(sampling.min_p), stream.number(sampling.seed);
  stream.number(sampling.repetition_penalty), stream.number(sampling.presence_penalty);
  stream.number(sampling.frequency_penalty);
  stream.list(coded.bias_ids), stream.list(coded.bias_bits);
  stream.number(coded.logprobs);
  stream.list(state.stop_ids);
  stream.list(state.drafts);
  stream.texts(state.stop);
}

struct Header {
  uint32_t version = 0, description_bytes = 0;
  uint64_t rows_bytes = 0, checksum = 0;
};

Result<Header> parse_header(std::span<const std::byte> bytes) {
  if (bytes.size() < kSequenceHeaderBytes) {
    return malformed(
        fmt::format("a header has {} bytes, got {}", kSequenceHeaderBytes, bytes.size()));
  }
  if (std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return malformed("the bytes must begin with HADALSEQ");
  }
  Header header;
  Reader reader(bytes.subspan(kMagic.size(), kSequenceHeaderBytes - kMagic.size()));
  reader.number(header.version), reader.number(header.description_bytes);
  reader.number(header.rows_bytes), reader.number(header.checksum);
  if (header.version != kSequenceStateVersion) {
    return Status(Errc::kUnsupported, fmt::format("sequence_state: version must be {}, got {}",
                                                  kSequenceStateVersion, header.version));
  }
  if (header.rows_bytes > uint64_t{1} << 62) {
    return malformed(fmt::format("rows must be at most 2^62 bytes, got {}", header.rows_bytes));
  }
  return header;
}

Status check_fields(const SequenceState& s, const Coded& coded) {
  const CacheIdentity& cache = s.cache;
  constexpr uint32_t kFlags = kRoundedLatents | kMasked;
  if (coded.format > uint32_t(CacheFormat::kFp8) || coded.flags > kFlags) {
    return {Errc::kUnsupported,
            fmt::format("sequence_state: the cache's format and flags must be at most {} and {}, "
                        "got {} and {}",
                        uint32_t(CacheFormat::kFp8), kFlags, coded.format, coded.flags)};
  }
  const auto range = [](const char* name, uint64_t value, uint64_t least, uint64_t most) {
    if (value >= least && value <= most) return Status();
    return malformed(fmt::format("{} must be {} to {}, got {}", name, least, most, value));
  };
  HADAL_TRY(range("page tokens", cache.page_tokens, 1, 1u << 20));
  HADAL_TRY(range("layers", cache.layers, 1, kMostLayers));
  HADAL_TRY(range("MTP layers", cache.mtp_layers, 0, kMostLayers));
  HADAL_TRY(range("row bytes", cache.row_bytes, 1, kMostRowBytes));
  HADAL_TRY(range("tokens", s.ids.size(), 1, UINT32_MAX - 1));
  HADAL_TRY(range("prompt tokens", s.prompt_tokens, 1, s.ids.size()));
  HADAL_TRY(range("length", s.length, s.ids.size() + 1, UINT32_MAX));
  HADAL_TRY(range("computed rows", s.computed, 0, s.ids.size() - 1));
  HADAL_TRY(range("biased ids", coded.bias_ids.size(), 0, kMostListed));
  HADAL_TRY(range("biases", coded.bias_bits.size(), coded.bias_ids.size(), coded.bias_ids.size()));
  HADAL_TRY(range("stop ids", s.stop_ids.size(), 0, kMostListed));
  return range("drafts", s.drafts.size(), 0, kMostListed);
}

}  // namespace

uint64_t sequence_rows_bytes(const CacheIdentity& cache, uint32_t computed) {
  return (uint64_t{cache.layers} + cache.mtp_layers) * cache.row_bytes * computed;
}

uint64_t most_sequence_bytes(const CacheIdentity& cache, uint32_t positions) {
  constexpr uint64_t kFixedFields = 256;
  return kSequenceHeaderBytes + kFixedFields + 4 * (uint64_t{positions} + 4 * kMostListed) +
         sequence_rows_bytes(cache, positions);
}

Result<std::vector<std::byte>> write_sequence_state(
    const SequenceState& state, const std::function<Status(std::span<std::byte> rows)>& fill) {
  Coded coded;
  coded.format = uint32_t(state.cache.format), coded.priority = uint32_t(state.priority);
  coded.flags = (state.cache.rounded_latents ? kRoundedLatents : 0) | (state.masked ? kMasked : 0);
  coded.logprobs = state.logprobs.value_or(kNoLogprobs);
  for (const LogitBias& bias : state.sampling.logit_bias) {
    coded.bias_ids.push_back(bias.id);
    coded.bias_bits.push_back(std::bit_cast<uint32_t>(bias.value));
  }
  HADAL_TRY(check_fields(state, coded));
  const uint64_t rows = sequence_rows_bytes(state.cache, state.computed);
  std::vector<std::byte> description;
  Writer writer(description);
  fields(writer, state, coded);
  std::vector<std::byte> bytes;
  bytes.reserve(kSequenceHeaderBytes + description.size() + rows);
  bytes.resize(kSequenceHeaderBytes);
  bytes.insert(bytes.end(), description.begin(), description.end());
  bytes.resize(bytes.size() + rows);
  HADAL_TRY(fill(std::span(bytes).last(rows)));
  std::vector<std::byte> header;
  for (const char c : kMagic) header.push_back(std::byte(c));
  Writer head(header);
  head.number(kSequenceStateVersion), head.number(uint32_t(description.size()));
  head.number(rows), head.number(model::xxh64(std::span(bytes).subspan(kSequenceHeaderBytes)));
  std::copy(header.begin(), header.end(), bytes.begin());
  return bytes;
}

Result<uint64_t> sequence_state_bytes(std::span<const std::byte> bytes) {
  HADAL_ASSIGN(const Header header, parse_header(bytes));
  return kSequenceHeaderBytes + header.description_bytes + header.rows_bytes;
}

Result<SequenceState> parse_sequence_state(std::span<const std::byte> bytes) {
  HADAL_ASSIGN(const Header header, parse_header(bytes));
  const uint64_t all = kSequenceHeaderBytes + header.description_bytes + header.rows_bytes;
  if (bytes.size() != all) {
    return malformed(fmt::format("the header says {} bytes, got {}", all, bytes.size()));
  }
  const auto body = bytes.subspan(kSequenceHeaderBytes);
  if (model::xxh64(body) != header.checksum) {
    return malformed("the bytes must have the header's checksum; they were damaged on the way");
  }
  SequenceState state;
  Coded coded;
  Reader reader(body.first(header.description_bytes));
  fields(reader, state, coded);
  if (!reader.ok() || reader.left() > 0) {
    return malformed(fmt::format("the description's {} bytes must be those of its fields",
                                 header.description_bytes));
  }
  HADAL_TRY(check_fields(state, coded));
  state.cache.format = CacheFormat(coded.format), state.priority = int32_t(coded.priority);
  state.cache.rounded_latents = (coded.flags & kRoundedLatents) != 0;
  state.masked = (coded.flags & kMasked) != 0;
  if (coded.logprobs != kNoLogprobs) state.logprobs = coded.logprobs;
  for (size_t i = 0; i < coded.bias_ids.size(); ++i) {
    state.sampling.logit_bias.push_back(
        {coded.bias_ids[i], std::bit_cast<float>(coded.bias_bits[i])});
  }
  state.rows = body.subspan(header.description_bytes);
  if (state.rows.size() != sequence_rows_bytes(state.cache, state.computed)) {
    return malformed(fmt::format("{} computed rows must have {} bytes, got {}", state.computed,
                                 sequence_rows_bytes(state.cache, state.computed),
                                 state.rows.size()));
  }
  return state;
}

Status check_same_cache(const CacheIdentity& from, const CacheIdentity& to) {
  const auto differs = [](const char* what, auto wanted, auto got) {
    return Status(Errc::kInvalidArgument,
                  fmt::format("sequence_state: {} must be {}, got {}", what, wanted, got));
  };
  if (from.model != to.model) {
    return differs("the model's fingerprint", fmt::format("{:016x}", to.model),
                   fmt::format("{:016x}", from.model));
  }
  if (from.format != to.format) {
    return differs("the cache's format", cache_format_name(to.format),
                   cache_format_name(from.format));
  }
  if (from.page_tokens != to.page_tokens) {
    return differs("tokens of a page", to.page_tokens, from.page_tokens);
  }
  if (from.layers != to.layers) return differs("the cache's layers", to.layers, from.layers);
  if (from.mtp_layers != 0 && to.mtp_layers != 0 && from.mtp_layers != to.mtp_layers) {
    return differs("the cache's MTP layers", to.mtp_layers, from.mtp_layers);
  }
  if (from.row_bytes != to.row_bytes) {
    return differs("bytes of a row", to.row_bytes, from.row_bytes);
  }
  if (from.rounded_latents != to.rounded_latents) {
    return differs("rounding of latents", to.rounded_latents, from.rounded_latents);
  }
  return {};
}

}  // namespace hadal::runtime
