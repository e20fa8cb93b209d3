//! Gives the linker its script: here and not in RUSTFLAGS, which an environment variable would replace.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../linker/guest.ld");
        println!("cargo::rustc-link-arg-bins=-T{script}");
        println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
        println!("cargo::rerun-if-changed={script}");
    }
}
