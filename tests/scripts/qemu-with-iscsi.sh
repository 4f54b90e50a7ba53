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

# shellcheck source=tests/scripts/debian.sh
. "$(dirname "${BASH_SOURCE[0]}")/debian.sh"
# shellcheck disable=SC1091
debian_begin "$dir" "$(. /etc/os-release && echo "$VERSION_CODENAME")"
debian_fetch qemu-utils libiscsi7
# The modules' package alone: its dependencies are those of RBD, Gluster, SSH..., which stay unused.
debian_fetch_alone qemu-block-extra
rm -rf "$dir/bin"
mkdir "$dir/bin"
debian_unpack "$dir/root" --exclude='./usr/share' --exclude='./var'
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
