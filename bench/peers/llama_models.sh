# The root and the models of the comparisons with llama.cpp; read by scripts, which run with set -e.

# llama_models SCRIPT ARGUMENTS...: takes --root DIR from the front, starts the script again with mounts of its own, and
# makes `root` that root, or where none is named .cache/peers-pipeline with llama.cpp, its Vulkan backend and
# python3-gguf. `work` there has fables as it is and a random model of 35 million parameters, each as checkpoint and as
# bf16 and q8_0 GGUF.
llama_models() {
  script=$1
  shift
  root=""
  if [ "${1:-}" = --root ]; then
    root=$2
    shift 2
  fi
  . bench/peers/testing_root.sh
  own_mounts "$script" ${root:+--root "$root"} "$@"
  enter_testing_root "$PWD/.cache/peers-pipeline" \
    llama.cpp,libggml0-backend-vulkan,mesa-vulkan-drivers,python3-gguf,python3-numpy "$root"
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
}
