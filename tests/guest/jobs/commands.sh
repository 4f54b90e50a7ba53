# The commands of a logical unit, as sg3_utils send them past the kernel's block layer; what they did is read back.

# Exit statuses of sg3_utils (sg3_utils(8)).
INVALID_OPCODE=9 MISCOMPARE=14 OUT_OF_RANGE=22 CONDITION_MET=25
OBJECT=$((4 << 20))

# commands DEVICE BLOCK-SIZE: on a disk of which the first 32 MiB are free to be written and nothing is written yet.
commands() {
    dev=$1 bs=$2
    step "commands of $dev with blocks of $bs bytes"
    mkdir -p /tmp/blocks
    cd /tmp/blocks || die "no /tmp/blocks"
    blocks_of 16 /dev/urandom > data
    blocks_of 16 /dev/urandom > other
    blocks_of 1 /dev/urandom > one
    for copy in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do cat one; done > ones
    blocks_of 16 /dev/zero > zeros
    identity
    reports
    writing_and_verifying
    writing_same
    provisioning
    comparing_and_writing
    caching
    resetting
    cd /job || die "no /job"
}

blocks_of() { head -c $(($1 * bs)) "$2"; }

# has LBA FILE: the blocks from LBA on are the file's.
has() {
    local size
    size=$(stat -c %s "$2")
    dd if="$dev" iflag=direct,skip_bytes bs="$size" skip=$(($1 * bs)) count=1 2>/dev/null | cmp -s - "$2" ||
        die "LBA $1: not $2"
}

# put LBA FILE: written by the kernel, and there.
put() {
    run dd if="$2" of="$dev" oflag=direct,seek_bytes bs="$(stat -c %s "$2")" seek=$(($1 * bs)) conv=notrunc
    has "$1" "$2"
}

identity() {
    run sg_inq "$dev"
    says ' PQual=0 PDT=0 ' '?SPC-4?' ' Vendor identification: ATOLL ' ' Product identification: VOLUME '
    run sg_vpd "$dev"
    says '?sn?' '?di?' '?ei?' '?bl?' '?bdc?' '?lbpv?'
    run sg_vpd -p sn "$dev"
    says ' Product serial number: [0-9a-f][0-9a-f][0-9a-f][0-9a-f]'
    run sg_vpd -p di "$dev"
    says ' type: NAA, code set: Binary 0x6' " $iqn:*,L,0x" " $iqn:*,t,0x0001 "
    run sg_vpd -p ei "$dev"
    says ' SIMPSUP=1 '
    run sg_vpd -p bl "$dev"
    says ' Maximum compare and write length: 0xff ' ' Maximum unmap LBA count: '
    run sg_vpd -p bdc "$dev"
    says ' Non-rotating medium '
    run sg_vpd -p lbpv "$dev"
    says ' LBPU=1 ' ' LBPWS=1 ' ' LBPWS10=1 ' ' LBPRZ=0x1 ' ' thin provisioned '
    case $(cat "/sys/block/${dev#/dev/}/device/wwid") in
        "$iqn":*,L,0x*) ;;
        *) die "the kernel has another name for it" ;;
    esac
}

reports() {
    local blocks
    blocks=$(($(blockdev --getsize64 "$dev") / bs))
    run sg_readcap "$dev"
    says " Number of logical blocks=$blocks " " Logical block length=$bs bytes "
    run sg_readcap --long "$dev"
    says " Number of logical blocks=$blocks " ' lbpme=1, lbprz=1 '
    run sg_luns "$dev"
    says ' Lun list length = 8 which implies 1 lun entry ' ' 0000000000000000 '
    run sg_opcodes "$dev"
    says ' Test Unit Ready ' ' Request Sense ' ' Inquiry ' ' Mode select(6) ' ' Mode select(10) ' ' Mode sense(6) ' \
        ' Mode sense(10) ' ' Start stop unit ' ' Read capacity(10) ' ' Read capacity(16) ' ' Report luns ' \
        ' Read(6) ' ' Read(10) ' ' Read(12) ' ' Read(16) ' ' Write(6) ' ' Write(10) ' ' Write(12) ' ' Write(16) ' \
        ' Synchronize cache(10) ' ' Synchronize cache(16) ' ' Write same(10) ' ' Write same(16) ' ' Unmap ' \
        ' Get LBA status(16) ' ' Verify(10) ' ' Verify(12) ' ' Verify(16) ' ' Write and verify(10) ' \
        ' Write and verify(12) ' ' Write and verify(16) ' ' Compare and write ' ' Orwrite(16) ' \
        ' Pre-fetch(10) ' ' Pre-fetch(16) ' ' Log sense '
    run sg_opcodes --opcode=0x88 "$dev"
    says ' 88 18 ff ff ff ff ff ff ff ff ff ff ff ff 00 00 '
    run sg_opcodes --tmf "$dev"
    says 'Abort task' 'Abort task set' 'Clear task set' 'Logical unit reset'
    run sg_modes --all "$dev"
    says ' DpoFua=1' ' Caching, page_control: current ' ' Control, page_control: current '
    run sg_logs --list "$dev"
    run sg_start --start "$dev"
    run sg_raw "$dev" 00 00 00 00 00 00
    says ' SCSI Status: Good '
    # An operation code that nobody has.
    ends $INVALID_OPCODE sg_raw "$dev" c1 00 00 00 00 00
}

writing_and_verifying() {
    local at=$((2 * OBJECT / bs)) last=$(($(blockdev --getsize64 "$dev") / bs)) width
    put $at data
    for width in '' --16; do
        run sg_verify $width --lba=$at --count=16 "$dev"
        run sg_verify $width --lba=$at --count=16 --ndo=$((16 * bs)) --in=data "$dev"
        ends $MISCOMPARE sg_verify $width --quiet --lba=$at --count=16 --ndo=$((16 * bs)) --in=other "$dev"
        ends $OUT_OF_RANGE sg_verify $width --lba=$last --count=1 "$dev"

        run sg_write_verify $width --bytchk=1 --lba=$at --num=16 --in=other "$dev"
        has $at other
        run sg_write_verify $width --lba=$at --num=16 --in=data "$dev"
        has $at data
    done
    # One block compared with each of several.
    put $at ones
    run sg_verify --lba=$at --count=16 --ebytchk=3 --ndo="$bs" --in=one "$dev"
    put $((at + 15)) one
    run dd if=data of="$dev" oflag=direct bs="$bs" seek=$((at + 9)) count=1 conv=notrunc
    ends $MISCOMPARE sg_verify --quiet --lba=$at --count=16 --ebytchk=3 --ndo="$bs" --in=one "$dev"
}

writing_same() {
    local at=$((3 * OBJECT / bs - 3)) width # over the end of an object
    for width in --10 --16; do
        put $at data
        run sg_write_same $width --lba=$at --num=16 --in=one --xferlen="$bs" "$dev"
        has $at ones
        put $at data
        run sg_write_same $width --unmap --lba=$at --num=16 --in=/dev/zero --xferlen="$bs" "$dev"
        has $at zeros
    done
    put $at data
    run sg_write_same --16 --ndob --lba=$at --num=16 "$dev"
    has $at zeros
    put $at data
    run sg_write_same --16 --ndob --unmap --lba=$at --num=16 "$dev"
    has $at zeros
    # ORWRITE: what was there, or what is sent.
    put $at data
    run sg_write_x --or --lba=$at --num=16 --bs="$bs" --in=zeros "$dev"
    has $at data
    run sg_write_same --16 --ndob --lba=$at --num=16 "$dev"
    run sg_write_x --or --lba=$at --num=16 --bs="$bs" --in=other "$dev"
    has $at other
    run sg_write_x --or --lba=$at --num=16 --bs="$bs" --in=other "$dev"
    has $at other
}

provisioning() {
    local at=$((4 * OBJECT / bs)) whole=$((OBJECT / bs))
    put $at data
    put $((at + whole)) data
    status_of $at 0
    run sg_unmap --force --lba=$at --num=$whole "$dev"
    has $at zeros
    has $((at + whole)) data
    status_of $at 1
    status_of $((at + whole)) 0
    # A part of an object: zeros, whatever becomes of the place.
    blocks_of 8 /dev/zero > few
    run sg_unmap --force --lba=$((at + whole)) --num=8 "$dev"
    has $((at + whole)) few
}

# status_of LBA PROVISIONING-STATUS: 0 mapped, 1 deallocated (SBC-3 5.4.3).
status_of() {
    run sg_get_lba_status -bb --lba="$1" "$dev"
    says " p_status: $2 "
}

comparing_and_writing() {
    local at=$((6 * OBJECT / bs - 1)) # over the end of an object
    put $at data
    cat data other > both
    run sg_compare_and_write --in=both --lba=$at --num=16 --xferlen=$((32 * bs)) "$dev"
    has $at other
    ends $MISCOMPARE sg_compare_and_write --quiet --in=both --lba=$at --num=16 --xferlen=$((32 * bs)) "$dev"
    has $at other
    # As many as the CDB can name.
    blocks_of 255 /dev/urandom > old
    blocks_of 255 /dev/urandom > new
    put $at old
    cat old new > both
    run sg_compare_and_write --in=both --lba=$at --num=255 --xferlen=$((510 * bs)) "$dev"
    has $at new
}

caching() {
    local width status
    run sg_sync "$dev"
    run sg_sync --16 "$dev"
    for width in '' --10; do
        status=0
        sg_seek --pre-fetch $width --lba=$((2 * OBJECT / bs)) --num-blocks=16 "$dev" > /tmp/said 2>&1 || status=$?
        # CONDITION MET is the status for blocks that are in a cache (SBC-3 5.10).
        [ $status = 0 ] || [ $status = $CONDITION_MET ] || die "PRE-FETCH: $status"
    done
}

resetting() {
    local reset
    for reset in --device --target; do
        run sg_reset --no-esc $reset "$dev"
        run sg_requests "$dev"
        says ' Unit Attention ' ' Bus device reset function occurred '
        run sg_requests "$dev"
        says 'No Sense'
    done
}
