#!/bin/sh
# Runs openai_client.py in a Debian testing root, which packages the Python package openai and llm:
#   tests/serve/python_client.sh [--root DIR] URL KEY
# DIR is such a root; without it one is made in .cache/serve-python with mmdebstrap (once). Needs root, as programs run
# there by chroot; exit code 77 says what is missing.
set -eu
root=""
if [ "$1" = --root ]; then root=$2; shift 2; fi
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "python_client: chroot needs root" >&2; exit 77; }
. bench/peers/testing_root.sh
own_mounts tests/serve/python_client.sh ${root:+--root "$root"} "$@"
enter_testing_root "$PWD/.cache/serve-python" llm,python3-openai "$root"
cp tests/serve/openai_client.py "$root/var/tmp/"
exec chroot "$root" python3 /var/tmp/openai_client.py "$@"
