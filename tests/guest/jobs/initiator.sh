#!/bin/sh
# What a host does with volumes over its kernel's initiator, and with a disk that its hypervisor attached over iSCSI.
# Exports: `ext` with blocks of 512 bytes, `xfs` with blocks of 4096, `disk` which is the guest's /dev/vda.
. ./common.sh
. ./commands.sh
. ./filesystems.sh
. ./restarts.sh
. ./snapshots.sh

step "modules and iscsid"
run modprobe -a iscsi_tcp sd_mod sg ext4 xfs
run iscsid

step "discovery"
run iscsiadm -m discovery -t sendtargets -p "$portal"
says " $portal,1 $iqn:disk " " $portal,1 $iqn:ext " " $portal,1 $iqn:xfs "
equal "$(wc -l < /tmp/said)" 3 "targets discovered"

step "login, one session with digests"
for digest in HeaderDigest DataDigest; do
    run iscsiadm -m node -T "$iqn:ext" -p "$portal" -o update -n "node.conn[0].iscsi.$digest" -v CRC32C
    run iscsiadm -m node -T "$iqn:xfs" -p "$portal" -o update -n "node.conn[0].iscsi.$digest" -v None
done
for export in ext xfs; do
    run iscsiadm -m node -T "$iqn:$export" -p "$portal" --login
    run iscsiadm -m session -P 2
    case $export in
        ext) says ' HeaderDigest: CRC32C DataDigest: CRC32C ' ;;
        xfs) says ' HeaderDigest: None DataDigest: None ' ;;
    esac
    until_true 30 disk_of $export
    eval "$export=\$disk"
done
# shellcheck disable=SC2154  # set by name above
disks="$ext $xfs"
equal "$(cat "/sys/block/${ext#/dev/}/queue/logical_block_size")" 512 "block size of ext"
equal "$(cat "/sys/block/${xfs#/dev/}/queue/logical_block_size")" 4096 "block size of xfs"
for disk in $disks; do
    name=${disk#/dev/}
    equal "$(cat "/sys/block/$name/queue/write_cache")" "write back" "write cache of $name"
    equal "$(cat "/sys/block/$name/queue/fua")" 1 "FUA of $name"
done

commands "$ext" 512
commands "$xfs" 4096
filesystem ext4 "$ext" ext
snapshots "$ext"
filesystem xfs "$xfs" xfs
filesystem ext4 /dev/vda disk
resizes
restarts "$(cat rounds)"

step "logout"
run iscsiadm -m node -T "$iqn:ext" -p "$portal" --logout
run iscsiadm -m node -T "$iqn:xfs" -p "$portal" --logout
for disk in $disks; do [ ! -e "$disk" ] || die "$disk is there after the logout"; done
ends 21 iscsiadm -m session # no session
ask sessions ext
equal "$answer" 0 "sessions of ext"
# The hypervisor's disk was not logged out of.
ask sessions disk
equal "$answer" 1 "sessions of disk"
step "done"
