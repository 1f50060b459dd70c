#include "hadal/tuning.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <vector>

#include "hadal/version.h"

namespace hadal {
namespace {

constexpr std::string_view kHeader = "hadal-tuning 1";
constexpr std::string_view kKernels[] = {"fp8_gemm", "fp8_grouped_gemm"};
constexpr GemmPath kPaths[] = {GemmPath::kPortable, GemmPath::kScalar, GemmPath::kShared,
                               GemmPath::kCoopMat, GemmPath::kCoopMatFp8};

std::string driver_line(const Caps& caps) {
  std::string line = fmt::format("{} ", caps.driver_version);
  for (uint8_t byte : caps.pipeline_cache_uuid) line += fmt::format("{:02x}", byte);
  return line;
}

// A name may hold anything; a line may not.
std::string one_line(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  return text;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

bool number(std::string_view text, uint32_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

Status malformed(size_t line, std::string_view rule, std::string_view got) {
  return {Errc::kMalformed, fmt::format("tuning: line {} must be {}, got '{}'", line, rule,
                                        one_line(std::string(got.substr(0, 60))))};
}

// Whether `line` is `noun value`; stale says which value it has instead.
Status expect(size_t index, std::string_view line, std::string_view noun, std::string_view value) {
  if (!line.starts_with(noun) || line.size() <= noun.size() || line[noun.size()] != ' ') {
    return malformed(index, fmt::format("'{} ...'", noun), line);
  }
  const std::string_view got = line.substr(noun.size() + 1);
  if (got == value) return {};
  return {Errc::kUnsupported,
          fmt::format("tuning: the file is stale, its {} must be '{}', got '{}'", noun, value,
                      one_line(std::string(got.substr(0, 60))))};
}

}  // namespace

TuningTable::TuningTable(const Caps& caps)
    : device_(one_line(caps.device_name)), driver_(driver_line(caps)) {}

Result<TuningTable> TuningTable::parse(std::string_view text, const Caps& caps) {
  TuningTable table(caps);
  std::vector<std::string_view> lines = split(text, '\n');
  if (!lines.empty() && lines.back().empty()) lines.pop_back();
  if (lines.empty() || lines[0] != kHeader) {
    return malformed(1, fmt::format("'{}'", kHeader), lines.empty() ? "" : lines[0]);
  }
  if (lines.size() < 5) {
    return Status(Errc::kMalformed,
                  fmt::format("tuning: the file must have at least 5 lines, got {}", lines.size()));
  }
  HADAL_TRY(expect(2, lines[1], "hadal", HADAL_VERSION_STRING));
  HADAL_TRY(expect(3, lines[2], "device", table.device_));
  HADAL_TRY(expect(4, lines[3], "driver", table.driver_));
  for (size_t i = 4; i + 1 < lines.size(); ++i) {
    const std::vector<std::string_view> words = split(lines[i], ' ');
    bool right = words.size() == 7;
    Key key;
    TunedChoice choice;
    bool known_kernel = false, known_path = false;
    for (size_t kernel = 0; right && kernel < std::size(kKernels); ++kernel) {
      if (words[0] == kKernels[kernel]) key.kernel = TunedKernel(kernel), known_kernel = true;
    }
    for (GemmPath path : kPaths) {
      if (right && words[4] == gemm_path_name(path)) choice.path = path, known_path = true;
    }
    right = right && known_kernel && known_path && number(words[1], key.m) &&
            number(words[2], key.n) && number(words[3], key.k) && number(words[5], choice.tile_m) &&
            number(words[6], choice.tile_n);
    if (!right) return malformed(i + 1, "'kernel m n k path tile_m tile_n'", lines[i]);
    table.choices_[key] = choice;
  }
  if (lines.back() != fmt::format("end {}", table.choices_.size())) {
    return malformed(lines.size(), fmt::format("'end {}'", table.choices_.size()), lines.back());
  }
  return table;
}

std::string TuningTable::to_text() const {
  std::string text = fmt::format("{}\nhadal {}\ndevice {}\ndriver {}\n", kHeader,
                                 HADAL_VERSION_STRING, device_, driver_);
  for (const auto& [key, choice] : choices_) {
    text += fmt::format("{} {} {} {} {} {} {}\n", kKernels[size_t(key.kernel)], key.m, key.n, key.k,
                        gemm_path_name(choice.path), choice.tile_m, choice.tile_n);
  }
  return text + fmt::format("end {}\n", choices_.size());
}

void TuningTable::set(TunedKernel kernel, uint32_t m, uint32_t n, uint32_t k,
                      const TunedChoice& choice) {
  choices_[{kernel, n, k, m}] = choice;
}

const TunedChoice* TuningTable::find(TunedKernel kernel, uint32_t m, uint32_t n, uint32_t k) const {
  auto found = choices_.lower_bound({kernel, n, k, m});
  const auto same = [&](const Key& key) {
    return key.kernel == kernel && key.n == n && key.k == k;
  };
  if (found != choices_.end() && same(found->first)) return &found->second;
  if (found == choices_.begin() || !same((--found)->first)) return nullptr;
  return &found->second;
}

size_t pick_fastest(std::span<const double> median_ns) {
  constexpr double kTie = 0.97;
  const auto measured = [](double ns) { return ns > 0; };
  size_t best = 0;
  for (size_t i = 1; i < median_ns.size(); ++i) {
    if (!measured(median_ns[i])) continue;
    if (!measured(median_ns[best]) || median_ns[i] < median_ns[best]) best = i;
  }
  const bool has_default = !median_ns.empty() && measured(median_ns[0]);
  return has_default && median_ns[best] >= kTie * median_ns[0] ? 0 : best;
}

}  // namespace hadal
