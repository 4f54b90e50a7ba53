# A snapshot that is taken amid writes to a mounted file system: in a clone of it the journal is replayed, the file
# system's own checker finds nothing, and what was synced before is there.

# snapshots DEVICE: an ext4 with what `filesystem` leaves in it, exported as ext.
snapshots() {
    local dev=$1 sums pids clone
    step "snapshot of $dev amid writes, and a clone of it"
    run mount -t ext4 "$dev" /mnt
    sums=$(cd /mnt && sha256sum big many/*)
    loaded=$dev
    rm -f $enough $failed
    mark
    writes_files &
    pids=$!
    fio --name=files --directory=/mnt --size=4M --nrfiles=4 --ioengine=psync --rw=randwrite --bsrange=4k-64k --fsync=8 \
        --time_based --runtime=600 > /tmp/fio.files 2>&1 < /dev/null &
    until_true 60 all_did 100
    nothing_failed
    ask snapshot ext
    mark
    until_true 60 all_did 30
    nothing_failed
    touch $enough
    kill $!
    # shellcheck disable=SC2086  # several
    wait $pids $! || :
    run umount /mnt

    ask clone
    run iscsiadm -m discovery -t sendtargets -p "$portal"
    run iscsiadm -m node -T "$iqn:clone" -p "$portal" --login
    until_true 30 disk_of clone
    clone=$disk
    run mount -t ext4 "$clone" /mnt
    # It was in use: else this shows nothing.
    kernel_said 1 "${clone#/dev/}): recovery complete" || die "there was nothing to replay"
    equal "$(cd /mnt && sha256sum big many/*)" "$sums" "checksums in the clone"
    run cp /mnt/big /mnt/copy
    run umount /mnt
    clean ext4 "$clone"
    # Each has its own.
    clean ext4 "$dev"
    run mount -t ext4 "$dev" /mnt
    [ ! -e /mnt/copy ] || die "what was written to the clone is in the volume"
    equal "$(cd /mnt && sha256sum big many/*)" "$sums" "checksums in the volume"
    rm -r /mnt/files* /mnt/more*
    run umount /mnt
    run iscsiadm -m node -T "$iqn:clone" -p "$portal" --logout
    run iscsiadm -m node -T "$iqn:clone" -o delete
    ask forget clone
}

# Files and directories that come and go, until there was enough.
writes_files() {
    local number=0
    while [ ! -e $enough ]; do
        number=$((number + 1))
        cp -r /mnt/many "/mnt/more$number" && sync "/mnt/more$number" && rm -rf "/mnt/more$((number - 3))" ||
            echo files >> $failed
    done
}
