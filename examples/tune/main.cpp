// hadal-tune --out FILE: times every configuration of fp8_gemm (with --experts of fp8_grouped_gemm)
// that choose() may take for the given shapes, and writes the fastest to a tuning file (tuning.h)
// for this device, driver and version. A configuration whose result differs from the default's is
// not timed: all of them must give the same bits.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <random>

#include "common/program.h"
#include "hadal/fp8_gemm.h"
#include "hadal/fp8_grouped_gemm.h"
#include "hadal/recorder.h"
#include "hadal/tuning.h"

namespace {

using namespace hadal;
constexpr const char* kProgram = "hadal-tune";

struct Options {
  std::vector<std::string> shapes;
  uint32_t experts = 0;
  std::string device, out;
  double seconds = 0.2;
  std::string strides = "model";
};

struct Size {
  uint32_t m = 0, n = 0, k = 0;
};

// "64x4096x7168"
Result<Size> parse_size(const std::string& text) {
  const auto refuse = [&] {
    return Status(
        Errc::kInvalidArgument,
        fmt::format("--shape: must be MxNxK, each from 1 to 2^20, got '{}'", text.substr(0, 40)));
  };
  std::array<uint32_t, 3> values{};
  size_t at = 0;
  for (size_t i = 0; i < 3; ++i) {
    const size_t end = i < 2 ? text.find('x', at) : text.size();
    if (end == std::string::npos) return refuse();
    const char *first = text.data() + at, *last = text.data() + end;
    const auto [stop, error] = std::from_chars(first, last, values[i]);
    if (error != std::errc() || stop != last) return refuse();
    if (values[i] == 0 || values[i] > (1u << 20)) return refuse();
    at = end + 1;
  }
  return Size{values[0], values[1], values[2]};
}

std::vector<std::string> default_shapes() {
  std::vector<std::string> shapes;
  for (const char* nk : {"2112x7168", "24576x1536", "7168x16384", "4096x7168", "7168x2048"}) {
    for (uint32_t m : {1, 16, 128, 4096}) shapes.push_back(fmt::format("{}x{}", m, nk));
  }
  return shapes;
}

class Tuner {
 public:
  Tuner(Device& device, const Options& options) : device_(device), options_(options) {}

  Status tune(const Size& size, TuningTable& table) {
    return options_.experts ? tune_grouped(size, table) : tune_dense(size, table);
  }

 private:
  using Record = std::function<Status(Recorder&)>;

  Result<Buffer> codes(uint64_t bytes) {
    std::vector<uint8_t> data(bytes);
    for (uint8_t& c : data) {
      c = uint8_t(random_());
      if ((c & 0x7f) == 0x7f) c ^= 1;  // no NaN
    }
    return upload(std::as_bytes(std::span(data)));
  }
  Result<Buffer> scales(uint64_t count) {
    std::vector<float> data(count);
    for (float& s : data) s = 0.5f + float(random_() % 1024) / 2048.0f;
    return upload(std::as_bytes(std::span(data)));
  }
  Result<Buffer> upload(std::span<const std::byte> data) {
    HADAL_ASSIGN(Buffer buffer, device_.allocate(std::max<uint64_t>(data.size(), 16)));
    HADAL_TRY(device_.upload(buffer, 0, data));
    return buffer;
  }

  // Median time of `record` in ns, NaN when d differs from the first call's.
  Result<double> time(const Record& record, const Buffer& d, bool first) {
    using Clock = std::chrono::steady_clock;
    RecorderOptions recorder_options;
    recorder_options.timestamps = device_.caps().timestamp_period_ns > 0;
    HADAL_ASSIGN(Recorder recorder, Recorder::create(device_, recorder_options));
    HADAL_TRY(record(recorder));
    HADAL_TRY(recorder.end());
    HADAL_TRY(device_.run(recorder));  // compiles, and warms caches
    std::vector<std::byte> result(d.bytes());
    HADAL_TRY(device_.download(d, 0, result));
    if (first) expected_ = std::move(result);
    if (!first && result != expected_) return std::nan("");
    std::vector<double> samples;
    const auto start = Clock::now();
    do {
      const auto before = Clock::now();
      HADAL_TRY(device_.run(recorder));
      double ns = std::chrono::duration<double, std::nano>(Clock::now() - before).count();
      if (recorder_options.timestamps) {
        ns = 0;
        HADAL_ASSIGN(const auto timings, recorder.timings());
        for (const DispatchTiming& t : timings) ns += t.ns;
      }
      samples.push_back(ns);
      if (examples::interrupted()) return Status(Errc::kCancelled, "interrupted");
    } while (samples.size() < 3 ||
             std::chrono::duration<double>(Clock::now() - start).count() < options_.seconds);
    std::nth_element(samples.begin(), samples.begin() + long(samples.size() / 2), samples.end());
    return samples[samples.size() / 2];
  }

  // Times each configuration with the recording that `prepare` makes of it; keeps the fastest.
  template <class Config>
  Status pick(TunedKernel kernel, const Size& s, double flop, const std::vector<Config>& configs,
              const Buffer& d, const std::function<Result<Record>(const Config&)>& prepare,
              TuningTable& table) {
    std::vector<double> medians;
    for (const Config& config : configs) {
      HADAL_ASSIGN(const Record record, prepare(config));
      HADAL_ASSIGN(const double ns, time(record, d, medians.empty()));
      medians.push_back(ns);
      const std::string speed =
          ns > 0 ? fmt::format("{:10.1f} us {:8.1f} GFLOP/s", ns * 1e-3, flop / ns)
                 : "WRONG RESULT, not timed";
      fmt::print("{}x{}x{}  {:<11} {:>3}x{:<4} {}\n", s.m, s.n, s.k, gemm_path_name(config.path),
                 config.tile_m, config.group_columns(), speed);
      std::fflush(stdout);
    }
    const size_t best = pick_fastest(medians);
    const Config& winner = configs[best];
    fmt::print("{}x{}x{}  -> {} {}x{}{}\n", s.m, s.n, s.k, gemm_path_name(winner.path),
               winner.tile_m, winner.group_columns(), best ? "" : " (the default)");
    table.set(kernel, s.m, s.n, s.k, {winner.path, winner.tile_m, winner.tile_n});
    return {};
  }

  // "model": a's rows apart as its activations are, b's packed as its weights are. "spread": both
  // apart.
  template <class Shape>
  void set_strides(Shape& s) const {
    if (options_.strides != "packed") s.a_stride = fp8_row_stride(s.k);
    if (options_.strides == "spread") s.b_stride = fp8_row_stride(s.k);
  }

  Status tune_dense(const Size& size, TuningTable& table) {
    Fp8GemmShape s = Fp8GemmShape::packed(size.m, size.n, size.k);
    set_strides(s);
    HADAL_TRY(fp8_gemm_check(s, device_.caps()));
    HADAL_ASSIGN(const Buffer a, codes(uint64_t{s.m} * s.a_stride));
    HADAL_ASSIGN(const Buffer b, codes(uint64_t{s.n} * s.b_stride));
    HADAL_ASSIGN(const Buffer a_scale, scales(uint64_t{s.m} * s.a_scale_stride));
    HADAL_ASSIGN(const Buffer b_scale, scales(uint64_t{ceil_div(s.n, 128)} * s.b_scale_stride));
    HADAL_ASSIGN(const Buffer d, device_.allocate(uint64_t{s.m} * s.d_stride * 4));
    const Fp8GemmArgs args{a.address(), a_scale.address(), b.address(), b_scale.address(),
                           d.address()};
    const auto prepare = [&](const Fp8GemmConfig& config) -> Result<Record> {
      HADAL_ASSIGN(const Fp8Gemm kernel, Fp8Gemm::create(device_, config));
      return Record([=](Recorder& recorder) { return kernel.record(recorder, s, args); });
    };
    return pick<Fp8GemmConfig>(TunedKernel::kFp8Gemm, size, 2.0 * s.m * s.n * s.k,
                               fp8_gemm_candidates(s, device_.caps()), d, prepare, table);
  }

  // m rows of every expert.
  Status tune_grouped(const Size& size, TuningTable& table) {
    const uint32_t experts = options_.experts;
    if (uint64_t{size.m} * experts > (1u << 24)) {
      return {Errc::kInvalidArgument, "--experts: m times experts must be at most 2^24"};
    }
    Fp8GroupedGemmShape s = Fp8GroupedGemmShape::packed(size.m * experts, experts, size.n, size.k);
    set_strides(s);
    HADAL_TRY(fp8_grouped_gemm_check(s, device_.caps()));
    const uint64_t b_bytes = uint64_t{s.n} * s.b_stride;
    const uint64_t b_scales = uint64_t{ceil_div(s.n, 128)} * s.b_scale_stride;
    HADAL_ASSIGN(const Buffer a, codes(uint64_t{s.rows} * s.a_stride));
    HADAL_ASSIGN(const Buffer a_scale, scales(uint64_t{s.rows} * s.a_scale_stride));
    std::vector<Buffer> weights;
    std::vector<ExpertWeight> entries;
    for (uint32_t e = 0; e < experts; ++e) {
      HADAL_ASSIGN(Buffer b, codes(b_bytes));
      HADAL_ASSIGN(Buffer b_scale, scales(b_scales));
      entries.push_back({b.address(), b_scale.address()});
      weights.push_back(std::move(b)), weights.push_back(std::move(b_scale));
    }
    HADAL_ASSIGN(const Buffer experts_table, upload(std::as_bytes(std::span(entries))));
    HADAL_ASSIGN(const Buffer d, device_.allocate(uint64_t{s.rows} * s.d_stride * 4));
    Buffer tiles, indirect;  // of the configuration being timed
    const auto prepare = [&](const Fp8GroupedGemmConfig& config) -> Result<Record> {
      std::vector<MoeTile> list;
      for (uint32_t e = 0; e < experts; ++e) {
        for (uint32_t r = e * size.m, end = r + size.m; r < end; r += config.tile_m) {
          list.push_back({e, r, std::min(r + config.tile_m, end), 0});
        }
      }
      const std::array<uint32_t, 3> groups = {config.column_groups(s.n), uint32_t(list.size()), 1};
      list.resize(grouped_gemm_max_tiles(s.rows, experts, config.tile_m));
      HADAL_ASSIGN(tiles, upload(std::as_bytes(std::span(list))));
      HADAL_ASSIGN(indirect, upload(std::as_bytes(std::span(groups))));
      Fp8GroupedGemmArgs args;
      args.a = a.address(), args.a_scale = a_scale.address();
      args.expert_table = experts_table.address(), args.tiles = tiles.address();
      args.indirect_buffer = &indirect, args.d = d.address();
      HADAL_ASSIGN(const Fp8GroupedGemm kernel, Fp8GroupedGemm::create(device_, config));
      return Record([=](Recorder& recorder) { return kernel.record(recorder, s, args); });
    };
    return pick<Fp8GroupedGemmConfig>(TunedKernel::kFp8GroupedGemm, size, 2.0 * s.rows * s.n * s.k,
                                      fp8_grouped_gemm_candidates(s, device_.caps()), d, prepare,
                                      table);
  }

  Device& device_;
  const Options& options_;
  std::minstd_rand random_{1};
  std::vector<std::byte> expected_;
};

Status run(const Options& options) {
  HADAL_TRY(examples::check_writable("--out", options.out));
  std::vector<Size> sizes;
  for (const std::string& text : options.shapes.empty() ? default_shapes() : options.shapes) {
    HADAL_ASSIGN(const Size size, parse_size(text));
    sizes.push_back(size);
  }
  examples::prepare_cpu_driver(~uint64_t{0});
  DeviceOptions device_options;
  device_options.select = options.device;
  device_options.cache_dir = examples::default_cache_dir();
  HADAL_ASSIGN(const auto device, Device::create(device_options));
  fmt::print("{}: {} {}\n", device->caps().device_name, device->caps().driver_name,
             device->caps().driver_info);
  TuningTable table(device->caps());
  Tuner tuner(*device, options);
  for (const Size& size : sizes) HADAL_TRY(tuner.tune(size, table));
  const std::string text = table.to_text();
  HADAL_TRY(examples::write_file(options.out, std::as_bytes(std::span(text))));
  fmt::print("{} choices in {}\n", table.size(), options.out);
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Times the FP8 GEMM configurations of this device and keeps the fastest in a file.",
               kProgram);
  app.add_option("--out", options.out, "the tuning file to write")->required();
  app.add_option("--shape", options.shapes, "MxNxK, repeatable; DeepSeek-V3's without");
  app.add_option("--experts", options.experts,
                 "tune fp8_grouped_gemm with this many experts of m rows each")
      ->check(CLI::Range(0u, 1024u));
  app.add_option(
         "--strides", options.strides,
         "between rows: model (a fp8_row_stride() apart, b packed), spread (both so), packed")
      ->check(CLI::IsMember({"model", "spread", "packed"}))
      ->capture_default_str();
  app.add_option("--device", options.device, "number or part of the name; the best without");
  app.add_option("--seconds", options.seconds, "at least, per configuration")
      ->check(CLI::Range(0.0, 60.0))
      ->capture_default_str();
  examples::install_interrupt_handler();
  return examples::run_program(app, argc, argv, [&] { return run(options); });
}
