// Speed of moe_tiles: the list of 256 experts from counts and from ends. No FLOP; bytes = segments
// and tiles.
#include "hadal/moe_tiles.h"

#include <fmt/format.h>

#include <random>

#include "hadal/reference/moe_tiles.h"
#include "support/bench.h"

namespace hadal::bench {
namespace {

void run_case(Bench& bench, MoeTilesShape s, const std::vector<uint32_t>& segments,
              const std::string& what) {
  s.command_count = 2;
  const std::string name =
      fmt::format("moe_tiles {} experts={} rows={} tile={}", what, s.experts, s.rows, s.tile_m);
  if (!bench.selected(name)) return;
  const auto expected = reference::moe_tiles(s, segments.data());
  const Buffer in = bench.buffer(segments.size() * 4), commands = bench.buffer(24);
  require(bench.device().upload(in, 0, std::as_bytes(std::span(segments))));
  const Buffer tiles = bench.buffer(uint64_t{moe_tiles_max_tiles(s)} * sizeof(MoeTile));
  const MoeTiles kernel =
      require(MoeTiles::create(bench.device(), moe_tiles_choose(s, bench.device().caps())));
  bench.time(
      {name, 0.0, 4.0 * double(segments.size()) + 16.0 * double(expected.size())},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s, {in.address(), tiles.address(), commands.address()});
      },
      [&] {
        std::vector<MoeTile> got(expected.size());
        require(bench.device().download(tiles, 0, std::as_writable_bytes(std::span(got))));
        for (size_t i = 0; i < got.size(); ++i) {
          if (got[i].expert != expected[i].expert || got[i].row_begin != expected[i].row_begin ||
              got[i].row_end != expected[i].row_end) {
            return false;
          }
        }
        return true;
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Options options = bench::parse_options(argc, argv);
  bench::Bench bench("moe_tiles", options);
  for (uint32_t experts : {32u, 256u}) {
    for (uint32_t m_max : {32u, 192u}) {
      std::mt19937 engine(1);
      std::vector<uint32_t> counts(experts), ends;
      for (uint32_t& v : counts) {
        v = uint32_t(engine() % (m_max + 1));
        ends.push_back((ends.empty() ? 0 : ends.back()) + v);
      }
      bench::run_case(bench, MoeTilesShape::masked_groups(experts, m_max, 16), counts, "masked");
      bench::run_case(bench, MoeTilesShape::contiguous(ends.back(), experts, 16), ends,
                      "contiguous");
    }
  }
  return 0;
}
