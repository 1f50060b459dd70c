#!/bin/sh
# Prints a story from the small DeepSeek-V3-architecture checkpoint in examples/models/fables, computed in
# FP8 by hadal's shaders on the best Vulkan device: ./demo.sh [PROMPT] [hadal-generate options]
set -eu
cd "$(dirname "$0")"
./setup.sh demo
sysroot=""
[ -e .sysroot/complete ] && sysroot=$PWD/.sysroot
if [ ! -e build/CMakeCache.txt ]; then
  cmake -G Ninja -S . -B build -DHADAL_SYSROOT="$sysroot" -DHADAL_BUILD_TESTS=OFF -DHADAL_BUILD_BENCH=OFF \
    >build-configure.log 2>&1 || { cat build-configure.log >&2; exit 2; }
  rm -f build-configure.log
fi
cmake --build build --target hadal-generate hadal-info -- --quiet >&2

# A GPU of this machine is used through the system's own loader; else the newest CPU driver at hand.
launcher=""
if [ -n "$sysroot" ] && ! ./build/examples/hadal-info --list 2>/dev/null | grep -q ' gpu '; then
  launcher=$sysroot/run
fi
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  prompt=$1
  shift
else
  prompt="Once upon a time there was a king who had"
fi
# Greedy decoding of a model this small soon repeats itself; a seed makes the sample the same every time.
[ $# -gt 0 ] || set -- --temperature 0.8 --top-p 0.9 --seed 5
exec $launcher ./build/examples/hadal-generate examples/models/fables "$prompt" "$@"
