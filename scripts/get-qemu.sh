#!/bin/sh
# Prints the path of a qemu-system-aarch64 that has FEAT_MTE_PERM (version 11.1 or later):
# $TAGVISOR_QEMU, else one on PATH, else a private copy unpacked from Debian's signed packages
# under the user's cache. Needs no root and leaves the system alone.
set -eu

say() { printf '%s\n' "get-qemu: $*" >&2; }
die() { say "$*"; exit 1; }

# Succeeds if the program $1 says that its version is 11.1 or later.
recent() {
    version=$("$1" --version 2>/dev/null | sed -n '1s/.*version \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    # shellcheck disable=SC2086 # two words on purpose
    set -- ${version:-0 0}
    [ "$1" -gt 11 ] || { [ "$1" -eq 11 ] && [ "$2" -ge 1 ]; }
}

name=qemu-system-aarch64
if [ -n "${TAGVISOR_QEMU:-}" ]; then
    recent "$TAGVISOR_QEMU" || die "TAGVISOR_QEMU=$TAGVISOR_QEMU is not a QEMU 11.1 or later"
    printf '%s\n' "$TAGVISOR_QEMU"
    exit
fi
if system=$(command -v $name) && recent "$system"; then
    printf '%s\n' "$system"
    exit
fi

cache=${XDG_CACHE_HOME:-$HOME/.cache}/tagvisor
private=$cache/qemu/$name
if [ ! -x "$private" ]; then
    command -v apt-get >/dev/null || die "no QEMU 11.1 or later on PATH. Install it with the system's package manager
  (dnf install qemu-system-aarch64, pacman -S qemu-system-aarch64, brew install qemu) or set TAGVISOR_QEMU"
    apt=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)/debian-apt.sh
    mkdir -p "$cache"
    exec 8>"$cache/qemu.lock"
    flock -n 8 || { say "waiting for another caller to finish"; flock 8; }
fi
if [ ! -x "$private" ]; then
    fresh=$(mktemp -d "$cache/qemu.XXXXXX")
    trap 'rm -rf "$fresh"' EXIT
    trap 'exit 1' HUP INT TERM
    mkdir -p "$fresh/archives/partial"
    say "no QEMU 11.1 or later on PATH: unpacking a private copy into $cache/qemu (once, about 200 MB)"
    # The empty package status makes apt bring all libraries, libc too: nothing of the system is used.
    "$apt" "$(dpkg --print-architecture)" apt-get -q -y -t trixie-backports \
        -o Dir::Cache::archives="$fresh/archives" \
        install --download-only --no-install-recommends qemu-system-arm >&2
    say "unpacking $(find "$fresh/archives" -name '*.deb' | wc -l) packages"
    for package in "$fresh"/archives/*.deb; do
        dpkg-deb -x "$package" "$fresh/root"
    done
    rm -rf "$fresh/archives"
    loader=$(cd "$fresh" && find root -name 'ld-linux-*.so.*' | head -n 1)
    [ -n "$loader" ] || die "the unpacked libc has no ld.so"
    cat >"$fresh/$name" <<END
#!/bin/sh
# Starts the unpacked QEMU with the ld.so and the libraries that came with it.
here=\$(CDPATH='' cd -- "\$(dirname -- "\$0")" && pwd)
exec "\$here/$loader" --library-path "\$here/$(dirname "$loader")" \\
    "\$here/root/usr/bin/$name" -L "\$here/root/usr/share/qemu" "\$@"
END
    chmod 755 "$fresh" "$fresh/$name"
    recent "$fresh/$name" || die "the distribution's QEMU is too old or does not start"
    rm -rf "$cache/qemu"
    mv "$fresh" "$cache/qemu"
    say "$("$private" --version | head -n 1) is ready"
fi
printf '%s\n' "$private"
