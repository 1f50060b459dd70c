// What a fuzzer calls with bytes of a client: every parser of a body.
#pragma once

#include <cstddef>
#include <cstdint>

// Returns 0. Aborts where a parser takes what it should refuse, or refuses without a word.
int hadal_fuzz_serve_request(const uint8_t* data, size_t size);
