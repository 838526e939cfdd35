#!/bin/sh
# Makes a Debian package of a static binary: deb.sh BINARY FOLDER. It prints the package's path. The same binary
# makes the same package. COMPRESS=none is fast.
set -eu
binary=$1 out=$2
here=$(dirname "$0")
version=$("$binary" version --json | sed 's/.*"version":"v\{0,1\}\([^"]*\)".*/\1/; s/-/~/g; s/^\([^0-9]\)/0~\1/')
arch=$(dpkg --print-architecture)
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct 2>/dev/null || echo 0)}"

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
umask 022
chmod 755 "$tree"
install -D -m 755 "$binary" "$tree/usr/bin/imgcluster"
install -D -m 644 "$here/imgcluster.service" "$tree/usr/lib/systemd/system/imgcluster.service"
install -D -m 644 "$here/../../LICENSE" "$tree/usr/share/doc/imgcluster/copyright"
for text in README.md CHANGELOG.md cluster/OPERATIONS.md; do
	install -m 644 "$here/../../$text" "$tree/usr/share/doc/imgcluster/"
done
mkdir -p "$tree/etc/imgcluster" "$tree/DEBIAN"
man=$tree/usr/share/man
mkdir -p "$man/man5"
"$binary" man --quiet "$man/man1"
mv "$man/man1/imgcluster.yaml.5" "$man/man5/"
gzip -9 -n "$man"/man*/*
complete() { # SHELL FILE
	mkdir -p "$tree/usr/share/$(dirname "$2")"
	"$binary" completion "$1" >"$tree/usr/share/$2"
}
complete bash bash-completion/completions/imgcluster
complete zsh zsh/vendor-completions/_imgcluster
complete fish fish/vendor_completions.d/imgcluster.fish

cat >"$tree/DEBIAN/control" <<EOF
Package: imgcluster
Version: $version
Architecture: $arch
Maintainer: imgcluster
Depends: passwd
Section: admin
Priority: optional
Installed-Size: $(find "$tree/usr" -type f -printf '%s\n' | awk '{ kib += int(($1 + 1023) / 1024) } END { print kib }')
Description: encrypted, balanced store of large images on a small cluster
 One binary: the nodes, the commands that store and read, and a stress test
 with its report. The unit runs one node; make its configuration and the keys
 of the cluster with imgcluster init.
EOF
# The node is not started before it has a configuration, and an upgrade restarts none: that is done node by node.
cat >"$tree/DEBIAN/postinst" <<'EOF'
#!/bin/sh
set -e
if [ "$1" = configure ]; then
	if ! getent passwd imgcluster >/dev/null; then
		useradd --system --user-group --home-dir /var/lib/imgcluster --no-create-home \
			--shell /usr/sbin/nologin imgcluster
	fi
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload
	fi
fi
EOF
cat >"$tree/DEBIAN/prerm" <<'EOF'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
	systemctl --quiet disable --now imgcluster.service
fi
EOF
chmod 755 "$tree/DEBIAN/postinst" "$tree/DEBIAN/prerm"
find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
mkdir -p "$out"
# How many threads compress is in the bytes.
dpkg-deb --root-owner-group --threads-max=1 "-Z${COMPRESS:-xz}" --build "$tree" "$out" >/dev/null
echo "$out/imgcluster_${version}_$arch.deb"
