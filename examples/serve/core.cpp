#include "serve/core.h"

#include <fmt/format.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "serve/generation.h"

namespace hadal::serve {

void Signal::notify() {
  set_ = true;
  if (waiting_) timer_.cancel();
}

asio::awaitable<void> Signal::wait() {
  while (!set_) {
    waiting_ = true;
    (void)co_await timer_.async_wait(asio::as_tuple(asio::use_awaitable));
    waiting_ = false;
  }
  set_ = false;
}

void Mailbox::push(Entry entry) {
  bool first = false;
  {
    const std::scoped_lock lock(mutex_);
    first = entries_.empty();
    entries_.push_back(std::move(entry));
  }
  if (first) asio::post(io_, [this] { deliver(); });
}

void Mailbox::deliver() {
  {
    const std::scoped_lock lock(mutex_);
    delivered_.swap(entries_);
  }
  for (const Entry& entry : delivered_) entry.to->take(entry.answer, entry.token, entry.time);
  delivered_.clear();
}

Core::Core(const ServedModel& served, runtime::EngineRunner& engine, ServerOptions server_options)
    : model(served),
      runner(engine),
      options(std::move(server_options)),
      scratch(64 << 10),
      random(std::random_device()()) {
  // One word of a random device seeds too few sequences for ids and seeds.
  std::random_device device;
  std::seed_seq seeds{device(), device(), device(), device(),
                      device(), device(), device(), device()};
  random.seed(seeds);
}

void Core::log(std::string_view line) const {
  if (options.log) options.log(line);
}

std::string Core::new_id(std::string_view prefix) {
  return fmt::format("{}-{:016x}{:016x}", prefix, random(), random());
}

}  // namespace hadal::serve
