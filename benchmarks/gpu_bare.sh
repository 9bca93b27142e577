#!/bin/sh
# The GPU benchmark on a bare machine, from the checkout's folder; docs/performance.md says how.
#   sh benchmarks/gpu_bare.sh FOLDER_OF_THE_REPORT [further arguments of benchmarks.gpu]
# It wants a python3 that has torch and transformers, and .gpu as benchmarks.gpu_bundle makes it.
set -e
out=$1
shift
site=${TMPDIR:-/tmp}/cliplake-gpu
for side in ours datajuicer; do
    [ -e "$site/$side" ] || python3 -m tarfile -e ".gpu/$side.tar.xz" "$site/$side"
done
# Its own packages come first: the machine's may be of other versions.
export PYTHONPATH="$site/ours" PYTHONUNBUFFERED=1
exec python3 -m benchmarks.gpu --folder .gpu --json "$out/gpu.json" \
    --datajuicer-python python3 --datajuicer-path "$site/datajuicer:$site/ours" "$@"
