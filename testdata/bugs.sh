#!/usr/bin/env bash
# Proves the tests: seeds each bug of testdata/bugs into a copy of the sources and shows that the test
# named in its patch fails because of it. Without the bug the same test must pass. A hang, or a
# failure of another test, is not a bug caught.
#
#   testdata/bugs.sh [PATCH...]
set -euo pipefail
cd "$(dirname "$0")/.."
timeout=3m # of one run of a test

patches=("$@")
if [ ${#patches[@]} -eq 0 ]; then patches=(testdata/bugs/*.patch); fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git ls-files -z | xargs -0 cp --parents -t "$work"

# run LOG COMMAND runs a test command on the copy.
run() { (cd "$work" && bash -c "$2 -count=1 -timeout=$timeout") >"$1" 2>&1; }

# verdict PATCH COMMAND LOG prints what became of a bug.
verdict() {
	if ! (cd "$work" && patch -s -p1 --dry-run) <"$1" >"$3" 2>&1; then
		echo "does not apply"
		return
	fi
	(cd "$work" && patch -s -p1) <"$1"
	if run "$3" "$2"; then
		echo missed
	elif grep -q '\[\(build\|setup\) failed\]' "$3"; then
		echo "does not build"
	elif grep -q '^panic: test timed out' "$3"; then
		echo hangs
	elif grep -q '^ *--- FAIL: ' "$3"; then
		echo caught
	else
		echo "no test failed"
	fi
	(cd "$work" && patch -s -R -p1) <"$1"
}

good="" caught=0 began=$SECONDS
printf '%-15s %7s  %-30s %s\n' "" seconds bug "caught by"
for patch in "${patches[@]}"; do
	name=$(basename "$patch" .patch)
	command=$(sed -n 's/^# caught by: //p' "$patch")
	if [[ "$command" != "go test "*" -run "* ]]; then
		echo "$patch does not say which go test -run catches it"
		exit 1
	fi
	log=$work/$name.log
	if [[ "$good" != *"|$command|"* ]] && ! run "$log" "$command"; then
		echo "FAILS WITHOUT A BUG: $command"
		tail -20 "$log"
		exit 1
	fi
	good="$good|$command|"
	since=$SECONDS
	verdict=$(verdict "$patch" "$command" "$log")
	test=$(sed -n 's/^ *--- FAIL: \([^ ]*\).*/\1/p' "$log" | tail -1)
	printf '%-15s %7d  %-30s %s\n' "$verdict" $((SECONDS - since)) "$name" "${test:-$command}"
	if [ "$verdict" = caught ]; then
		caught=$((caught + 1))
	else
		tail -20 "$log"
	fi
done
echo "$caught of ${#patches[@]} bugs caught, $((SECONDS - began)) s with the tests of the good program"
[ "$caught" -eq ${#patches[@]} ]
