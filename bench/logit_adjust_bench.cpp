// Speed of logit_adjust: edits alone, a mask, both in another place. Bytes = what must move.
#include "hadal/logit_adjust.h"

#include "hadal/reference/logit_adjust.h"
#include "support/bench.h"
#include "support/tolerance.h"

namespace hadal::bench {
namespace {

constexpr uint32_t kEdits = 256;  // tokens of each row, at most

struct Rows {
  std::vector<LogitAdjustRow> listed;
  std::vector<LogitEdit> edits;
  std::vector<uint32_t> masks;
};

Rows rows_of(const LogitAdjustShape& s, bool edits, bool mask) {
  Rows result;
  for (uint32_t r = 0; r < s.rows; ++r) {
    LogitAdjustRow row;
    row.row = r, row.frequency = 0.25f, row.presence = 0.5f;
    row.repetition = 1.25f, row.inverse_repetition = 0.8f;
    row.edits_begin = uint32_t(result.edits.size());
    const uint32_t step = s.vocab / kEdits;
    for (uint32_t i = 0; edits && i < kEdits; ++i) {
      result.edits.push_back({i * step + r % step, i % 2, i % 3, float(i % 5)});
    }
    row.edits_end = uint32_t(result.edits.size());
    if (mask) row.mask = r;
    result.listed.push_back(row);
  }
  if (mask) result.masks.assign(size_t{s.rows} * ((s.vocab + 31) / 32), 0x55555555u);
  return result;
}

void run_case(Bench& bench, LogitAdjustShape s, const std::string& rule) {
  const Rows rows = rows_of(s, rule != "mask", rule != "edits");
  s.in_place = rule != "copy";
  s.listed = s.rows, s.edits = uint32_t(rows.edits.size()),
  s.masks = rows.masks.empty() ? 0 : s.rows;
  require(logit_adjust_check(s, bench.caps()));
  const uint64_t count = uint64_t{s.rows} * s.vocab;
  const Buffer x = bench.floats(count, -8.0f, 8.0f);
  const Buffer y = bench.buffer(s.in_place ? 4 : 4 * count);
  const Buffer listed = bench.upload(rows.listed);
  const Buffer edits = bench.upload(rows.edits.empty() ? std::vector<LogitEdit>(1) : rows.edits);
  const Buffer masks = bench.upload(rows.masks.empty() ? std::vector<uint32_t>(1) : rows.masks);
  const LogitAdjustConfig config = logit_adjust_choose(s, bench.caps());
  const LogitAdjust kernel = require(LogitAdjust::create(bench.device(), config));
  const std::vector<float> before = bench.read_floats(x, count);
  // In place only masked and edited logits move, half of a mask.
  const double words = double(rows.masks.size()) * 4.0;
  const double moved = s.in_place ? words * 16.0 : 8.0 * double(count);
  bench.time(
      {path_of(config.to_string()), 0.0, words + moved + double(rows.edits.size()) * (16.0 + 8.0)},
      [&](Recorder& recorder) {
        return kernel.record(recorder, s,
                             {x.address(), s.in_place ? x.address() : y.address(), listed.address(),
                              edits.address(), masks.address()});
      },
      [&] {
        const auto got = bench.read_floats(s.in_place ? x : y, count);
        const size_t mask_words = (s.vocab + 31) / 32;
        Check check;
        for (uint32_t r = 0; r < s.rows; ++r) {
          const LogitAdjustRow& row = rows.listed[r];
          const auto mask = rows.masks.empty()
                                ? std::span<const uint32_t>()
                                : std::span(rows.masks).subspan(r * mask_words, mask_words);
          const auto want = reference::logit_adjust(
              std::span(before).subspan(size_t{r} * s.vocab, s.vocab), row,
              std::span(rows.edits).subspan(row.edits_begin, row.edits_end - row.edits_begin),
              mask);
          for (uint32_t id = 0; id < s.vocab; ++id) {
            const float value = got[size_t{r} * s.vocab + id];
            if (want.magnitudes[id] == 0.0) {
              check.exact(double(value) == want.values[id]);
            } else {
              check.add(value, want.values[id],
                        test::logit_adjust_bound(want.values[id], want.magnitudes[id]));
            }
          }
        }
        return check;
      });
}

}  // namespace
}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  bench::Bench bench("logit_adjust", argc, argv);
  for (uint32_t vocab : {512u, 129280u}) {
    for (uint32_t rows : {1u, 16u}) {
      for (const char* rule : {"edits", "mask", "copy"}) {
        bench.add({{"rows", rows}, {"vocab", vocab}, {"rule", rule}});
      }
    }
  }
  return bench.run([&](const bench::Shape& s) {
    bench::run_case(bench, LogitAdjustShape::packed(s["rows"], s["vocab"]), s.word("rule"));
  });
}
