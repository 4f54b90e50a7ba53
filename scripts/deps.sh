#!/usr/bin/env bash
# Installs the Debian packages that are missing for building and testing, and checks the Rust toolchain.
# Quick and without network where nothing is missing. As root, or with sudo.
set -euo pipefail

packages=(
    build-essential                         # the linker
    ca-certificates                         # cargo's downloads
    librocksdb-dev                          # the metadata store
    libclang1-14 libclang-common-14-dev     # bindgen
    libiscsi-dev libiscsi-bin               # tests: an initiator, its tools and its conformance tests
    qemu-utils                              # tests: qemu-img, qemu-io
    fuse3                                   # tests: the file system that loses power
    git util-linux                          # tests: a clone of its own, setpriv
    strace                                  # tests: what system calls a reactor makes
)

missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || {
            echo "deps: missing: ${missing[*]}; run this as root, or install sudo" >&2
            exit 1
        }
        root=(sudo)
    fi
    echo "deps: installing ${missing[*]}" >&2
    "${root[@]}" apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi

# The oldest cargo that builds this: rust-version of Cargo.toml. Debian's own is older.
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml" | head -n 1)
found=$(cargo --version 2>/dev/null | awk '{print $2}' || true)
if [ -z "$found" ] || [ "$(printf '%s\n%s\n' "$needed" "$found" | sort -V | head -n 1)" != "$needed" ]; then
    echo "deps: needs cargo $needed or newer, ${found:-none} is on the PATH." >&2
    if command -v rustup >/dev/null; then
        echo "deps: get it with:  rustup toolchain install stable && rustup default stable" >&2
    else
        echo "deps: install Rust as https://rustup.rs says, then run this again." >&2
    fi
    exit 1
fi
