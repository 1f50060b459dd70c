#!/bin/sh
# hadal beside Eigen and ggml on the same shapes, core and driver, interleaved in one run:
#   bench/compare.sh [--root DIR] [options of bench/compare.py; --help lists them]
# DIR is a Debian testing root with Eigen 5, a newer g++ and ggml; without it one is made in
# .cache/peers with mmdebstrap (1.5 minutes, once). Needs root: programs run there by chroot.
# Build hadal first, with benches (./test.sh does). Re-run a part: --quick --only dense,m=128
set -eu
root=""
if [ "${1:-}" = --root ]; then
  root=$2
  shift 2
fi
cd "$(dirname "$0")/.."
case " $* " in *" --help "* | *" -h "*) exec python3 bench/compare.py "$@" ;; esac
. bench/peers/testing_root.sh
own_mounts bench/compare.sh ${root:+--root "$root"} "$@"
enter_testing_root "$PWD/.cache/peers" g++,libeigen3-dev,libggml-dev,libggml0-backend-vulkan,mesa-vulkan-drivers "$root"

work=/var/tmp/hadal-peers
mkdir -p "$root$work"
for program in eigen ggml ggml_attention; do
  binary=$root$work/${program}_bench
  if [ ! -e "$binary" ] || [ "bench/peers/${program}_bench.cpp" -nt "$binary" ] || [ bench/peers/peer.h -nt "$binary" ] ||
    [ bench/peers/ggml_peer.h -nt "$binary" ]; then
    cp bench/peers/*.h "bench/peers/${program}_bench.cpp" "$root$work/"
    case $program in
      eigen) flags="-O3 -march=native -I/usr/include/eigen3" libraries="" ;;
      ggml*) flags="-O2" libraries="-lggml -lggml-base" ;;
    esac
    # shellcheck disable=SC2086  # lists of words
    chroot "$root" sh -c "cd $work && g++ -std=c++20 $flags ${program}_bench.cpp -o ${program}_bench $libraries"
  fi
done
exec python3 bench/compare.py --root "$root" --work "$work" "$@"
