# File systems on a disk: what was written is there after the next mount, what was deleted and trimmed is given back,
# their own checkers find nothing. And disks that grow.

# filesystem ext4|xfs DEVICE EXPORT
filesystem() {
    local kind=$1 dev=$2 export=$3 sums before
    step "$kind on $dev"
    case $kind in
        ext4) run mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$dev" ;;
        xfs) run mkfs.xfs -q -f "$dev" ;;
    esac
    run mount -t $kind "$dev" /mnt
    mkdir /mnt/many
    for file in 1 2 3 4 5 6 7 8; do head -c $((file * 3333)) /dev/urandom > /mnt/many/$file; done
    [ -e /tmp/random ] || run dd if=/dev/urandom of=/tmp/random bs=1M count=12
    run cp /tmp/random /mnt/big
    sums=$(cd /mnt && sha256sum big many/*)
    [ -n "$sums" ] || die "no checksums"
    run umount /mnt
    echo 3 > /proc/sys/vm/drop_caches
    run mount -t $kind "$dev" /mnt
    equal "$(cd /mnt && sha256sum big many/*)" "$sums" "checksums after the next mount"

    run cp /mnt/big /mnt/copy
    run rm /mnt/big
    run sync
    used_by "$dev" "$export"
    before=$answer
    run fstrim -v /mnt
    says 'trimmed'
    used_by "$dev" "$export"
    [ $((before - answer)) -ge $((4 << 20)) ] || die "fstrim gave back $((before - answer)) bytes of 12 MiB"
    run umount /mnt
    echo 3 > /proc/sys/vm/drop_caches
    run mount -t $kind "$dev" /mnt
    mv /mnt/copy /mnt/big
    equal "$(cd /mnt && sha256sum big many/*)" "$sums" "checksums after fstrim"
    run umount /mnt
    clean $kind "$dev"
}

# used_by DEVICE EXPORT: the bytes of its objects, as $answer. They are told of what is flushed.
used_by() {
    run dd if=/dev/zero of="$1" bs=4k count=0 conv=notrunc,fsync
    ask used "$2"
}

# clean ext4|xfs DEVICE: its checker finds nothing.
clean() {
    case $1 in
        ext4) run e2fsck -f -n "$2" ;;
        xfs) run xfs_repair -n "$2" ;;
    esac
}

# The sizes change under the initiator: it is told by a unit attention, and sees the new ones after a rescan.
resizes() {
    local size
    step "resize"
    size=$(blockdev --getsize64 "$ext")
    ask resize ext $((size * 3 / 2))
    ask resize xfs $((size * 3 / 2))
    # One is told with a command of the kernel's own, the other with one that asks for it.
    run dd if="$ext" of=/dev/null iflag=direct bs=4k count=1
    kernel_said 1 'Capacity data has changed' || die "the kernel was not told"
    run sg_requests "$xfs"
    says ' Unit Attention ' ' Capacity data has changed '
    run iscsiadm -m session --rescan
    until_true 10 size_is "$ext" $((size * 3 / 2))
    until_true 10 size_is "$xfs" $((size * 3 / 2))
    # What was gained is zeros, and of use.
    run dd if="$ext" of=/tmp/gained iflag=direct bs=64k count=1 skip=$((size / 65536))
    head -c 65536 /dev/zero | cmp -s - /tmp/gained || die "what was gained is not zeros"
    grows ext4 "$ext" "$size"
    grows xfs "$xfs" "$size"
}

# grows ext4|xfs DEVICE BYTES: the file system, which had fewer than so many.
grows() {
    run mount -t "$1" "$2" /mnt
    case $1 in
        ext4) run resize2fs "$2" ;;
        xfs) run xfs_growfs /mnt ;;
    esac
    [ "$(df -m /mnt | awk 'END { print $2 }')" -gt $(($3 >> 20)) ] || die "the file system has not grown"
    run umount /mnt
    clean "$1" "$2"
}
