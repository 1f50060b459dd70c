#include "support/fenced_memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace hadal::test {
namespace {

constexpr size_t kFenceBytes = 64 << 10;  // farther than any step or row of the tests

// What the signal handler knows of: fences in use, and where the first access to each was.
struct Fence {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> touched{0};
};
std::array<Fence, 4096> g_fences;

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

// Opens the fence and returns, so that the access is made again and the test goes on to report it.
// mprotect() is a plain system call: nothing here allocates or locks.
void on_fault(int, siginfo_t* info, void*) {
  const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
  for (Fence& fence : g_fences) {
    const uintptr_t begin = fence.begin;
    if (begin == 0 || at < begin || at >= begin + kFenceBytes) continue;
    uintptr_t none = 0;
    fence.touched.compare_exchange_strong(none, at);
    mprotect(reinterpret_cast<void*>(begin), kFenceBytes, PROT_READ | PROT_WRITE);
    return;
  }
  signal(SIGSEGV, SIG_DFL);  // somebody else's fault: it happens again, without us
}

void install_handler() {
  [[maybe_unused]] static const bool once = [] {
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGSEGV, &action, nullptr)) fail("sigaction");
    return true;
  }();
}

}  // namespace

FencedMemory::FencedMemory(size_t bytes) {
  install_handler();
  const auto page = size_t(sysconf(_SC_PAGESIZE));
  size_ = (bytes + page - 1) / page * page;
  void* memory = mmap(nullptr, size_ + kFenceBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fail("mmap");
  begin_ = static_cast<std::byte*>(memory);
  if (mprotect(begin_ + size_, kFenceBytes, PROT_NONE)) fail("mprotect");
  const auto fence = reinterpret_cast<uintptr_t>(begin_ + size_);
  for (slot_ = 0; slot_ < g_fences.size(); ++slot_) {
    uintptr_t none = 0;
    if (g_fences[slot_].begin.compare_exchange_strong(none, fence)) return;
  }
  std::fputs("FencedMemory: too many at once\n", stderr);
  std::exit(1);
}

FencedMemory::~FencedMemory() {
  g_fences[slot_].touched = 0;
  g_fences[slot_].begin = 0;
  munmap(begin_, size_ + kFenceBytes);
}

int64_t FencedMemory::take_overrun() {
  const uintptr_t at = g_fences[slot_].touched.exchange(0);
  if (at == 0) return -1;
  mprotect(begin_ + size_, kFenceBytes, PROT_NONE);
  return int64_t(at - reinterpret_cast<uintptr_t>(begin_ + size_));
}

}  // namespace hadal::test
