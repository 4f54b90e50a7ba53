# Debian packages unpacked beside the host's own, for tests: nothing is installed, and root is not needed.
# Sourced; needs apt-get, dpkg-deb and tar. Messages go to stderr.

# debian_begin DIR SUITE: package lists of SUITE, from the host's own Debian mirror, kept under DIR/apt.
debian_begin() {
    local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg program
    for program in apt-get dpkg-deb tar; do
        command -v $program >/dev/null || { echo "no $program on this machine" >&2; return 1; }
    done
    # shellcheck disable=SC2016  # apt expands $(SITE)
    mirror=$(apt-get indextargets --format '$(SITE)' | sed -n 's|/debian/*$||p' | head -n 1)
    [ -n "$mirror" ] || { echo "no Debian mirror in this machine's apt sources" >&2; return 1; }

    rm -rf "$1/apt"
    mkdir -p "$1"/apt/{lists,debs}/partial
    echo "deb [signed-by=$keyring] $mirror/debian $2 main" > "$1/apt/sources.list"
    : > "$1/apt/status"                     # nothing counts as installed: apt names the whole closure
    debian_debs=$1/apt/debs
    debian_apt=(-qq -o "Dir::Etc::sourcelist=$1/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
                -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
                -o "Dir::State::lists=$1/apt/lists" -o "Dir::State::status=$1/apt/status"
                -o "Dir::Cache::archives=$debian_debs" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
                -o APT::Sandbox::User= -o Debug::NoLocking=1 -o Acquire::Retries=3)
    apt-get "${debian_apt[@]}" update >&2
}

# debian_fetch PACKAGE...: downloads them and all that they depend on.
debian_fetch() {
    apt-get "${debian_apt[@]}" install -y --download-only --no-install-recommends "$@" >&2
}

# debian_fetch_alone PACKAGE...: downloads them without what they depend on.
debian_fetch_alone() {
    (cd "$debian_debs" && apt-get "${debian_apt[@]}" download "$@" >&2)
}

# debian_unpack ROOT [TAR-OPTION...]: unpacks all that was fetched, in Debian's layout with its merged /usr.
debian_unpack() {
    local root=$1 deb
    shift
    rm -rf "$root"
    mkdir -p "$root"/usr/{bin,sbin,lib,lib64}
    ln -s usr/bin usr/sbin usr/lib usr/lib64 "$root"
    for deb in "$debian_debs"/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink --no-same-owner -C "$root" "$@"
    done
}
