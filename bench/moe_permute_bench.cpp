// Speed of moe_permute (a plan of one workgroup) and moe_combine at DeepSeek-V3's routing.
#include "hadal/moe_permute.h"

#include <fmt/format.h>

#include <cmath>
#include <random>

#include "hadal/reference/moe_permute.h"
#include "support/bench.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

template <class T>
Buffer upload(Bench& bench, const std::vector<T>& values) {
  Buffer buffer = bench.buffer(values.size() * sizeof(T));
  require(bench.device().upload(buffer, 0, std::as_bytes(std::span(values))));
  return buffer;
}

std::vector<uint32_t> random_indices(uint32_t count, uint32_t experts) {
  std::mt19937 engine(1);
  std::vector<uint32_t> indices(count);
  for (uint32_t& v : indices) v = uint32_t(uint64_t{engine()} * experts >> 32);
  return indices;
}

void plan_case(Bench& bench, uint32_t tokens, uint32_t experts) {
  MoePermuteShape s = MoePermuteShape::packed(tokens, experts, 8, 16);
  s.command_count = 2;
  const std::string name = fmt::format("moe_permute tokens={} experts={}", tokens, experts);
  if (!bench.selected(name)) return;
  const uint32_t entries = tokens * 8;
  const std::vector<uint32_t> routing = random_indices(entries, experts);
  const Buffer indices = upload(bench, routing), row_token = bench.buffer(entries * 4);
  const Buffer row_of = bench.buffer(entries * 4), ends = bench.buffer(experts * 4);
  const Buffer tiles = bench.buffer(moe_permute_max_tiles(s) * 16), commands = bench.buffer(24);
  const MoePermute kernel =
      require(MoePermute::create(bench.device(), moe_permute_choose(s, bench.device().caps())));
  bench.time(
      {name, 0.0, 12.0 * entries + 4.0 * experts},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s,
                             {indices.address(), row_token.address(), row_of.address(),
                              ends.address(), tiles.address(), commands.address()});
      },
      [&] {
        std::vector<uint32_t> got(entries);
        require(bench.device().download(row_of, 0, std::as_writable_bytes(std::span(got))));
        return got == reference::moe_permute(s, routing.data()).row_of;
      });
}

void combine_case(Bench& bench, uint32_t tokens, uint32_t hidden) {
  const MoeCombineShape s = MoeCombineShape::packed(tokens, hidden, 8);
  const std::string name = fmt::format("moe_combine tokens={} hidden={}", tokens, hidden);
  if (!bench.selected(name)) return;
  std::vector<uint32_t> rows(size_t(tokens) * 8);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = uint32_t(rows.size() - 1 - i);
  const Buffer x = bench.buffer(uint64_t{tokens} * hidden * 4), row_of = upload(bench, rows);
  const Buffer y = bench.floats(rows.size() * hidden, -1, 1);
  const Buffer weights = bench.floats(rows.size(), 0, 1);
  const MoeCombine kernel =
      require(MoeCombine::create(bench.device(), moe_combine_choose(s, bench.device().caps())));
  bench.time(
      {name, 16.0 * tokens * hidden, 36.0 * tokens * hidden},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s,
                             {x.address(), 0, y.address(), row_of.address(), weights.address()});
      },
      [&] {
        const auto y_host = bench.read_floats(y, rows.size() * hidden);
        const auto w = bench.read_floats(weights, rows.size());
        const auto got = bench.read_floats(x, uint64_t{tokens} * hidden);
        const auto r =
            reference::moe_combine(s, {nullptr, nullptr, y_host.data(), rows.data(), w.data()});
        for (size_t i = 0; i < got.size(); ++i) {
          const double bound = test::moe_combine_bound(8, r.value[i], r.magnitude[i]);
          if (!(std::fabs(got[i] - r.value[i]) <= bound)) return false;
        }
        return true;
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Options options = bench::parse_options(argc, argv);
  bench::Bench bench("moe_permute", options);
  for (uint32_t tokens : {1u, 16u, 128u, 4096u}) {
    for (uint32_t experts : {16u, 256u, 384u}) bench::plan_case(bench, tokens, experts);
  }
  for (uint32_t tokens : {1u, 128u, 4096u}) {
    for (uint32_t hidden : {256u, 7168u}) bench::combine_case(bench, tokens, hidden);
  }
  return 0;
}
