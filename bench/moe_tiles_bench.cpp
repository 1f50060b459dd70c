// Speed of moe_tiles: the list of 256 experts from counts and from ends. No FLOP; bytes = segments
// and tiles.
#include "hadal/moe_tiles.h"

#include <random>

#include "hadal/reference/moe_tiles.h"
#include "support/bench.h"

namespace hadal::bench {
namespace {

void run_case(Bench& bench, MoeTilesShape s, const std::vector<uint32_t>& segments) {
  s.command_count = 2;
  require(moe_tiles_check(s, bench.caps()));
  const auto expected = reference::moe_tiles(s, segments.data());
  const Buffer in = bench.upload(segments), commands = bench.buffer(24);
  const Buffer tiles = bench.buffer(uint64_t{moe_tiles_max_tiles(s)} * sizeof(MoeTile));
  const MoeTilesConfig config = moe_tiles_choose(s, bench.caps());
  const MoeTiles kernel = require(MoeTiles::create(bench.device(), config));
  bench.time(
      {path_of(config.to_string()), 0.0,
       4.0 * double(segments.size()) + 16.0 * double(expected.size())},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s, {in.address(), tiles.address(), commands.address()});
      },
      [&] {
        Check check;
        const auto got = bench.read<MoeTile>(tiles, 0, expected.size());
        for (size_t i = 0; i < got.size(); ++i) {
          check.exact(got[i].expert == expected[i].expert &&
                      got[i].row_begin == expected[i].row_begin &&
                      got[i].row_end == expected[i].row_end);
        }
        return check;
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("moe_tiles", argc, argv);
  for (uint32_t experts : {32u, 256u}) {
    for (uint32_t m_max : {32u, 192u}) {
      for (const char* form : {"masked", "contiguous"}) {
        bench.add({{"experts", experts}, {"m_max", m_max}, {"tile", 16}, {"form", form}});
      }
    }
  }
  return bench.run([&](const bench::Shape& s) {
    std::mt19937 engine(1);
    std::vector<uint32_t> counts(s["experts"]), ends;
    for (uint32_t& v : counts) {
      v = uint32_t(engine() % (s["m_max"] + 1));
      ends.push_back((ends.empty() ? 0 : ends.back()) + v);
    }
    if (s.word("form") == "masked") {
      bench::run_case(bench, MoeTilesShape::masked_groups(s["experts"], s["m_max"], s["tile"]),
                      counts);
    } else {
      const uint32_t rows = ends.empty() ? 0 : ends.back();
      bench::run_case(bench, MoeTilesShape::contiguous(rows, s["experts"], s["tile"]), ends);
    }
  });
}
