# Sourced by every part of a job: telling the host, asking it, waiting. What fails ends the job.
set -eu
trap 'status=$?; [ $status = 0 ] || echo "FAILED: ended with $status"' EXIT
iqn=iqn.2026-11.io.atoll
portal=127.0.0.1:$(cat /job/port)

die() {
    echo "FAILED: $*"
    iscsiadm -m session -P 1 | grep -E 'Target|State'
    dmesg | tail -n 30
    trap - EXIT
    exit 1
}
step() {
    local uptime rest
    read -r uptime rest < /proc/uptime
    echo "== $uptime $*"
}

# run COMMAND...: it has to succeed; what it says is in /tmp/said, and shown if it does not.
run() { "$@" > /tmp/said 2>&1 < /dev/null || { cat /tmp/said; die "$*"; }; }

# ends STATUS COMMAND...: it has to end with that status.
ends() {
    local expected=$1 status=0
    shift
    "$@" > /tmp/said 2>&1 < /dev/null || status=$?
    [ $status = "$expected" ] || { cat /tmp/said; die "$*: ended with $status, not $expected"; }
}

# says PATTERN...: the command before said each of them, all blanks and ends of lines being one blank.
says() {
    local said pattern
    said=" $(tr -s ' \t\n' ' ' < /tmp/said) "
    for pattern; do
        # shellcheck disable=SC2254  # a pattern
        case $said in
            *$pattern*) ;;
            *) cat /tmp/said; die "no '$pattern' in what was said" ;;
        esac
    done
}

equal() { [ "$1" = "$2" ] || die "$3: $1, not $2"; }

# until_true SECONDS COMMAND...
until_true() {
    local tries=$(($1 * 10))
    shift
    until "$@"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || die "not in time: $*"
        sleep 0.1
    done
}

# ask WORD...: the host does it; what it answers is in $answer.
ask() {
    echo "@ask $*"
    read -r answer
}

# size_is DEVICE BYTES
size_is() { [ "$(blockdev --getsize64 "$1")" = "$2" ]; }

# kernel_said COUNT PATTERN: at least so often since its start.
kernel_said() { [ "$(dmesg | grep -c -- "$2")" -ge "$1" ]; }

# disk_of EXPORT: the disk that its session has, as $disk; none is a failure.
disk_of() {
    local session name
    disk=''
    for session in /sys/class/iscsi_session/session*; do
        [ "$(cat "$session/targetname")" = "$iqn:$1" ] || continue
        for name in "$session"/device/target*/*/block/*; do
            [ ! -e "$name" ] || disk=/dev/${name##*/}
        done
    done
    [ -b "$disk" ]
}
