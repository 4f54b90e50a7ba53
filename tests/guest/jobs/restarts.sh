# Verified random load while the target's daemon goes away and comes back: no error reaches it, nothing is lost.

enough=/tmp/enough failed=/tmp/failed

# load NAME DEVICE FIO-OPTION...: rounds of random writes to blocks that were discarded, so that the map changes with
# them, each read back and compared, until there was enough.
load() {
    local name=$1 dev=$2
    shift 2
    while [ ! -e $enough ] && [ ! -e $failed ]; do
        blkdiscard -l $((8 << 20)) "$dev" || echo "$name" >> $failed
        fio --name="$name" --filename="$dev" --direct=1 --ioengine=libaio --iodepth=8 --rw=randrw --rwmixread=30 \
            --bsrange=4k-64k --size=8M --verify=crc32c --verify_fatal=1 --verify_backlog=32 \
            --randrepeat=0 "$@" > "/tmp/fio.$name" 2>&1 < /dev/null || echo "$name" >> $failed
    done
}

# ios DEVICE: requests that ended so far, reads and writes.
ios() { awk '{ print $1 + $5 }' "/sys/block/${1#/dev/}/stat"; }

# all_did COUNT: each of $loaded ended so many since $marks were set, or something failed.
all_did() {
    local dev
    [ ! -e $failed ] || return 0
    for dev in $loaded; do
        [ "$(ios "$dev")" -ge $(($(cat "/tmp/mark.${dev#/dev/}") + $1)) ] || return 1
    done
}

mark() {
    local dev
    for dev in $loaded; do ios "$dev" > "/tmp/mark.${dev#/dev/}"; done
}

# nothing_failed: else what fio said.
nothing_failed() {
    [ ! -e $failed ] || { for name in $(cat $failed); do tr '\r' '\n' < "/tmp/fio.$name" | tail -n 60; done; die "fio"; }
}

# under_load HOW IOS FIO-OPTION...: the host does HOW to the daemon amid I/O, which goes on afterwards.
under_load() {
    local how=$1 ios=$2 name dev pids=''
    shift 2
    step "fio on $loaded; the host's part: $how"
    rm -f $enough
    mark
    for dev in $loaded; do
        load "${dev#/dev/}" "$dev" "$@" &
        pids="$pids $!"
    done
    until_true 60 all_did "$ios"
    nothing_failed
    ask "$how"
    step "I/O after: $how"
    mark
    until_true 60 all_did "$ios"
    touch $enough
    # shellcheck disable=SC2086  # several
    wait $pids || :
    nothing_failed
}

# restarts ROUNDS
restarts() {
    local round=0
    while [ $round -lt "$1" ]; do
        round=$((round + 1))
        dmesg -c > /tmp/dmesg
        # A killed daemon may lose what was neither flushed nor written with FUA: each write here waits for FUA. QEMU's
        # disk knows flushes only, and one after the restart does not cover the writes before it: no load on it then.
        loaded="$ext $xfs"
        under_load kill 100 --sync=dsync
        kernel_said 2 'detected conn error' || die "the sessions did not notice the kill"
        # A daemon that is stopped loses nothing, flushed or not.
        loaded="$ext $xfs /dev/vda"
        under_load stop 100
        logged_in
    done
}

logged_in() {
    run iscsiadm -m session -P 1
    equal "$(grep -c 'iSCSI Connection State: LOGGED IN' /tmp/said)" 2 "connections logged in"
    equal "$(grep -c 'iSCSI Session State: LOGGED_IN' /tmp/said)" 2 "sessions logged in"
}
