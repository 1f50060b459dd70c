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

[ "$(id -u)" = 0 ] || { echo "host_ggml: chroot needs root" >&2; exit 77; }
. bench/peers/testing_root.sh
own_mounts tests/consumer/host_ggml/run.sh "$@"
enter_testing_root "$PWD/.cache/host-ggml" "$packages" "$root"

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
