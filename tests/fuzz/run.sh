#!/bin/sh
# tests/fuzz/run.sh PROGRAM TARGET WORK [LAUNCHER]: TARGET of a libFuzzer program for HADAL_FUZZ_SECONDS (60) over its
# kept seeds. What it finds: inputs that go new ways in WORK/corpus/TARGET, those that fail as WORK/TARGET-*, its log
# in WORK/TARGET.log. A failing input belongs to tests/fuzz/seeds/ with the change that mends it.
set -eu
program=$1 target=$2 work=$3 launcher=${4:-}
mkdir -p "$work/corpus/$target"
export HADAL_FUZZ_TARGET="$target" LP_NUM_THREADS=0
export ASAN_OPTIONS=allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
LSAN_OPTIONS=suppressions=$(cd "$(dirname "$0")/.." && pwd)/leaks.txt
export LSAN_OPTIONS
status=0
# shellcheck disable=SC2086  # no launcher is no word
$launcher "$program" -max_total_time="${HADAL_FUZZ_SECONDS:-60}" -timeout=60 -rss_limit_mb=4096 -max_len=8192 \
  -print_final_stats=1 -artifact_prefix="$work/$target-" "$work/corpus/$target" >"$work/$target.log" 2>&1 || status=$?
tail -n 40 "$work/$target.log"
exit $status
