#!/bin/sh
# Everything for a machine with a GPU, in under 10 minutes: builds, says what the device exposes, tests on
# the GPU's own driver, tunes where hadal-tune is built, runs the GEMM benches cold-cache at DeepGEMM's
# shapes and latent attention at FlashMLA's, and writes JSON and one table to bench/results/DEVICE/.
#   bench/gpu_report.sh [--build DIR] [--out DIR] [--quick] [--no-setup] [--no-build] [--no-tests]
#   --quick     two small shapes: proves the script, also on a CPU driver
#   --no-setup  do not install packages (./setup.sh); HADAL_SYSROOT names a sysroot to build with
#   --no-build  use what is in the build folder
set -eu
started=$(date +%s)
command_line="bench/gpu_report.sh $*"
cd "$(dirname "$0")/.."
build=build out="" quick=no setup=yes do_build=yes tests=yes
while [ $# -gt 0 ]; do
  case $1 in
    --build) build=$2; shift ;;
    --out) out=$2; shift ;;
    --quick) quick=yes ;;
    --no-setup) setup=no ;;
    --no-build) setup=no do_build=no ;;
    --no-tests) tests=no ;;
    *) sed -n '2,9p' "$0" >&2; exit 2 ;;
  esac
  shift
done
say() { printf '[%3d s] %s\n' "$(($(date +%s) - started))" "$*"; }

if [ "$setup" = yes ]; then say "setup"; ./setup.sh test; fi
if [ "$do_build" = yes ]; then
  sysroot=${HADAL_SYSROOT:-}
  if [ -z "$sysroot" ] && [ -e .sysroot/complete ]; then sysroot=$PWD/.sysroot; fi
  say "build"
  cmake -G Ninja -S . -B "$build" -DHADAL_SYSROOT="$sysroot" -DHADAL_BUILD_TESTS=ON -DHADAL_BUILD_BENCH=ON >/dev/null
  targets="hadal-info hadal_fp8_gemm_bench hadal_bf16_gemm_bench hadal_fp8_grouped_gemm_bench hadal_mla_decode_bench hadal_mla_prefill_bench"
  [ "$tests" = no ] || targets="$targets hadal_gpu_tests"
  if cmake --build "$build" --target help | grep -q '^hadal-tune:'; then targets="$targets hadal-tune"; fi
  # shellcheck disable=SC2086  # a list of words
  cmake --build "$build" -j "$(nproc)" --target $targets
fi

# A GPU is reached through the system's own loader; without one this is a dry run on the CPU driver.
launcher="" driver=system
if ! "$build/examples/hadal-info" --list 2>/dev/null | grep -q ' gpu '; then
  say "no GPU: a dry run on the CPU driver"
  sysroot=$(sed -n 's/^HADAL_SYSROOT:[A-Z]*=//p' "$build/CMakeCache.txt")
  if [ -n "$sysroot" ]; then launcher=$sysroot/run driver=lavapipe-512; fi
fi
name=$($launcher "$build/examples/hadal-info" --list | { grep -m1 ' gpu ' || $launcher "$build/examples/hadal-info" --list; } |
  head -n 1 | cut -d ' ' -f 3- | tr -cs 'A-Za-z0-9\n' '-' | sed 's/-*$//' | tr 'A-Z' 'a-z')
out=${out:-bench/results/$name}
mkdir -p "$out"
device_name=$name
say "device $name, results in $out"
$launcher "$build/examples/hadal-info" --json > "$out/info.json"

test_result="not run"
if [ "$tests" = yes ]; then
  say "tests on the driver"
  test_result=passed
  ctest --test-dir "$build" -R "^hadal_gpu_tests/$driver\$" --output-on-failure --timeout 150 > "$out/tests.log" 2>&1 ||
    test_result="FAILED, see tests.log"
  say "tests $test_result"
fi

if [ -x "$build/examples/hadal-tune" ]; then
  say "tune"
  timeout 120 $launcher "$build/examples/hadal-tune" --out "$out/tuning.txt" > "$out/tune.log" 2>&1 ||
    say "hadal-tune failed, see tune.log; going on without"
fi

# DeepGEMM's (n, k); few rows, where the weights' bandwidth is the limit, and a prefill's.
sizes="n=2112,k=7168 n=24576,k=1536 n=32768,k=512 n=7168,k=16384 n=4096,k=7168 n=7168,k=2048"
rows="1 2 4 8 16 32 64 4096"
groups="experts=4,tokens=32768 experts=8,tokens=32768 experts=32,tokens=8192 experts=32,tokens=1024"
group_sizes="n=4096,k=7168 n=7168,k=2048"
# Decode of a batch of long contexts, the longest with the cache in rows of 656 bytes only or for half the
# batch: drivers need not allocate more than 4 GB at once. Prefill from nothing and behind cached keys.
decode="tokens=128,kv_len=4096,cache=bf16 tokens=128,kv_len=8192,cache=bf16 tokens=128,kv_len=16384,cache=bf16
  tokens=64,kv_len=32768,cache=bf16 tokens=128,kv_len=4096,cache=fp8 tokens=128,kv_len=8192,cache=fp8
  tokens=128,kv_len=16384,cache=fp8 tokens=128,kv_len=32768,cache=fp8 tokens=1,kv_len=32768,cache=bf16
  tokens=1,kv_len=32768,cache=fp8"
heads=heads=128,rank=512,rope=64
prefill="q_begin=0,q_len=256 q_begin=0,q_len=2048 q_begin=4096,q_len=256" prefill_heads=heads=128,nope=128,rope=64,v=128
seconds=0.25
if [ "$quick" = yes ]; then
  decode="tokens=2,kv_len=128,cache=bf16 tokens=2,kv_len=128,cache=fp8" heads=heads=32,rank=64,rope=16
  prefill="q_begin=0,q_len=64" prefill_heads=heads=4,nope=32,rope=32,v=32
  sizes="n=576,k=512 n=512,k=1024" rows="1 16" groups="experts=4,tokens=64" group_sizes="n=512,k=512" seconds=0.05
fi
shapes="" dense="" grouped=""
for m in $rows; do for s in $sizes; do shapes="$shapes m=$m,$s"; done; done
for s in $shapes; do dense="$dense --shape $s"; done
for g in $groups; do for s in $group_sizes; do
  experts=${g#experts=} experts=${experts%%,*}
  grouped="$grouped --shape $g,used=$experts,$s,top_k=1,routing=even"
  tokens=${g##*tokens=}
  dense="$dense --shape m=$((tokens / experts)),$s"  # what grouped is compared with
done; done
attention_decode="" attention_prefill=""
for d in $decode; do attention_decode="$attention_decode --shape $d,$heads"; done
for p in $prefill; do attention_prefill="$attention_prefill --shape $p,$prefill_heads"; done
failed=""
# fp8_gemm twice: the default, whose rows do not depend on the batch, and whatever is fastest.
# The attention kernels as they choose, and on the portable path.
for run in fp8_gemm fp8_gemm_variant bf16_gemm fp8_grouped_gemm mla_decode mla_prefill mla_decode_portable mla_prefill_portable; do
  say "$run"
  bench=${run%_portable} policy=invariant limit=150 attention=""
  [ "$bench" = "$run" ] || attention="--attention portable"
  case $run in
    mla_decode*) list=$attention_decode limit=60 ;;
    mla_prefill*) list=$attention_prefill limit=30 ;;
    fp8_grouped_gemm) list=$grouped ;;
    fp8_gemm_variant) list=$dense bench=fp8_gemm policy=variant ;;
    *) list=$dense ;;
  esac
  # shellcheck disable=SC2086  # a list of words
  timeout "$limit" $launcher "$build/bench/hadal_${bench}_bench" --cold --seconds $seconds --samples 10 \
    --policy $policy $attention --json "$out/$run.json" $list > "$out/$run.log" 2>&1 || { failed="$failed $run"; tail -n 3 "$out/$run.log"; }
done
say "the vendor's library"
# shellcheck disable=SC2086  # a list of words
python3 bench/peers/torch_gemm.py $shapes > "$out/torch.json" || { failed="$failed torch"; echo '[]' > "$out/torch.json"; }

{
  echo "# $device_name"
  echo
  echo "\`$command_line\`, $(git log -1 --format=%h 2>/dev/null || echo unknown), $(date -u +%F). Tests on this driver: $test_result.${failed:+ Failed:$failed.}"
  python3 bench/gpu_table.py "$out/fp8_gemm.json" --variant "$out/fp8_gemm_variant.json" "$out/bf16_gemm.json" "$out/fp8_grouped_gemm.json" "$out/torch.json" \
    "$out/mla_decode.json" "$out/mla_prefill.json" --variant "$out/mla_decode_portable.json" --variant "$out/mla_prefill_portable.json"
} > "$out/README.md"
cat "$out/README.md"
say "written: $out/README.md"
[ -z "$failed" ] && [ "${test_result#FAILED}" = "$test_result" ]
