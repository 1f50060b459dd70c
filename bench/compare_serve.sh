#!/bin/sh
# hadal-serve beside its own engine and llama-server, in turns in one run:
#   bench/compare_serve.sh [--root DIR] [options of bench/compare_serve.py; --help lists them]
# DIR is a Debian testing root with llama.cpp, its Vulkan backend and python3-gguf; without it one is
# made in .cache/peers-pipeline with mmdebstrap (once). Needs root: programs run there by chroot.
# Build hadal first, with benches (./test.sh does).
set -eu
root=""
if [ "${1:-}" = --root ]; then
  root=$2
  shift 2
fi
cd "$(dirname "$0")/.."
case " $* " in *" --help "* | *" -h "*) exec python3 bench/compare_serve.py "$@" ;; esac
. bench/peers/testing_root.sh
own_mounts bench/compare_serve.sh ${root:+--root "$root"} "$@"
enter_testing_root "$PWD/.cache/peers-pipeline" \
  llama.cpp,libggml0-backend-vulkan,mesa-vulkan-drivers,python3-gguf,python3-numpy "$root"

# The models: fables as it is, and the random one of 35 million parameters, as checkpoint and GGUF.
work=/var/tmp/hadal-pipeline
mkdir -p "$root$work/fables"
cp bench/peers/checkpoint_to_gguf.py bench/peers/random_checkpoint.py "$root$work/"
cp examples/models/fables/* "$root$work/fables/"
[ -e "$root$work/random35m/config.json" ] || chroot "$root" python3 "$work/random_checkpoint.py" "$work/random35m"
for model in fables random35m; do
  for type in bf16 q8_0; do
    [ -e "$root$work/$model-$type.gguf" ] ||
      chroot "$root" python3 "$work/checkpoint_to_gguf.py" "$work/$model" "$work/$model-$type.gguf" --type $type
  done
done
exec python3 bench/compare_serve.py --root "$root" --work "$work" "$@"
