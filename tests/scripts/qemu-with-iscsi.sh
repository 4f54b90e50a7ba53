#!/usr/bin/env bash
# Prints a directory that holds a qemu-img and a qemu-io able to open iscsi://.
# Where the installed ones are, it is theirs. Else they are unpacked once, from the host's own Debian mirror, into
# DIR: qemu-utils and qemu-block-extra conflict with a newer qemu-utils when installed, so nothing is installed.
#
# usage: qemu-with-iscsi.sh DIR        needs apt-get and dpkg-deb, not root
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }

opens_iscsi() {  # nothing listens on port 1: only a working module gets as far as being refused
    { "$1" info iscsi://127.0.0.1:1/iqn.probe/0 2>&1 || :; } | grep -qi 'failed to connect'
}

if command -v qemu-img >/dev/null && command -v qemu-io >/dev/null && opens_iscsi qemu-img; then
    dirname "$(command -v qemu-img)"
    exit 0
fi

mkdir -p "$1"
dir=$(cd "$1" && pwd)
exec 9> "$dir/lock"
flock 9                                     # tests run in parallel: one unpacks, the others wait
if [ -e "$dir/complete" ]; then
    echo "$dir/bin"
    exit 0
fi

# shellcheck disable=SC1091
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
# shellcheck disable=SC2016  # apt expands $(SITE)
mirror=$(apt-get indextargets --format '$(SITE)' | sed -n 's|/debian/*$||p' | head -n 1)
[ -n "$mirror" ] || { echo "$0: no Debian mirror in this machine's apt sources" >&2; exit 1; }
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

rm -rf "$dir/apt" "$dir/root" "$dir/bin"
mkdir -p "$dir"/apt/{lists,debs}/partial "$dir"/root/usr/{bin,sbin,lib,lib64} "$dir/bin"
echo "deb [signed-by=$keyring] $mirror/debian $suite main" > "$dir/apt/sources.list"
: > "$dir/apt/status"                       # nothing counts as installed: apt names the whole closure
apt=(-qq -o "Dir::Etc::sourcelist=$dir/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
     -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
     -o "Dir::State::lists=$dir/apt/lists" -o "Dir::State::status=$dir/apt/status"
     -o "Dir::Cache::archives=$dir/apt/debs" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
     -o APT::Sandbox::User= -o Debug::NoLocking=1)
{
    apt-get "${apt[@]}" update
    # The modules' package alone: its dependencies are those of RBD, Gluster, SSH..., which stay unused.
    apt-get "${apt[@]}" install -y --download-only --no-install-recommends qemu-utils libiscsi7
    (cd "$dir/apt/debs" && apt-get "${apt[@]}" download qemu-block-extra)
} >&2

ln -s usr/bin usr/sbin usr/lib usr/lib64 "$dir/root"
for deb in "$dir"/apt/debs/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink --no-same-owner -C "$dir/root" \
        --exclude='./usr/share' --exclude='./var'
done
rm -rf "$dir/apt"

for program in qemu-img qemu-io; do
    cat > "$dir/bin/$program" <<EOF
#!/bin/sh
root=\$(dirname "\$0")/../root
lib=\$root/usr/lib/$(uname -m)-linux-gnu
QEMU_MODULE_DIR=\$lib/qemu exec "\$root"/usr/lib64/ld-linux-*.so.* --library-path "\$lib" "\$root/usr/bin/$program" "\$@"
EOF
    chmod 755 "$dir/bin/$program"
done
opens_iscsi "$dir/bin/qemu-img" || { echo "$0: the unpacked qemu-img has no iSCSI module" >&2; exit 1; }
touch "$dir/complete"
echo "$dir/bin"
