#!/usr/bin/env bash
# The whole extreme run on three nodes of this machine, in a temporary folder: 20 GB of images in two
# copies. Prints the report and the peak memory of every process. Arguments go to stress.
set -euo pipefail
exe=$(cd "$(dirname "$0")/.." && pwd)/imgcluster
dir=$(mktemp -d)
trap 'kill -INT "$up" 2>/dev/null && wait "$up" || true; rm -rf "$dir"' EXIT
cd "$dir"

"$exe" up >up.out 2>&1 &
up=$!
for _ in $(seq 300); do
	grep -q 'nodes are ready' up.out && break
	kill -0 "$up" || { cat up.out; exit 1; }
	sleep 0.2
done

"$exe" stress --profile extreme --yes "$@" &
stress=$!
peak=0
while kill -0 "$stress" 2>/dev/null; do
	peak=$(awk '/VmHWM/ {print $2}' "/proc/$stress/status" 2>/dev/null || echo "$peak")
	sleep 0.5
done
status=0
wait "$stress" || status=$?
echo "peak memory of the client: ${peak:-?} kB"
for pid in $(awk '/process/ {for (i = 1; i < NF; i++) if ($i == "process") print $(i + 1)}' up.out); do
	echo "peak memory of server process $pid: $(awk '/VmHWM/ {print $2}' "/proc/$pid/status") kB"
done
exit "$status"
