#!/usr/bin/env bash
# Starts a daemon with a demo volume exported over iSCSI, prints how to attach it, and runs until it is stopped.
#
# usage: demo.sh ATOLL-BINARY      environment: ATOLL_DATA (./data), ATOLL_ISCSI (127.0.0.1:3260)
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 ATOLL-BINARY" >&2; exit 2; }
atoll=$1
data=${ATOLL_DATA:-./data}
volume=demo
size=10G

exec 3< <(exec "$atoll" serve --data "$data" --iscsi "${ATOLL_ISCSI:-127.0.0.1:3260}")
daemon=$!
trap 'kill -TERM "$daemon" 2>/dev/null || :' TERM
trap : INT                                  # the terminal sends it to the daemon, too

finish() {                                  # a trapped signal ends a wait early
    local status=0
    while :; do
        status=0
        wait "$daemon" || status=$?
        kill -0 "$daemon" 2>/dev/null || exit "$status"
    done
}

ready=
while read -r line <&3; do
    case $line in ready\ *) ready=$line; break ;; *) printf '%s\n' "$line" ;; esac
done
[ -n "$ready" ] || finish                   # it said why on stderr
portal=${ready##*iscsi=} portal=${portal%% *}
export ATOLL_ADMIN=${ready##*admin=}

if ! "$atoll" volume show "$volume" >/dev/null 2>&1; then
    "$atoll" volume create "$volume" --size "$size" >/dev/null
fi
"$atoll" export add "$volume" --iscsi >/dev/null
target=iqn.2026-11.io.atoll:$volume

cat <<EOF
Atoll serves the volume "$volume" ($size, thin) over iSCSI; its data is in $data.

  QEMU:   qemu-img info iscsi://$portal/$target/0
          qemu-img convert -n -O raw IMAGE iscsi://$portal/$target/0
  Linux:  iscsiadm -m discovery -t sendtargets -p $portal
          iscsiadm -m node -T $target -p $portal --login
  More:   export ATOLL_ADMIN=$ATOLL_ADMIN
          $atoll volume list; $atoll status; $atoll --help

Ctrl-C stops it; the data stays.
EOF
cat <&3 &
finish
