//! Rules that the sources must keep: where assembly may be, what forbids unsafe code, how long a
//! file may grow.

use crate::paths;
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of a file before its tests.
const LONGEST: usize = 450;
/// Where assembly and the register crates may be named.
const MACHINE: [&str; 3] = ["hypervisor/src/arch/", "guest-test/", "guest-user/"];
/// What may stand only there.
const MACHINE_WORDS: [&str; 3] = ["asm!(", "aarch64_cpu", "arm_sysregs"];
/// Members with sources.
const MEMBERS: [&str; 7] = ["crates", "hypervisor", "guest-test", "guest-user", "guest-vmm", "xtask", "fuzz"];

/// What breaks the rules, a sentence each.
pub fn complaints() -> Result<Vec<String>> {
    let mut files = Vec::new();
    for member in MEMBERS {
        collect(&paths::root().join(member), &mut files)?;
    }
    let mut complaints = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file)?;
        let name = file.strip_prefix(paths::root()).unwrap_or(&file).to_string_lossy().into_owned();
        complaints.extend(complaints_about(&name, &text));
    }
    Ok(complaints)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in directory.read_dir()? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

fn complaints_about(name: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if name.ends_with("/tests.rs") || name.contains("/tests/") {
        return Vec::new();
    }
    let tests = |line: &&str| line.trim() == "#[cfg(test)]";
    let length = text.lines().take_while(|line| !tests(line)).count();
    if length > LONGEST {
        complaints.push(format!("{name}: {length} lines before the tests, more than {LONGEST}"));
    }
    let is_library = name.starts_with("crates/") && name.ends_with("/src/lib.rs");
    if is_library && !text.lines().any(|line| line == "#![forbid(unsafe_code)]") {
        complaints.push(format!("{name}: lacks #![forbid(unsafe_code)]"));
    }
    // The oracle for bit positions may be named by tests; this file names what it looks for.
    if name.starts_with("xtask/") || MACHINE.iter().any(|place| name.starts_with(place)) {
        return complaints;
    }
    for (number, line) in text.lines().take_while(|line| !tests(line)).enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for word in MACHINE_WORDS.iter().filter(|word| code.contains(**word)) {
            complaints.push(format!("{name}:{}: {word} outside of {}", number + 1, MACHINE.join(", ")));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_each_fault() {
        let long = "#![forbid(unsafe_code)]\n".repeat(LONGEST + 1);
        assert_eq!(complaints_about("crates/addr/src/lib.rs", &long).len(), 1);
        assert_eq!(complaints_about("crates/addr/src/lib.rs", "").len(), 1);
        assert_eq!(complaints_about("hypervisor/src/main.rs", "core::arch::asm!(\"wfi\") // asm!(").len(), 1);
        assert!(complaints_about("hypervisor/src/arch/x.rs", "core::arch::asm!(\"wfi\")").is_empty());
        assert!(
            complaints_about("crates/trap/src/x.rs", "// asm!(\n#[cfg(test)]\nuse arm_sysregs::X;")
                .is_empty()
        );
    }
}
