//! Which crate may use which: arrows go from the hypervisor to the pure crates to the addresses.

use crate::process;
use anyhow::Result;
use serde::Deserialize;

/// The crate that all others may use.
const ADDRESSES: &str = "addr";
/// Pure crates that join others, one level above them.
const JOINING: [&str; 1] = ["nested"];
/// Arrows between pure crates of one level. Each was a decision; there are no others.
const SIDEWAYS: [(&str, &str); 7] = [
    ("idreg", "trap"),
    ("cmo", "trap"),
    ("vdev", "abi"),
    ("tags", "abi"),
    ("fdt", "manifest"),
    ("bundle", "manifest"),
    ("bundle", "idreg"),
];
/// Crates that name the machine's registers, and the members that may use them.
const REGISTER_CRATES: [&str; 2] = ["aarch64-cpu", "arm-sysregs"];
const REGISTER_USERS: [&str; 2] = ["hypervisor", "guest-test"];

/// What `cargo metadata` says about the workspace.
#[derive(Deserialize)]
pub struct Workspace {
    packages: Vec<Package>,
    workspace_default_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    id: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    req: String,
    /// `dev`, `build`, or absent for a normal one.
    kind: Option<String>,
    /// Where a member of the workspace lies.
    path: Option<String>,
}

impl Workspace {
    pub fn load() -> Result<Workspace> {
        let text = process::read(process::cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The members whose tests run on the host.
    pub fn default_members(&self) -> Vec<String> {
        let default = |package: &&Package| self.workspace_default_members.contains(&package.id);
        self.packages.iter().filter(default).map(|package| package.name.clone()).collect()
    }

    /// The pure crates.
    pub fn pure_crates(&self) -> Vec<String> {
        self.packages.iter().filter(|package| package.is_pure()).map(|package| package.name.clone()).collect()
    }

    /// What breaks the rules, a sentence each.
    pub fn complaints(&self) -> Vec<String> {
        let pure = self.pure_crates();
        let is_pure = |name: &str| pure.iter().any(|one| one == name);
        let mut complaints = Vec::new();
        for package in &self.packages {
            for dependency in &package.dependencies {
                let (from, to) = (package.name.as_str(), dependency.name.as_str());
                if dependency.path.is_none() && !dependency.req.starts_with('=') {
                    complaints.push(format!("{from}: the version of {to} is not exact: {}", dependency.req));
                }
                if dependency.kind.is_some() {
                    continue;
                }
                if dependency.path.is_some() && !is_pure(to) {
                    complaints.push(format!("{from} -> {to}: nothing may use a program"));
                }
                if package.is_pure() && dependency.path.is_some() && !may_use(from, to) {
                    complaints.push(format!("{from} -> {to}: this direction is not allowed"));
                }
                if REGISTER_CRATES.contains(&to) && !REGISTER_USERS.contains(&from) {
                    complaints.push(format!("{from} -> {to}: only arch names registers of the machine"));
                }
            }
        }
        complaints
    }
}

impl Package {
    fn is_pure(&self) -> bool {
        self.manifest_path.split('/').rev().nth(2) == Some("crates")
    }
}

/// Whether the pure crate `from` may use the pure crate `to`.
fn may_use(from: &str, to: &str) -> bool {
    let level = |name: &str| match name {
        ADDRESSES => 0,
        name if JOINING.contains(&name) => 2,
        _ => 1,
    };
    level(from) > level(to) || SIDEWAYS.contains(&(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions() {
        assert!(may_use("trap", "addr") && may_use("idreg", "trap") && may_use("nested", "vmsa"));
        assert!(!may_use("trap", "idreg") && !may_use("addr", "trap") && !may_use("vmsa", "nested"));
    }
}
