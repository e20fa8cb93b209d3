//! Fuzzing on a stable toolchain: `fuzz TARGET SECONDS CORPUS`.
//!
//! A target reads any bytes as its input, asserts what must hold, and returns a number that says what
//! kind of case it was. All inputs of the corpus run first; then mutations of them, until the time is
//! over. An input of a new kind joins the corpus in memory; `KEEP=1` in the environment writes it to the
//! directory too, which is how the committed corpus grows. An input that panics is written to
//! `crash-TARGET.bin` in the working directory.

mod input;
mod router;
mod shadows;
mod walker;

use input::{Input, Random};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{env, fs, io, panic};

/// Runs one input, and says of what kind it was.
type Run = fn(Input<'_>) -> u64;

/// Name, and what runs one input.
const TARGETS: [(&str, Run); 3] = [("walker", walker::run), ("tlbi", shadows::run), ("router", router::run)];
/// Longest input.
const LONGEST: usize = 512;

/// The input that runs.
static CURRENT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [target, seconds, corpus] = arguments.as_slice() else {
        eprintln!("usage: fuzz TARGET SECONDS CORPUS; targets: {}", TARGETS.map(|(name, _)| name).join(", "));
        return ExitCode::FAILURE;
    };
    let run = TARGETS.iter().find(|(name, _)| name == target).map(|(_, run)| *run);
    let (Some(run), Ok(seconds)) = (run, seconds.parse()) else {
        eprintln!("fuzz: no target {target}, or no time {seconds}");
        return ExitCode::FAILURE;
    };
    let crash = format!("crash-{target}.bin");
    panic::set_hook(Box::new(move |what| {
        let written = CURRENT.lock().map(|input| fs::write(&crash, &*input));
        eprintln!(
            "{what}\ninput: {crash} ({})",
            if matches!(written, Ok(Ok(()))) { "written" } else { "lost" }
        );
    }));
    match fuzz(run, Duration::from_secs(seconds), Path::new(corpus)) {
        Ok((runs, kinds)) => {
            println!("{target}: {runs} inputs of {kinds} kinds");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("fuzz: {corpus}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs inputs until the time is over; how many, and of how many kinds.
fn fuzz(run: Run, time: Duration, directory: &Path) -> io::Result<(u64, usize)> {
    let end = Instant::now() + time;
    let mut corpus = Vec::new();
    for entry in fs::read_dir(directory)? {
        corpus.push(fs::read(entry?.path())?);
    }
    corpus.sort();
    let mut kinds = BTreeSet::new();
    for input in &corpus {
        kinds.insert(one(run, input));
    }
    let (mut runs, mut random) = (corpus.len() as u64, Random::new(0x7a67_7669_736f_7221));
    while Instant::now() < end {
        let input = mutate(&corpus, &mut random);
        runs += 1;
        if kinds.insert(one(run, &input)) {
            if env::var_os("KEEP").is_some() {
                fs::write(directory.join(format!("{:016x}.bin", hash(&input))), &input)?;
            }
            corpus.push(input);
        }
    }
    Ok((runs, kinds.len()))
}

fn one(run: Run, input: &[u8]) -> u64 {
    if let Ok(mut current) = CURRENT.lock() {
        current.clear();
        current.extend_from_slice(input);
    }
    run(Input::new(input))
}

/// A known input with some changes.
fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = corpus.get(random.below(corpus.len())).cloned().unwrap_or_default();
    for _ in 0..=random.below(4) {
        let (at, value) = (random.below(input.len() + 1), random.next() as u8);
        match random.below(6) {
            0 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (value % 8)),
            1 => input.iter_mut().skip(at).take(1).for_each(|byte| *byte = value),
            2 => input.insert(at, value),
            3 => input.truncate(at),
            4 => input.extend(random.next().to_le_bytes()),
            _ => {
                let other = corpus.get(random.below(corpus.len())).map_or(&[][..], Vec::as_slice);
                input.truncate(at);
                input.extend(other.iter().skip(random.below(other.len() + 1)));
            }
        }
    }
    input.truncate(LONGEST);
    input
}

/// FNV-1a: a name for an input.
fn hash(input: &[u8]) -> u64 {
    input.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The committed inputs hold, and are of many kinds.
    #[test]
    fn the_corpus() {
        for (name, run) in TARGETS {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
            let (runs, kinds) = fuzz(run, Duration::ZERO, &corpus).unwrap();
            assert!(runs >= 20 && kinds >= 16, "{name}: {runs} inputs of {kinds} kinds");
        }
    }

    #[test]
    fn mutations_differ_and_stay_short() {
        let mut random = Random::new(1);
        let corpus = [vec![0; LONGEST], vec![1, 2, 3]];
        let inputs: BTreeSet<Vec<u8>> = (0..100).map(|_| mutate(&corpus, &mut random)).collect();
        assert!(inputs.len() > 80 && inputs.iter().all(|input| input.len() <= LONGEST));
    }
}
