#!/usr/bin/env bash
# Proves the tests: seeds each bug of testdata/bugs into a copy of the sources and shows that the test
# named in its patch fails. Without the bug the same test must pass.
#
#   testdata/bugs.sh [PATCH...]
set -euo pipefail
cd "$(dirname "$0")/.."
patches=("$@")
if [ ${#patches[@]} -eq 0 ]; then patches=(testdata/bugs/*.patch); fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git ls-files -z | xargs -0 cp --parents -t "$work"
passed="" missed=0 caught=0
for patch in "${patches[@]}"; do
	name=$(basename "$patch" .patch)
	breaks=$(sed -n 's/^# breaks: //p' "$patch")
	run=$(sed -n 's/^# caught by: //p' "$patch")
	if [[ "$run" != "go test "* ]]; then
		echo "$patch does not say which go test catches it"
		exit 1
	fi
	log=$work/$name.log
	if [[ "$passed" != *"|$run|"* ]] && ! (cd "$work" && bash -c "$run -count=1 -timeout=3m" >"$log" 2>&1); then
		echo "FAILS WITHOUT A BUG  $run"
		tail -20 "$log"
		exit 1
	fi
	passed="$passed|$run|"
	(cd "$work" && patch -s -p1) <"$patch"
	if ! (cd "$work" && go vet "$(awk '{print $3}' <<<"$run")" >"$log" 2>&1); then
		echo "does not build       $name"
		tail -5 "$log"
		exit 1
	fi
	if (cd "$work" && bash -c "$run -count=1 -timeout=3m" >"$log" 2>&1); then
		missed=$((missed + 1))
		printf 'NOT CAUGHT  %-28s %s\n' "$name" "$run"
	else
		caught=$((caught + 1))
		printf 'caught      %-28s %s\n            %s\n' "$name" "$run" "$breaks"
	fi
	(cd "$work" && patch -s -R -p1) <"$patch"
done
echo "$caught caught, $missed not"
[ "$missed" -eq 0 ]
