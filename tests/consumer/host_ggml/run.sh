#!/bin/sh
# Builds hadal's C library and the ggml host in a Debian testing root, which packages ggml, and runs the host there:
#   tests/consumer/host_ggml/run.sh [--root DIR]
# DIR is such a root with the packages below; without it one is made in .cache/host-ggml with mmdebstrap (once).
# Needs root, as programs run there by chroot; exit code 77 says what is missing.
set -eu
root=""
if [ "${1:-}" = --root ]; then root=$2; fi
cd "$(dirname "$0")/../../.."
packages=cmake,g++,ninja-build,pkgconf,libfmt-dev,libggml-dev,libggml0,libvulkan-dev,libvulkan-memory-allocator-dev
packages=$packages,glslc,spirv-tools,mesa-vulkan-drivers,vulkan-validationlayers,libasan8,libubsan1

skip() { echo "host_ggml: $1" >&2; exit 77; }
[ "$(id -u)" = 0 ] || skip "chroot needs root"
# Mounts are this run's own: whoever removes the folder later must not reach this machine's /dev through it.
[ -n "${HADAL_OWN_MOUNTS:-}" ] || HADAL_OWN_MOUNTS=1 exec unshare --mount tests/consumer/host_ggml/run.sh "$@"
if [ -z "$root" ]; then
  root=$PWD/.cache/host-ggml
  if [ "$(cat "$root/complete" 2>/dev/null)" != "$packages" ]; then
    command -v mmdebstrap >/dev/null || skip "mmdebstrap is missing; apt-get install it"
    rm -rf --one-file-system "$root"
    mkdir -p "$root"
    mmdebstrap --aptopt='Acquire::Check-Valid-Until "false"' --variant=apt --include="$packages" \
      testing "$root" "${HADAL_DEBIAN_MIRROR:-http://deb.debian.org/debian}"
    echo "$packages" > "$root/complete"
  fi
fi
for d in proc sys dev; do
  [ -n "$(ls "$root/$d" 2>/dev/null)" ] || mount --rbind "/$d" "$root/$d"
done

# The working tree without its build folders; files that did not change keep their time, so a second run is quick.
work=/var/tmp/hadal-ggml
mkdir -p "$root$work/source"
for path in CMakeLists.txt LICENSE cmake shaders kernels capi bench tests; do  # tests, benches: the registry looks
  mkdir -p "$root$work/source/$(dirname "$path")"
  cp -a -u -T "$path" "$root$work/source/$path"
done
exec chroot "$root" sh -eu -c "
  cd $work
  cmake -G Ninja -S source -B hadal -DHADAL_BUILD_RUNTIME=OFF -DHADAL_BUILD_REFERENCE=OFF -DHADAL_BUILD_TESTS=OFF \
    -DHADAL_BUILD_BENCH=OFF -DHADAL_BUILD_EXAMPLES=OFF -DCMAKE_BUILD_TYPE=Release >/dev/null
  cmake --build hadal
  for component in c c_development; do
    cmake --install hadal --prefix $work/prefix --component \$component >/dev/null
  done
  cmake -G Ninja -S source/tests/consumer/host_ggml -B host -DCMAKE_PREFIX_PATH=$work/prefix \
    -DHOST_GGML_REQUIRED=ON >/dev/null
  cmake --build host
  LP_NUM_THREADS=0 LSAN_OPTIONS=suppressions=$work/source/tests/leaks.txt exec ./host/host_ggml"
