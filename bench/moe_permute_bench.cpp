// Speed of moe_permute (a plan of one workgroup) and moe_combine at DeepSeek-V3's routing.
#include "hadal/moe_permute.h"

#include <random>

#include "hadal/reference/moe_permute.h"
#include "support/bench.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

std::vector<uint32_t> random_indices(uint32_t count, uint32_t experts) {
  std::mt19937 engine(1);
  std::vector<uint32_t> indices(count);
  for (uint32_t& v : indices) v = uint32_t(uint64_t{engine()} * experts >> 32);
  return indices;
}

void plan_case(Bench& bench, uint32_t tokens, uint32_t experts) {
  MoePermuteShape s = MoePermuteShape::packed(tokens, experts, 8, 16);
  s.command_count = 2;
  require(moe_permute_check(s, bench.caps()));
  const uint32_t entries = tokens * 8;
  const std::vector<uint32_t> routing = random_indices(entries, experts);
  const Buffer indices = bench.upload(routing), row_token = bench.buffer(entries * 4);
  const Buffer row_of = bench.buffer(entries * 4), ends = bench.buffer(experts * 4);
  const Buffer tiles = bench.buffer(moe_permute_max_tiles(s) * 16), commands = bench.buffer(24);
  const MoePermuteConfig config = moe_permute_choose(s, bench.caps());
  const MoePermute kernel = require(MoePermute::create(bench.device(), config));
  bench.time(
      {path_of(config.to_string()), 0.0, 12.0 * entries + 4.0 * experts},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s,
                             {indices.address(), row_token.address(), row_of.address(),
                              ends.address(), tiles.address(), commands.address()});
      },
      [&] {
        Check check;
        check.exact(bench.read<uint32_t>(row_of, 0, entries) ==
                    reference::moe_permute(s, routing.data()).row_of);
        return check;
      });
}

void combine_case(Bench& bench, uint32_t tokens, uint32_t hidden) {
  const MoeCombineShape s = MoeCombineShape::packed(tokens, hidden, 8);
  require(moe_combine_check(s, bench.caps()));
  std::vector<uint32_t> rows(size_t(tokens) * 8);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = uint32_t(rows.size() - 1 - i);
  const Buffer x = bench.buffer(uint64_t{tokens} * hidden * 4), row_of = bench.upload(rows);
  const Buffer y = bench.floats(rows.size() * hidden, -1, 1);
  const Buffer weights = bench.floats(rows.size(), 0, 1);
  const MoeCombineConfig config = moe_combine_choose(s, bench.caps());
  const MoeCombine kernel = require(MoeCombine::create(bench.device(), config));
  bench.time(
      {path_of(config.to_string()), 16.0 * tokens * hidden, 36.0 * tokens * hidden},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s,
                             {x.address(), 0, y.address(), row_of.address(), weights.address()});
      },
      [&] {
        // A sample of tokens; token t's rows are the 8 that end at rows.size() - 8t, backwards.
        Check check;
        const MoeCombineShape one = MoeCombineShape::packed(1, hidden, 8);
        const std::vector<uint32_t> backwards = {7, 6, 5, 4, 3, 2, 1, 0};
        for (uint32_t t : sample_of(tokens, 16)) {
          const auto y_host =
              bench.read<float>(y, (uint64_t{tokens} - 1 - t) * 8 * hidden, uint64_t{8} * hidden);
          const auto w = bench.read<float>(weights, uint64_t{t} * 8, 8);
          const auto got = bench.read<float>(x, uint64_t{t} * hidden, hidden);
          const auto r = reference::moe_combine(
              one, {nullptr, nullptr, y_host.data(), backwards.data(), w.data()});
          for (size_t i = 0; i < got.size(); ++i) {
            check.add(got[i], r.value[i], test::moe_combine_bound(8, r.value[i], r.magnitude[i]));
          }
        }
        return check;
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("moe_permute", argc, argv);
  for (uint32_t tokens : {1u, 16u, 128u, 4096u}) {
    for (uint32_t experts : {16u, 256u, 384u}) {
      bench.add({{"tokens", tokens}, {"experts", experts}});
    }
  }
  for (uint32_t tokens : {1u, 128u, 4096u}) {
    for (uint32_t hidden : {256u, 7168u}) {
      if (bench.options().quick && tokens > 128) continue;
      bench.add("moe_combine", {{"tokens", tokens}, {"hidden", hidden}});
    }
  }
  return bench.run([&](const bench::Shape& s) {
    if (bench.kernel() == "moe_combine") {
      bench::combine_case(bench, s["tokens"], s["hidden"]);
    } else {
      bench::plan_case(bench, s["tokens"], s["experts"]);
    }
  });
}
