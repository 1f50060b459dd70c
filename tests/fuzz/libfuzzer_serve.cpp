// The parsers of hadal-serve's bodies (serve/request_fuzz.h) as a libFuzzer program.
#include "fuzz/libfuzzer.h"
#include "serve/request_fuzz.h"

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  hadal::fuzz::write_seeds(*argc, *argv, hadal::fuzz::seeds_of("serve_request"));
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return hadal_fuzz_serve_request(data, size);
}
