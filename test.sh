#!/bin/sh
# Installs what is missing, builds everything and runs the tests: ./test.sh [--all] [ctest options]
#   --all  also the tests labelled slow (one makes a Debian testing root in .cache/), and 60 s of each fuzz target
set -eu
cd "$(dirname "$0")"
mode=test
[ "${1:-}" = --all ] && mode=all
./setup.sh $mode
sysroot=""
[ -e .sysroot/complete ] && sysroot=$PWD/.sysroot
jobs=$(nproc)
fuzz=OFF
if [ "${1:-}" = --all ]; then
  shift
  fuzz=ON
  export HADAL_TEST_ALL=1 HADAL_FUZZ_SECONDS=60
else
  set -- -LE slow "$@"
fi

cmake -G Ninja -S . -B build -DHADAL_SYSROOT="$sysroot" -DHADAL_BUILD_TESTS=ON -DHADAL_BUILD_BENCH=ON \
  -DHADAL_SANITIZE_TESTS=ON -DHADAL_FUZZ_TESTS=$fuzz
cmake --build build -j "$jobs"
# Lavapipe's compiled shaders are kept between runs, away from the user's own cache.
export MESA_SHADER_CACHE_DIR=$PWD/.cache/mesa
mkdir -p "$MESA_SHADER_CACHE_DIR"
exec ctest --test-dir build --output-on-failure -j "$jobs" "$@"
