#!/bin/sh
# tests/consumer/installed/run_in_root.sh PACKAGES WORK: hadal's Debian packages (a folder of them) in a clean root of
# this system's release: apt installs them with what they depend on, a host is built there with them by CMake and by
# pkg-config and runs, a program of the packages tells a story, and apt removes them without a trace. The root is WORK/root, made afresh by mmdebstrap.
# Needs root, as programs run there by chroot; exit code 77 says what is missing.
set -eu
packages=$1 work=$2
skip() { echo "run_in_root: $1" >&2; exit 77; }
[ "$(id -u)" = 0 ] || skip "chroot needs root"
command -v mmdebstrap >/dev/null || skip "mmdebstrap is missing; apt-get install it"
ls "$packages"/*.deb >/dev/null || exit 1
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -n "$suite" ] || skip "/etc/os-release names no release"
# Mounts are this run's own: whoever removes the folder later must not reach this machine's /dev through it.
[ -n "${HADAL_OWN_MOUNTS:-}" ] || HADAL_OWN_MOUNTS=1 exec unshare --mount "$0" "$@"

here=$(cd "$(dirname "$0")/.." && pwd)
root=$work/root
rm -rf --one-file-system "$root"
mkdir -p "$root"
mmdebstrap --quiet --aptopt='Acquire::Check-Valid-Until "false"' --variant=apt --include=cmake,g++,make,pkg-config \
  "$suite" "$root" "${HADAL_DEBIAN_MIRROR:-http://deb.debian.org/debian}"
mkdir -p "$root/var/tmp/hadal"
cp "$packages"/*.deb "$root/var/tmp/hadal"
cp -r "$here" "$root/var/tmp/hadal/consumer"
cp -r "$here/../../examples/models/fables" "$root/var/tmp/hadal/fables"
chroot "$root" sh -eu -c '
  cd /var/tmp/hadal
  export DEBIAN_FRONTEND=noninteractive
  apt-get -o Acquire::Check-Valid-Until=false update -qq  # mmdebstrap leaves no lists
  apt-get install -y -qq --no-install-recommends ./*.deb mesa-vulkan-drivers >install.log 2>&1 || { cat install.log; exit 1; }
  dpkg --audit
  cmake -S consumer/installed -B build -DINSTALLED_COMPONENTS=c,engine,kernels,runtime >/dev/null
  cmake --build build
  for program in host host_cpp host_runtime; do "build/$program"; done
  cc consumer/subproject/host.c -o host_pkg_config $(pkg-config --cflags --libs hadal)
  ./host_pkg_config
  hadal-info
  hadal-generate fables "Once upon a time" -n 12 --quiet
  echo "The king said" | hadal-chat fables -n 12
  apt-get remove -y -qq libhadal0.1 libhadal-engine0.1 hadal >/dev/null 2>&1
  ! find /usr/bin /usr/lib /usr/include -name "*hadal*" | grep .'
echo "run_in_root: installed, built, run and removed on $suite"
