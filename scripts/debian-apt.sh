#!/bin/sh
# Runs an apt command on Debian's signed trixie and trixie-backports packages without touching
# the system's own apt state, as root or as an ordinary user:
#     debian-apt.sh ARCH apt-get download qemu-system-arm/trixie-backports
# The mirror is the one that the machine's own apt sources name (or $TAGVISOR_DEBIAN_MIRROR),
# the trust is the distribution's archive keyring, the state lives in the user's cache.
set -eu

say() { printf '%s\n' "debian-apt: $*" >&2; }
die() { say "$*"; exit 1; }

[ $# -ge 2 ] || die "usage: debian-apt.sh ARCH COMMAND [ARGUMENT...]"
arch=$1; shift
command -v apt-get >/dev/null || die "this needs apt; on other systems install the programs with the system's own package manager"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || die "$keyring is missing: install the package debian-archive-keyring"

# Prints the URI of each enabled source of the system's own release, one-line and deb822 formats.
mirrors() {
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ -r "$file" ] && { cat "$file"; echo; }
    done | awk -v wanted=" $1 stable oldstable testing unstable sid trixie " '
        function known(list, n, names, i) {
            n = split(list, names)
            for (i = 1; i <= n; i++) if (index(wanted, " " names[i] " ")) return 1
        }
        function flush(uri) {
            split(field["uris"], uri)
            if (field["enabled"] !~ /^ *no/ && (" " field["types"] " ") ~ / deb / && known(field["suites"]) &&
                (" " field["components"] " ") ~ / main /) print uri[1]
            split("", field); name = ""
        }
        /^[ \t]*#/ { next }
        /^[ \t]*$/ { flush(); next }
        $1 == "deb" { sub(/\[[^]]*\]/, ""); if (known($3) && (" " $0 " ") ~ / main /) print $2; next }
        /^[A-Za-z-]+:/ { name = tolower(substr($0, 1, index($0, ":") - 1)); sub(/^[^:]*:/, "") }
        { gsub(/[ \t]+/, " "); if (name != "") field[name] = field[name] " " $0 }
        END { flush() }'
}

mirror=${TAGVISOR_DEBIAN_MIRROR:-}
if [ -z "$mirror" ]; then
    . /etc/os-release
    [ "${ID:-}" = debian ] || die "this is not Debian: set TAGVISOR_DEBIAN_MIRROR to the URI of a Debian mirror"
    mirror=$(mirrors "${VERSION_CODENAME:-sid}" | head -n 1)
    [ -n "$mirror" ] || die "the apt sources name no Debian mirror: set TAGVISOR_DEBIAN_MIRROR"
fi

state=${XDG_CACHE_HOME:-$HOME/.cache}/tagvisor/apt/$arch
mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
# apt's own locks are off, because as an ordinary user it would want the system's: this is the lock.
exec 9>"$state/lock"
flock 9
printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$mirror" trixie "$keyring" "$mirror" trixie-backports >"$state/sources.list"
: >"$state/status"
# Given by -c it is read after the system's configuration, whose proxies and credentials hold, and
# clears the system's hooks, which would touch the system.
cat >"$state/apt.conf" <<END
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
#clear APT::Architectures;
#clear Acquire::IndexTargets::deb::DEP-11;
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
APT::Sandbox::User "";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::Languages "none";
Debug::NoLocking "true";
Dir::State "$state";
Dir::State::lists "$state/lists";
Dir::State::status "$state/status";
Dir::State::extended_states "$state/extended_states";
Dir::Cache "$state/cache";
Dir::Cache::archives "$state/cache/archives";
Dir::Etc::sourcelist "$state/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Log "$state";
END
if [ -z "$(find "$state/updated" -mmin -60 2>/dev/null)" ]; then
    say "reading the package lists of trixie and trixie-backports ($arch)"
    apt-get -c "$state/apt.conf" -q update >&2
    : >"$state/updated"
fi
command=$1; shift
"$command" -c "$state/apt.conf" "$@"
