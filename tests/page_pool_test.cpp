// Pages of the latent cache: references, what they hold, and who may take them over.
#include "hadal/runtime/page_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "support/random.h"

namespace hadal::runtime {
namespace {

std::vector<uint32_t> tokens(uint32_t count, uint32_t first = 0) {
  std::vector<uint32_t> ids(count);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

// A sequence that prefilled `ids` and made them known.
SequencePages prefilled(PagePool& pool, const std::vector<uint32_t>& ids) {
  SequencePages sequence(pool);
  EXPECT_TRUE(sequence.reserve(uint32_t(ids.size())).ok());
  sequence.publish(ids, PageOrigin::kPrefill);
  return sequence;
}

TEST(PagePoolHost, PagesAreHandedOutLowestFirstAndComeBack) {
  PagePool pool(5);
  auto first = pool.take(3);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(*first, (std::vector<uint32_t>{0, 1, 2}));
  pool.give_back(std::vector<uint32_t>{1});
  EXPECT_EQ(*pool.take(2), (std::vector<uint32_t>{1, 3}));
  EXPECT_EQ(pool.free_pages(), 1u);
}

TEST(PagePoolHost, ForgetsAllAtOnce) {
  PagePool pool(4);
  const auto a = tokens(2 * kPageTokens), b = tokens(kPageTokens, 7);
  const SequencePages used = prefilled(pool, a);
  { const SequencePages cached = prefilled(pool, b); }
  EXPECT_EQ(pool.stats().cached, 1u);
  pool.forget_all();
  EXPECT_EQ(pool.stats().cached, 0u);
  EXPECT_EQ(pool.stats().used, 2u);
  EXPECT_EQ(pool.stats().free, 2u);
  EXPECT_TRUE(pool.match(a).empty());
  EXPECT_TRUE(pool.match(b).empty());
  SequencePages again = prefilled(pool, b);
  EXPECT_EQ(again.block_table()[0], 2u);
  again.clear();
  EXPECT_EQ(pool.match(b), (std::vector<uint32_t>{2}));
}

TEST(PagePoolHost, TooFewPagesIsAnErrorThatTakesNothing) {
  PagePool pool(2);
  const auto refused = pool.take(3);
  EXPECT_EQ(refused.status().code(), Errc::kOutOfDeviceMemory);
  EXPECT_EQ(refused.status().message(),
            "kv_cache: 3 pages of 64 tokens are needed, 2 of 2 are free");
  EXPECT_EQ(pool.free_pages(), 2u);
}

TEST(PagePoolHost, ASequenceMapsPositionsToRowsOfItsPages) {
  PagePool pool(8);
  SequencePages other(pool), sequence(pool);
  ASSERT_TRUE(other.reserve(1).ok());
  ASSERT_TRUE(sequence.reserve(64).ok());
  ASSERT_TRUE(other.reserve(65).ok());
  ASSERT_TRUE(sequence.reserve(130).ok());
  EXPECT_EQ(sequence.slot(0), 64u);  // page 1
  EXPECT_EQ(sequence.slot(63), 127u);
  EXPECT_EQ(sequence.slot(64), 3u * 64);  // page 2 went to the other one
  EXPECT_EQ(sequence.slot(129), 4u * 64 + 1);
  EXPECT_EQ(sequence.capacity(), 192u);
  std::set<uint32_t> pages(other.block_table().begin(), other.block_table().end());
  for (uint32_t page : sequence.block_table()) EXPECT_TRUE(pages.insert(page).second);
}

TEST(PagePoolHost, PagesReturnWhenASequenceEndsOrMoves) {
  PagePool pool(4);
  {
    SequencePages a(pool);
    ASSERT_TRUE(a.reserve(200).ok());
    SequencePages b(std::move(a));
    EXPECT_EQ(pool.free_pages(), 0u);
    SequencePages c(pool);
    c = std::move(b);
    EXPECT_EQ(c.block_table().size(), 4u);
    EXPECT_EQ(pool.free_pages(), 0u);
    EXPECT_FALSE(c.reserve(257).ok());
    EXPECT_EQ(c.capacity(), 256u);
    c.truncate(65);
    EXPECT_EQ(pool.free_pages(), 2u);
  }
  EXPECT_EQ(pool.free_pages(), 4u);
}

TEST(PagePoolHost, APromptTakesOverThePagesThatItBeginsWith) {
  PagePool pool(16);
  const std::vector<uint32_t> ids = tokens(200);
  const SequencePages first = prefilled(pool, ids);
  const auto reused = [&](const std::vector<uint32_t>& prompt) {
    SequencePages sequence(pool);
    const uint32_t length = sequence.reuse(prompt);
    EXPECT_TRUE(std::equal(sequence.block_table().begin(), sequence.block_table().end(),
                           first.block_table().begin()));
    return length;
  };
  EXPECT_EQ(reused(ids), 192u);
  EXPECT_EQ(reused(tokens(193)), 192u);
  EXPECT_EQ(reused(tokens(192)), 128u);  // the last token is computed in any case
  EXPECT_EQ(reused(tokens(64)), 0u);
  EXPECT_EQ(reused(tokens(1)), 0u);
  EXPECT_EQ(reused({}), 0u);
  std::vector<uint32_t> other = ids;
  other[70] = 9999;
  EXPECT_EQ(reused(other), 64u);
  other[0] = 9999;
  EXPECT_EQ(reused(other), 0u);
  // The same tokens at another place are another content.
  EXPECT_EQ(reused(tokens(200, 64)), 0u);
  const PagePoolStats stats = pool.stats();
  EXPECT_EQ(stats.wanted_pages, 3u + 3 + 2 + 0 + 0 + 0 + 3 + 3 + 3);
  EXPECT_EQ(stats.matched_pages, 3u + 3 + 2 - 0 + 1);
  EXPECT_EQ(stats.used, 4u);
}

TEST(PagePoolHost, KnownPagesStayUntilOthersNeedThem) {
  PagePool pool(4);
  const std::vector<uint32_t> ids = tokens(192);
  { const SequencePages ended = prefilled(pool, ids); }
  EXPECT_EQ(pool.stats().cached, 3u);
  EXPECT_EQ(pool.free_pages(), 4u);
  {
    SequencePages small(pool);
    ASSERT_TRUE(small.reserve(1).ok());
    EXPECT_EQ(pool.stats().evicted_pages, 0u);
    ASSERT_TRUE(small.reserve(65).ok());  // the last page of the ended sequence goes first
    EXPECT_EQ(pool.stats().evicted_pages, 1u);
    SequencePages again(pool);
    EXPECT_EQ(again.reuse(tokens(1000)), 128u);
    EXPECT_EQ(pool.stats().cached, 0u);
    EXPECT_FALSE(small.reserve(129).ok());  // pages in use are nobody else's
  }
  EXPECT_EQ(pool.free_pages(), 4u);
}

// Behind an evicted page nothing is found, even if its own content comes back under another page.
TEST(PagePoolHost, PagesBehindAnEvictedOneAreNotFound) {
  PagePool pool(8);
  SequencePages first = prefilled(pool, tokens(128));
  SequencePages second(pool);
  ASSERT_EQ(second.reuse(tokens(129)), 128u);
  first.clear();
  // Only the sequence's own order decides; here the first page is given back before the second.
  pool.retain(second.block_table());
  const std::vector<uint32_t> pages(second.block_table().begin(), second.block_table().end());
  second.clear();
  pool.give_back({&pages[0], 1});
  pool.give_back({&pages[1], 1});
  auto taken = pool.take(7);
  ASSERT_TRUE(taken.ok());
  EXPECT_EQ(pool.stats().evicted_pages, 1u);
  EXPECT_TRUE(pool.match(tokens(128)).empty());
  pool.give_back(*taken);
  const SequencePages anew = prefilled(pool, tokens(64));
  SequencePages found(pool);
  EXPECT_EQ(found.reuse(tokens(129)), 64u);
}

TEST(PagePoolHost, GeneratedRowsAreSharedOnlyWhenAskedFor) {
  PagePool pool(8);
  const std::vector<uint32_t> ids = tokens(192);
  SequencePages sequence(pool);
  ASSERT_TRUE(sequence.reserve(192).ok());
  sequence.publish(std::span(ids).first(100), PageOrigin::kPrefill);  // a prompt of 100
  sequence.publish(ids, PageOrigin::kGenerated);
  SequencePages exact(pool), loose(pool);
  EXPECT_EQ(exact.reuse(tokens(193)), 64u);
  EXPECT_EQ(loose.reuse(tokens(193), true), 192u);
}

TEST(PagePoolHost, AForkWritesIntoACopyOfItsOwn) {
  PagePool pool(4);
  const std::vector<uint32_t> ids = tokens(100);
  SequencePages first = prefilled(pool, ids);
  SequencePages second = first.fork();
  EXPECT_EQ(pool.stats().used, 2u);
  const auto copy = second.make_writable(100);
  ASSERT_TRUE(copy.ok() && copy->has_value());
  EXPECT_EQ((*copy)->from, first.block_table()[1]);
  EXPECT_EQ((*copy)->to, second.block_table()[1]);
  EXPECT_EQ(first.block_table()[0], second.block_table()[0]);
  EXPECT_FALSE(second.make_writable(100)->has_value());
  EXPECT_FALSE(first.make_writable(100)->has_value());
  // Into a known page that nobody else holds: it is no longer known.
  second.clear();
  EXPECT_FALSE(first.make_writable(3)->has_value());
  SequencePages third(pool);
  EXPECT_EQ(third.reuse(ids), 0u);
  // No page for the copy: an error, and the fork still shares.
  SequencePages shared = first.fork();
  ASSERT_TRUE(third.reserve(128).ok());
  EXPECT_EQ(shared.make_writable(0).status().code(), Errc::kOutOfDeviceMemory);
  EXPECT_EQ(shared.block_table()[0], first.block_table()[0]);
}

// 20,000 random operations against what every page ought to hold.
TEST(PagePoolHost, RandomUseKeepsItsInvariants) {
  test::Random random(1);
  PagePool pool(24);
  struct Sequence {
    SequencePages pages;
    std::vector<uint32_t> ids;  // of reserved positions
  };
  std::vector<Sequence> sequences;
  std::map<uint32_t, std::vector<uint32_t>> rows;  // page -> all tokens up to its end
  const auto write = [&](Sequence& s, uint32_t from) {
    for (uint32_t page = from / 64; page < s.pages.block_table().size(); ++page) {
      const size_t end = std::min<size_t>((page + 1) * 64, s.ids.size());
      rows[s.pages.block_table()[page]] = {s.ids.begin(), s.ids.begin() + long(end)};
    }
  };
  uint64_t reused = 0;
  for (int step = 0; step < 20000; ++step) {
    const uint32_t what = random.below(10);
    if (what < 4) {  // a prompt of few beginnings
      std::vector<uint32_t> ids;
      const uint32_t length = 1 + random.below(300);
      for (uint32_t i = 0; i < length; ++i) {
        ids.push_back(i % 64 == 0 ? random.below(2) : ids[i / 64 * 64]);
      }
      Sequence s{SequencePages(pool), ids};
      const uint32_t known = s.pages.reuse(ids);
      ASSERT_LT(known, ids.size());
      reused += known;
      for (uint32_t page = 0; page < known / 64; ++page) {
        const std::vector<uint32_t> held(ids.begin(), ids.begin() + (page + 1) * 64);
        ASSERT_EQ(rows[s.pages.block_table()[page]], held);
      }
      if (!s.pages.reserve(length).ok()) continue;
      write(s, known);
      s.pages.publish(ids, PageOrigin::kPrefill);
      sequences.push_back(std::move(s));
    } else if (!sequences.empty()) {
      const size_t i = random.below(uint32_t(sequences.size()));
      Sequence& s = sequences[i];
      if (what < 6) {
        std::swap(s, sequences.back());
        sequences.pop_back();
      } else if (what < 8 && sequences.size() < 20) {
        sequences.push_back({s.pages.fork(), s.ids});
      } else {  // one more token
        const uint32_t position = uint32_t(s.ids.size());
        if (!s.pages.reserve(position + 1).ok()) continue;
        const auto copy = s.pages.make_writable(position);
        if (!copy.ok()) continue;
        if (copy->has_value()) rows[(*copy)->to] = rows[(*copy)->from];
        s.ids.push_back(1000 + random.below(3));
        write(s, position);
      }
    }
    // Every row of every sequence is what the sequence says.
    const PagePoolStats stats = pool.stats();
    std::set<uint32_t> used;
    for (const Sequence& s : sequences) {
      for (uint32_t page = 0; page < s.pages.block_table().size(); ++page) {
        const uint32_t index = s.pages.block_table()[page];
        used.insert(index);
        const size_t end = std::min<size_t>((page + 1) * 64, s.ids.size());
        const std::vector<uint32_t>& held = rows[index];
        ASSERT_GE(held.size(), end);
        ASSERT_TRUE(std::equal(s.ids.begin(), s.ids.begin() + long(end), held.begin())) << step;
      }
    }
    ASSERT_EQ(stats.used, used.size());
    ASSERT_EQ(stats.used + stats.cached + stats.free, 24u);
  }
  EXPECT_GT(reused, 10000u);
  EXPECT_GT(pool.stats().evicted_pages, 100u);
  sequences.clear();
  EXPECT_EQ(pool.free_pages(), 24u);
}

}  // namespace
}  // namespace hadal::runtime
