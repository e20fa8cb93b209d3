//! `cargo xtask idregs LOG`: what the machine has and what its VMs see, from the log of a boot with
//! `log=trace`.

use anyhow::{Context, Result, bail};
use idreg::name::{REGISTER_NAMES, fields, register_name};
use idreg::table::rows;
use idreg::{Closed, Reg, Row};
use std::fmt::Write as _;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Arguments {
    /// The log, of a boot with `--opt log=trace`
    log: PathBuf,
    /// Only this VM
    #[arg(long)]
    vm: Option<String>,
    /// Also fields that the VM has as the machine
    #[arg(long)]
    all: bool,
}

pub fn command(arguments: &Arguments) -> Result<bool> {
    let log = std::fs::read(&arguments.log).with_context(|| arguments.log.display().to_string())?;
    print!("{}", table(&String::from_utf8_lossy(&log), arguments.vm.as_deref(), arguments.all)?);
    Ok(true)
}

/// The values of a machine or VM: index and value.
type Values = Vec<(usize, u64)>;

/// Tables of all VMs in the log, or of one.
pub fn table(log: &str, only: Option<&str>, all: bool) -> Result<String> {
    let (mut host, mut vms) = (None, Vec::new());
    for line in log.lines() {
        let Some((_, line)) = line.split_once("idregs ") else { continue };
        let Some((who, values)) = line.split_once(':') else { continue };
        let Some(values) = parse(values) else { continue };
        match who.strip_prefix("vm ") {
            Some(name) => vms.push((name, values)),
            None if who == "host" => host = Some(values),
            None => {}
        }
    }
    let Some(host) = host else { bail!("the log has no line \"idregs host:\": boot with --opt log=trace") };
    vms.retain(|(name, _)| only.is_none_or(|only| only == *name));
    if vms.is_empty() {
        bail!("the log has no such VM that ran");
    }
    let mut text = String::new();
    for (name, values) in vms {
        one(&mut text, name, &host, &values, all)?;
    }
    Ok(text)
}

/// Reads ` INDEX=0xVALUE INDEX=0xVALUE...`.
fn parse(values: &str) -> Option<Values> {
    let pair = |word: &str| {
        let (index, value) = word.split_once("=0x")?;
        Some((index.parse().ok()?, u64::from_str_radix(value, 16).ok()?))
    };
    values.split_whitespace().map(pair).collect()
}

fn read(values: &Values, reg: Reg) -> u64 {
    values.iter().find(|(index, _)| *index == reg as usize).map_or(0, |(_, value)| *value)
}

fn one(text: &mut String, vm: &str, host: &Values, values: &Values, all: bool) -> Result<()> {
    let longest = rows().map(|row| row.name.len()).max().unwrap_or(0);
    writeln!(text, "VM {vm}")?;
    for (reg, _) in REGISTER_NAMES {
        let (has, sees) = (read(host, reg), read(values, reg));
        writeln!(text, "  {:<17} machine {has:#018x}  VM {sees:#018x}", register_name(reg))?;
        for row in fields(reg) {
            let field = row.entry.field;
            let (has, sees) = (field.get(has), field.get(sees));
            if all || has != sees {
                let (has, sees) = (shown(row, has), shown(row, sees));
                writeln!(
                    text,
                    "    {:<longest$}  {has:>6}  {sees:>6}  {}",
                    row.name,
                    difference(row, &has, &sees)
                )?;
            }
        }
        let named = fields(reg).fold(0, |mask, row| mask | row.entry.field.mask());
        let rest = has & !sees & !named;
        if rest != 0 {
            writeln!(text, "    no field of ours: {rest:#x}, hidden")?;
        }
    }
    Ok(())
}

fn shown(row: &Row, value: u64) -> String {
    let field = row.entry.field;
    if value == u64::from(field.absent) && field.absent != 0 { "absent".into() } else { value.to_string() }
}

/// What became of a field, and how the rest of it is closed.
fn difference(row: &Row, has: &str, sees: &str) -> String {
    if has == sees {
        return "as the machine".into();
    }
    let closed = match row.closed {
        Closed::Nothing => String::new(),
        Closed::Unreachable => ", out of reach".into(),
        Closed::Trap(by) => format!(", trapped: {by}"),
        Closed::Undef(by) => format!(", undefined: {by}"),
        Closed::Inert(by) => format!(", without effect: {by}"),
        Closed::Open(why) => format!(", open: {why}"),
        Closed::Partly(by, open) => format!(", closed: {by}; open: {open}"),
    };
    format!("{}{closed}", row.why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
tagvisor: debug: idregs host: 24=0x1301001121110222 25=0x10101012000321 59=0xb444c004\r
[a] idle
tagvisor: debug: idregs vm a: 24=0x1101000000ff0011 25=0x221 59=0xb444c004
tagvisor: debug: idregs vm b: 24=0x1101000001110011 25=0x21 59=0x8444c004
";

    #[test]
    fn differences_are_named() {
        let text = table(LOG, Some("a"), false).unwrap();
        let line = |start: &str| text.lines().find(|l| l.trim_start().starts_with(start)).unwrap_or_default();
        assert!(text.starts_with("VM a\n") && !text.contains("VM b"), "{text}");
        assert!(line("ID_AA64PFR1_EL1").contains("machine 0x0010101012000321  VM 0x0000000000000221"));
        assert!(line("FP ").contains("     1  absent  "), "{text}");
        assert!(line("MTE ").contains("     3       2  only where the manifest says so"), "{text}");
        assert!(line("SME ").contains("trapped: CPTR_EL2.TSM"), "{text}");
        assert!(line("BT ").is_empty(), "as the machine");
        let all = table(LOG, None, true).unwrap();
        assert!(all.contains("VM b\n") && all.contains("as the machine"));
        assert!(all.lines().any(|l| l.trim_start().starts_with("IDC ") && l.contains("     1       0  ")));
    }

    #[test]
    fn a_log_without_values() {
        assert!(table("tagvisor: hello", None, false).unwrap_err().to_string().contains("log=trace"));
        assert!(table(LOG, Some("c"), false).unwrap_err().to_string().contains("no such VM"));
        assert_eq!(parse(" 1=0x2 3=4"), None);
        assert_eq!(parse(" 1=0x2 64=0x80000000"), Some(vec![(1, 2), (64, 1 << 31)]));
    }
}
