#!/bin/sh
# Builds a release of this clone's commit twice, in two clones at paths of different lengths, and compares every
# byte: release-check.sh [GOOS/GOARCH...]. With FRESH=1 the second compiles everything again, with an empty cache.
set -eu
cd "$(dirname "$0")/../.."
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
git clone --quiet . "$dir/a"
git clone --quiet . "$dir/another/longer path/of the clone"
"$dir/a/testdata/deploy/release.sh" "$dir/first" "$@"
[ -z "${FRESH:-}" ] || export GOCACHE="$dir/cache"
umask 077
TZ=Asia/Tokyo "$dir/another/longer path/of the clone/testdata/deploy/release.sh" "$dir/second" "$@" >/dev/null
diff -r "$dir/first" "$dir/second"
echo "the same bytes twice"
