#!/bin/sh
# Installs what hadal needs on Debian or Ubuntu, once; quick when nothing is missing.
#   ./setup.sh demo    compiler, libraries, shader tools, a Vulkan driver
#   ./setup.sh python  also what pip needs to build the Python package, and NumPy
#   ./setup.sh test    that, GoogleTest, pytest, the validation layers and Doxygen
#   ./setup.sh all     also what only ./test.sh --all needs: mmdebstrap, clang, chromium
# Where the system's packages are too old (Debian 12) the few that must be newer are unpacked, not
# installed, from Debian testing into .sysroot/: Vulkan headers, shader tools, and Mesa's CPU driver.
# Needs no root beyond apt-get install (sudo is used only when not root).
set -eu
mode=${1:-test}
root=$(cd "$(dirname "$0")" && pwd)
cd "$root"

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 2; }

command -v apt-get >/dev/null 2>&1 || die "this script knows apt only; see README.md for the list of packages"

packages="ca-certificates cmake g++ ninja-build pkg-config libeigen3-dev libfmt-dev nlohmann-json3-dev
          libpcre2-dev libcli11-dev libedit-dev libvulkan-dev mesa-vulkan-drivers glslc spirv-tools"
python="python3 python3-numpy python3-pip python3-setuptools python3-venv python3-wheel"
case $mode in
  python) packages="$packages $python" ;;
  test | all)
    packages="$packages $python python3-pytest libgtest-dev vulkan-validationlayers doxygen curl tmux dpkg-dev file"
    command -v node >/dev/null 2>&1 || packages="$packages nodejs" ;;  # for a client of hadal-serve
esac
[ "$mode" = all ] && packages="$packages mmdebstrap clang chromium"

installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

apt_updated=no
apt_update() {
  [ "$apt_updated" = yes ] && return 0
  as_root apt-get -o Acquire::Check-Valid-Until=false update -qq || die "apt-get update failed"
  apt_updated=yes
}

# hadal-serve wants Boost 1.81 or newer: Debian 12 has it beside an older default.
has_boost() { grep -q 'BOOST_VERSION \(108[1-9]\|109\|1[1-9]\)' /usr/include/boost/version.hpp 2>/dev/null; }
if ! has_boost; then
  apt_update
  boost=libboost-dev
  if apt-cache show libboost1.81-dev >/dev/null 2>&1; then boost=libboost1.81-dev; fi
  packages="$packages $boost"
fi

missing=""
for p in $packages; do installed "$p" || missing="$missing $p"; done
if [ -n "$missing" ]; then
  say "installing$missing"
  apt_update
  # shellcheck disable=SC2086  # a list of words
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing \
    >/dev/null || die "apt-get install failed:$missing"
fi

# The npm package openai, a client of hadal-serve, as it is published. It needs no other package, and Debian's npm would
# bring four hundred.
if [ "$mode" = test ] || [ "$mode" = all ]; then
  read -r version digest < tests/serve/openai.sha512
  client=.cache/serve-client
  if [ "$(cat "$client/complete" 2>/dev/null)" != "$version $digest" ]; then
    say "fetching the npm package openai $version into $client/"
    rm -rf "$client"
    mkdir -p "$client/node_modules/openai"
    if curl -fsS --retry 3 -o "$client/openai.tgz" \
        "${HADAL_NPM_REGISTRY:-https://registry.npmjs.org}/openai/-/openai-$version.tgz"; then
      echo "$digest  $client/openai.tgz" | sha512sum --check --quiet || die "openai $version is not what it was"
      tar -xzf "$client/openai.tgz" -C "$client/node_modules/openai" --strip-components=1
      rm "$client/openai.tgz"
      echo "$version $digest" > "$client/complete"
    else
      say "cannot fetch openai $version: the test serve_npm_client will be skipped"
    fi
  fi
fi

# VulkanMemoryAllocator is packaged from Debian 13 on; elsewhere its header comes with the sysroot.
need_sysroot=no
if [ ! -e /usr/include/vk_mem_alloc.h ] && [ ! -e .sysroot/complete ]; then
  if [ -z "$(apt-cache policy libvulkan-memory-allocator-dev 2>/dev/null)" ]; then apt_update; fi
  if apt-cache policy libvulkan-memory-allocator-dev 2>/dev/null | grep -q 'Candidate: [0-9]'; then
    say "installing libvulkan-memory-allocator-dev"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      libvulkan-memory-allocator-dev >/dev/null || die "apt-get install failed: libvulkan-memory-allocator-dev"
  else
    need_sysroot=yes
  fi
fi
# The tests want lavapipe 26 or newer (facts and reasons: CONTRIBUTING.md).
mesa_major=$(dpkg-query -W -f '${Version}' mesa-vulkan-drivers | sed 's/[^0-9].*//')
if [ "$mode" != demo ] && [ "${mesa_major:-0}" -lt 26 ]; then need_sysroot=yes; fi

[ "$need_sysroot" = yes ] || [ -e .sysroot/complete ] || exit 0
[ "$(dpkg --print-architecture)" = amd64 ] || die "the newer driver is only set up on amd64"

recipe=$(cksum < "$root/setup.sh")
if [ "$(cat .sysroot/complete 2>/dev/null)" = "$recipe $root" ]; then exit 0; fi

mirror=${HADAL_DEBIAN_MIRROR:-http://deb.debian.org/debian}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keyring" ] || { apt_update; as_root apt-get install -y -qq debian-archive-keyring >/dev/null; }
say "unpacking newer Vulkan headers, shader tools and driver from Debian testing into .sysroot/"
rm -rf .sysroot
apt=$root/.sysroot/apt
mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$apt/empty"
: > "$apt/status"
echo "deb [check-valid-until=no signed-by=$keyring] $mirror testing main" > "$apt/sources.list"
cat > "$apt/apt.conf" <<CONF
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "$apt/empty";
Dir::Etc::preferencesparts "$apt/empty";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Debug::NoLocking "true";
CONF
APT_CONFIG=$apt/apt.conf apt-get update -qq || die "cannot read $mirror testing"
APT_CONFIG=$apt/apt.conf apt-get install -y -qq --download-only mesa-vulkan-drivers vulkan-validationlayers \
  glslc spirv-tools libvulkan1 libvulkan-dev libvulkan-memory-allocator-dev >/dev/null \
  || die "cannot download the newer driver"
for deb in "$apt"/cache/archives/*.deb; do dpkg -x "$deb" .sysroot; done
rm -rf "$apt"

lib=$root/.sysroot/usr/lib/x86_64-linux-gnu
mkdir -p .sysroot/bin .sysroot/include
for name in vulkan vk_video vk_mem_alloc.h; do ln -s "../usr/include/$name" ".sysroot/include/$name"; done
sed "s#\"libvulkan_lvp.so\"#\"$lib/libvulkan_lvp.so\"#" .sysroot/usr/share/vulkan/icd.d/lvp_icd*.json \
  > .sysroot/lvp_icd.json
for tool in glslc spirv-val spirv-opt spirv-dis; do
  printf '#!/bin/sh\nexec "%s/ld-linux-x86-64.so.2" --library-path "%s" "%s/.sysroot/usr/bin/%s" "$@"\n' \
    "$lib" "$lib" "$root" "$tool" > ".sysroot/bin/$tool"
  chmod +x ".sysroot/bin/$tool"
done
# The newer driver needs a newer libc than the system's: programs start through the sysroot's loader.
cat > .sysroot/run <<RUN
#!/bin/sh
# Runs a program of this machine on the sysroot's CPU driver (made by setup.sh).
lib="$lib"
export VK_DRIVER_FILES="$root/.sysroot/lvp_icd.json" VK_ICD_FILENAMES="$root/.sysroot/lvp_icd.json"
export VK_LAYER_PATH="$root/.sysroot/usr/share/vulkan/explicit_layer.d"
exec "\$lib/ld-linux-x86-64.so.2" --library-path "\$lib:/usr/lib/x86_64-linux-gnu:/lib/x86_64-linux-gnu" "\$@"
RUN
chmod +x .sysroot/run
echo "$recipe $root" > .sysroot/complete
