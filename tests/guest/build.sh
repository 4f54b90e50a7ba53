#!/usr/bin/env bash
# Makes what a guest with the Linux kernel's own initiator is booted from, out of Debian packages: DIR/vmlinux and
# DIR/initramfs.cpio for the guest, DIR/host/qemu to run it with. Done once; again only when this script has changed.
# The init and the jobs are not in it: they come as a second archive with each boot (tests/support/src/guest.rs).
#
# usage: build.sh DIR        needs apt-get and dpkg-deb, the host's Debian mirror and 1 GB; not root, not KVM
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/scripts/debian.sh
. "$here/../scripts/debian.sh"

suite=trixie        # newer than what this is built on: kernel 6.12, sg3_utils 1.48, QEMU 10
kernel=linux-image-cloud-amd64
packages=(qemu-system-x86 libiscsi7 zstd busybox-static open-iscsi sg3-utils fio e2fsprogs xfsprogs nftables)
programs=(iscsid iscsiadm fio mke2fs e2fsck mkfs.xfs xfs_repair nft resize2fs xfs_growfs
          sg_inq sg_vpd sg_luns sg_turs sg_readcap sg_opcodes sg_modes sg_logs sg_requests sg_raw sg_dd
          sg_verify sg_write_verify sg_compare_and_write sg_get_lba_status sg_write_same sg_write_x sg_unmap
          sg_sync sg_reset sg_start sg_seek)
modules=(virtio_pci virtio_net virtio_blk sd_mod sg iscsi_tcp ext4 xfs crc32c_generic crc32c_intel
         nf_tables nft_chain_nat nft_nat nft_masq)

[ "$(uname -m)" = x86_64 ] || { echo "the guest is made for x86-64, this machine is $(uname -m)" >&2; exit 1; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
exec 9> "$dir/lock"
flock 9                                     # tests run in parallel: one builds, the others wait
stamp=$(cat "$here/build.sh" "$here/../scripts/debian.sh" | sha256sum)
[ "$(cat "$dir/complete" 2>/dev/null)" != "$stamp" ] || exit 0
rm -f "$dir/complete"
root=$dir/root guest=$dir/initramfs lib=usr/lib/x86_64-linux-gnu
said() { echo "guest: $(date +%T) $*" >&2; }

said "downloading from Debian $suite"
debian_begin "$dir" "$suite"
kernel=$(apt-cache "${debian_apt[@]}" depends "$kernel" | awk '/Depends: linux-image-/ { print $2; exit }')
debian_fetch "${packages[@]}"
# Alone: the kernel for its files, QEMU's modules without the libraries of RBD, Gluster, SSH...
debian_fetch_alone "$kernel" qemu-block-extra
said "unpacking"
debian_unpack "$root" --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale'
rm -rf "$dir/apt"

ld=("$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$root/$lib:$root/$lib/ceph")     # for what was unpacked
# The kernel's ELF image, taken out of the bzImage (Linux x86 boot protocol: setup_sects at 1F1h, payload_offset at
# 248h, payload_length at 24Ch): QEMU boots it by its PVH entry, and nothing is decompressed under emulation.
bz=$(echo "$root"/boot/vmlinuz-*)
number() { od -An "-tu$1" -j "$2" -N "$1" "$bz" | tr -d ' '; }
start=$((($(number 1 $((0x1f1))) + 1) * 512 + $(number 4 $((0x248)))))
length=$(number 4 $((0x24c)))
payload() { dd if="$bz" status=none bs=64K iflag=skip_bytes,count_bytes skip="$start" count="$1"; }
case $(payload 4 | od -An -tx1 | tr -d ' ') in
    28b52ffd) unpacker=("${ld[@]}" "$root/usr/bin/zstd" -dcq) ;;
    fd377a58) unpacker=("$root/usr/bin/busybox" xz -dc) ;;
    *) echo "a kernel that is neither zstd nor xz" >&2; exit 1 ;;
esac
# The length of the unpacked image follows the payload's last frame, which unpackers complain about.
payload "$length" | { "${unpacker[@]}" 2>/dev/null || :; } > "$dir/vmlinux"
[ "$(head -c 4 "$dir/vmlinux" | od -An -tx1 | tr -d ' ')" = 7f454c46 ] || { echo "no ELF kernel in $bz" >&2; exit 1; }

said "initramfs"
rm -rf "$guest"
mkdir -p "$guest"/{dev,proc,sys,run,tmp,mnt,root,job,etc/iscsi,var/lib/iscsi,usr/bin,usr/lib64,"$lib"}
ln -s usr/bin usr/lib64 usr/lib "$guest"
ln -s usr/bin "$guest/sbin"
ln -s bin "$guest/usr/sbin"
"$root/usr/bin/busybox" --list | while read -r applet; do ln -s busybox "$guest/usr/bin/$applet"; done
rm "$guest/usr/bin/busybox"
cp "$root/usr/bin/busybox" "$guest/usr/bin/"
cp "$root/usr/lib64/ld-linux-x86-64.so.2" "$guest/usr/lib64/"
cp -L "$root/$lib"/{libgcc_s.so.1,libnss_files.so.2} "$guest/$lib/"
for program in "${programs[@]}"; do
    path=usr/sbin/$program
    [ -e "$root/$path" ] || path=usr/bin/$program
    rm -f "$guest/usr/bin/$program"         # the program itself, not busybox's applet of its name
    cp -L "$root/$path" "$guest/usr/bin/"
    "${ld[@]}" --list "$root/$path" | awk '$3 ~ /^\// { print $3 }'
done | sort -u | xargs cp -Lt "$guest/$lib/"
ln -s mke2fs "$guest/usr/bin/mkfs.ext4"
cp "$root/etc/mke2fs.conf" "$guest/etc/"
cp "$root/etc/iscsi/iscsid.conf" "$guest/etc/iscsi/"
echo "InitiatorName=iqn.2026-11.io.atoll.test:guest" > "$guest/etc/iscsi/initiatorname.iscsi"
echo "root:x:0:0:root:/root:/bin/sh" > "$guest/etc/passwd"
echo "root:x:0:" > "$guest/etc/group"
echo "127.0.0.1 localhost" > "$guest/etc/hosts"

# Modules with those that they need, unpacked: unpacking is slow under emulation.
version=${bz##*/vmlinuz-}
from=$root/usr/lib/modules/$version to=$guest/usr/lib/modules/$version
mkdir -p "$to"
cp "$from"/modules.{builtin,order} "$to/"
add_module() {
    local name=${1//-/_} path needed
    [ ! -e "$to/$name.ko" ] || return 0
    path=$(find "$from" -regextype egrep -regex ".*/${name//_/[-_]}\.ko(\.xz)?" | head -n 1)
    if [ -z "$path" ]; then
        grep -qE "/${name//_/[-_]}\.ko$" "$from/modules.builtin" || echo "guest: the kernel has no module $1" >&2
        return 0
    fi
    case $path in
        *.xz) "$root/usr/bin/busybox" xz -dc < "$path" > "$to/$name.ko" ;;
        *) cp "$path" "$to/$name.ko" ;;
    esac
    for needed in $(tr '\0' '\n' < "$to/$name.ko" | sed -n 's/^depends=//p' | tr , ' '); do add_module "$needed"; done
}
for module in "${modules[@]}"; do add_module "$module"; done
"$root/usr/bin/busybox" depmod -b "$guest" "$version"

(cd "$guest" && find . | "$root/usr/bin/busybox" cpio -o -H newc -R 0:0) > "$dir/initramfs.cpio" 2>/dev/null
# Of all that was unpacked, the host runs QEMU, its iSCSI module, and cpio.
host=$dir/host
rm -rf "$host"
mkdir -p "$host"/{lib/qemu,share}
cp "$root/usr/bin/qemu-system-x86_64" "$root/usr/bin/busybox" "$root/usr/lib64/ld-linux-x86-64.so.2" "$host/"
cp "$root/$lib/qemu/block-iscsi.so" "$host/lib/qemu/"
cp -rL "$root"/usr/share/{qemu,seabios} "$host/share/"
for file in "$host/qemu-system-x86_64" "$host/lib/qemu/block-iscsi.so"; do
    "${ld[@]}" --list "$file" | awk '$3 ~ /^\// { print $3 }'
done | sort -u | xargs cp -Lt "$host/lib/"
cat > "$host/qemu" <<'END'
#!/bin/sh
here=$(dirname "$0")
QEMU_MODULE_DIR=$here/lib/qemu exec "$here/ld-linux-x86-64.so.2" --library-path "$here/lib" \
    "$here/qemu-system-x86_64" -L "$here/share/qemu" -L "$here/share/seabios" "$@"
END
chmod 755 "$host/qemu"
rm -rf "$guest" "$root"
echo "$stamp" > "$dir/complete"
said "done: Linux $version"
