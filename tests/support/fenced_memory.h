// Host memory that ends at pages which nothing may touch: who reads or writes past its end is
// found. Drivers on the CPU run a shader's uniform loads whether their branch is taken or not, and
// a loop that tests at its start once more than it has turns, so that a load whose value is not
// used may lie outside of an operand. Bounds are no part of device addresses: only the page table
// sees such a load.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace hadal::test {

class FencedMemory {
 public:
  // At least `bytes` bytes, a whole number of pages, readable and writable.
  explicit FencedMemory(size_t bytes);
  ~FencedMemory();
  FencedMemory(const FencedMemory&) = delete;
  FencedMemory& operator=(const FencedMemory&) = delete;

  [[nodiscard]] std::span<std::byte> bytes() const { return {begin_, size_}; }

  // How far past the end the first access since the last call was (0: the first byte behind it), or
  // -1. The access itself was let through: it read zero.
  [[nodiscard]] int64_t take_overrun();

 private:
  std::byte* begin_;
  size_t size_;
  size_t slot_;
};

}  // namespace hadal::test
