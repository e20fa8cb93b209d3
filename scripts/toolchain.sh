# Sourced from the repository's root: makes `cargo` the toolchain of rust-toolchain.toml, installed if
# it is missing, components and targets included.

[ -d "$HOME/.cargo/bin" ] && PATH=$HOME/.cargo/bin:$PATH
if ! command -v rustup >/dev/null; then
    echo "this needs rustup and a C linker: see https://rustup.rs" >&2
    exit 1
fi
# Without arguments rustup reads rust-toolchain.toml; it must not replace itself on the way.
if ! cargo --version >/dev/null 2>&1 || ! rustup target list --installed 2>/dev/null | grep -q aarch64-unknown-none-softfloat; then
    rustup toolchain install --no-self-update >&2
fi
