#!/bin/sh
# hadal beside llama.cpp on whole models, in turns in one run:
#   bench/compare_pipeline.sh [--root DIR] [options of bench/compare_pipeline.py; --help lists them]
# DIR is a Debian testing root with llama.cpp, its Vulkan backend and python3-gguf; without it one is
# made in .cache/peers-pipeline with mmdebstrap (once). Needs root: programs run there by chroot.
# Build hadal first, with benches (./test.sh does).
set -eu
cd "$(dirname "$0")/.."
case " $* " in *" --help "* | *" -h "*) exec python3 bench/compare_pipeline.py "$@" ;; esac
. bench/peers/llama_models.sh
llama_models bench/compare_pipeline.sh "$@"
[ "${1:-}" != --root ] || shift 2
exec python3 bench/compare_pipeline.py --root "$root" --work "$work" "$@"
