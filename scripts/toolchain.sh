# Sourced from the repository's root: makes `cargo` the toolchain of rust-toolchain.toml, installed if
# it is missing, components and targets included.

if [ -d "$HOME/.cargo/bin" ]; then PATH=$HOME/.cargo/bin:$PATH; fi
for program in rustup cc; do
    command -v $program >/dev/null && continue
    echo "$program is missing: this needs rustup (https://rustup.rs) and a C compiler, which links Rust programs" >&2
    exit 1
done
# Without arguments rustup reads rust-toolchain.toml; it must not replace itself on the way.
case $(rustup component list --installed 2>/dev/null || true) in
    *clippy*llvm-tools*rust-std-aarch64-unknown-linux-musl*rust-std-aarch64-unknown-none*rust-std-aarch64-unknown-none-softfloat*rustfmt*) ;;
    *) rustup toolchain install --no-self-update >&2 ;;
esac
