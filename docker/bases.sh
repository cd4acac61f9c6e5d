#!/usr/bin/env bash
# Sees to it that the bases which the Dockerfile names are there: takes them if the engine has them,
# else pulls them, else makes them from Debian's packages and the Rust of this machine.
set -euo pipefail
cd "$(dirname "$0")/.."

base_of() {
    sed -n "s/^ARG $1=//p" docker/Dockerfile
}

DEBIAN_BASE=$(base_of DEBIAN_BASE)
RUST_BASE=$(base_of RUST_BASE)
readonly DEBIAN_BASE RUST_BASE
readonly PULL_SECONDS=300

say() { printf 'bases: %s\n' "$*"; }

die() {
    say "$*" >&2
    exit 1
}

has() {
    docker image inspect "$1" >/dev/null 2>&1
}

# Says on one line why not.
pull() {
    local answer
    answer=$(timeout "$PULL_SECONDS" docker pull --quiet "$1" 2>&1 </dev/null) && return
    say "$1 cannot be pulled (${answer##*: })"
    return 1
}

apt() {
    DEBIAN_FRONTEND=noninteractive chroot "$root" \
        apt-get -qq -y --no-install-recommends "$@" >>"$work/log" 2>&1 </dev/null ||
        die "apt-get $* failed: $(tail -1 "$work/log")"
}

# The tree as an image; the kernel's own file systems are not part of it.
import() {
    local name=$1 && shift
    # What this machine trusts, so that a build goes through the network as this machine does.
    cp "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" \
        "$root/etc/ssl/certs/ca-certificates.crt"
    tar --one-file-system --numeric-owner -C "$root" \
        --exclude=./etc/resolv.conf \
        --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' \
        --exclude='./usr/share/locale/*' -c . |
        docker import "$@" - "$name" >/dev/null
}

make_debian() {
    local release=bookworm
    say "making $DEBIAN_BASE from Debian's packages"
    debootstrap --variant=minbase --include=ca-certificates "$release" "$root" >"$work/log" 2>&1 ||
        die "debootstrap failed: $(tail -1 "$work/log")"
    cat >"$root/etc/apt/sources.list" <<SOURCES
deb http://deb.debian.org/debian $release main
deb http://deb.debian.org/debian $release-updates main
deb http://deb.debian.org/debian-security $release-security main
SOURCES
    apt update
    apt upgrade
    has "$DEBIAN_BASE" || import "$DEBIAN_BASE" -c 'CMD ["bash"]'
}

# The toolchain of this machine must be the one that the base is called after.
make_rust() {
    local sysroot version cargo
    sysroot=$(rustc --print sysroot)
    version=$(rustc --version | cut -d' ' -f2)
    case "$RUST_BASE" in
        "rust:$version-"*) ;;
        *) die "$RUST_BASE cannot be made: the Rust of this machine is $version" ;;
    esac
    say "making $RUST_BASE from that and the Rust of this machine"
    apt install gcc libc6-dev
    cargo=$root/usr/local/cargo
    mkdir -p "$cargo"
    tar -C "$sysroot" --exclude=./share -c . | tar -C "$root/usr/local" -x
    # Where crates come from may be told there.
    cp "${CARGO_HOME:-$HOME/.cargo}/config.toml" "$cargo/" 2>/dev/null || true
    import "$RUST_BASE" -c 'ENV CARGO_HOME=/usr/local/cargo' -c 'CMD ["bash"]' \
        -c 'ENV PATH=/usr/local/cargo/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
}

missing=()
for base in "$DEBIAN_BASE" "$RUST_BASE"; do
    has "$base" || pull "$base" || missing+=("$base")
done
[ "${#missing[@]}" -eq 0 ] && exit

[ "$(id -u)" -eq 0 ] || die "making them needs root: run it with sudo"
for tool in debootstrap rustc; do
    command -v "$tool" >/dev/null || die "making them needs $tool"
done
work=$(mktemp -d)
root=$work/root
trap 'rm -rf --one-file-system "$work"' EXIT
make_debian
has "$RUST_BASE" || make_rust
