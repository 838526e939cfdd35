#!/bin/sh
# Builds what a release has into a new folder: release.sh FOLDER [GOOS/GOARCH...]. The same commit and version of
# Go make the same bytes, wherever they are built; COMPRESS=none makes the Debian package fast.
set -eu
out=$1
shift
[ $# -gt 0 ] || set -- linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/../.."

refuse() {
	printf 'release: %s\nhint: %s\n' "$1" "$2" >&2
	exit 1
}
[ -d .git ] || refuse "this is no clone of the repository: Go would stamp no version" "git clone it, with its tags"
commit=$(git rev-parse HEAD)
# What is staged, changed or not known to git would be in the binaries, and not in the commit that they name.
[ -z "$(git status --porcelain)" ] || refuse "the working tree differs from commit $commit" \
	"commit or stash what git status shows"
[ -z "$(ls -A "$out")" ] || refuse "$out is not empty" "remove it, or choose another: make release RELEASE=DIR"
[ "$(dpkg --print-architecture || true)" = amd64 ] || refuse "the Debian package is made on amd64 alone" \
	"release on Debian or Ubuntu, on amd64"

# The version is the tag's, which Go stamps into the binary itself.
export CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off GOEXPERIMENT= GOFIPS140=off GOAMD64=v1 GOARM64=v8.0
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
unset GOOS GOARCH || true
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
go build -o "$tools/sbom" ./modes/sbom
for platform; do
	os=${platform%/*} arch=${platform#*/}
	made=$tools/imgcluster
	GOOS=$os GOARCH=$arch go build -trimpath -buildvcs=true -o "$made" .
	version=$(go version -m "$made" | awk '$1 == "mod" { print $3 }')
	name=imgcluster-$version-$os-$arch
	[ "$os" != windows ] || name=$name.exe
	mv "$made" "$out/$name"
	"$tools/sbom" "$out/$name" >"$out/$name.cdx.json"
	[ "$platform" != linux/amd64 ] || testdata/deploy/deb.sh "$out/$name" "$out" >/dev/null
done
cd "$out"
sha256sum -- * >"$tools/sums"
mv "$tools/sums" SHA256SUMS
cat SHA256SUMS
