# Roots of Debian testing for programs that this system is too old for; read by scripts, which run with set -e.
# Each needs root, as programs run there by chroot.

# own_mounts SCRIPT ARGUMENTS...: starts the script again with mounts of its own, once: whoever removes the root's folder
# later must not reach this machine's /dev through it.
own_mounts() {
  [ -n "${HADAL_OWN_MOUNTS:-}" ] || HADAL_OWN_MOUNTS=1 exec unshare --mount "$@"
}

# enter_testing_root FOLDER PACKAGES GIVEN: makes `root` the folder GIVEN, or where that is empty FOLDER with PACKAGES
# (comma-separated) in it, made by mmdebstrap if it is not there or has others; and mounts what programs need.
enter_testing_root() {
  root=$3
  if [ -z "$root" ]; then
    root=$1
    if [ "$(cat "$root/complete" 2>/dev/null)" != "$2" ]; then
      command -v mmdebstrap >/dev/null || { echo "$0: mmdebstrap is missing; apt-get install it" >&2; return 77; }
      rm -rf --one-file-system "$root"
      mkdir -p "$root"
      mmdebstrap --aptopt='Acquire::Check-Valid-Until "false"' --variant=apt --include="$2" \
        testing "$root" "${HADAL_DEBIAN_MIRROR:-http://deb.debian.org/debian}"
      echo "$2" > "$root/complete"
    fi
  fi
  for d in proc sys dev; do
    [ -n "$(ls "$root/$d" 2>/dev/null)" ] || mount --rbind "/$d" "$root/$d"
  done
}
