//! The seeds of the fuzzers, on stable: those whose name begins with `ok` are accepted, all others
//! refused. No beginning of a seed is too much for its target, nor are some thousands of inputs made of
//! the seeds; `AOTFARM_FUZZ_SECONDS=600 cargo test -p aotfarm-fuzz-targets` makes them for longer, where
//! there is no nightly compiler.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aotfarm_fuzz_targets::{FuzzTarget, TARGETS};

fn corpora() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "fixtures", "corpus"].iter().collect()
}

fn seeds(target: FuzzTarget) -> Vec<(String, Vec<u8>)> {
    let folder = corpora().join(target.name);
    let files = folder.read_dir().unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut seeds: Vec<_> = files
        .map(|file| file.unwrap())
        .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
        .collect();
    seeds.sort();
    seeds
}

#[test]
fn seeds_are_accepted_or_refused_as_their_names_say() {
    for target in TARGETS {
        let seeds = seeds(target);
        let accepted = seeds.iter().filter(|(name, _)| name.starts_with("ok")).count();
        assert!(accepted > 0 && accepted < seeds.len(), "{}: {accepted} of {} seeds are accepted", target.name, seeds.len());
        for (name, content) in seeds {
            println!("{}/{name}", target.name);
            assert_eq!((target.run)(&content), name.starts_with("ok"), "{}/{name}", target.name);
        }
    }
}

#[test]
fn beginnings_of_seeds_are_no_danger() {
    for target in TARGETS {
        for (name, content) in seeds(target) {
            println!("{}/{name}", target.name);
            for length in (0..content.len()).step_by(1 + content.len() / 64) {
                (target.run)(&content[..length]);
            }
        }
    }
}

/// Inputs for each target where no time is given.
const FEW: u32 = 2000;
/// How long an input may take, with the tests' optimisation and on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn inputs_made_of_seeds_are_no_danger() {
    let time = std::env::var("AOTFARM_FUZZ_SECONDS").ok().map(|s| Duration::from_secs(s.parse().expect("a number of seconds")));
    for target in TARGETS {
        let seeds: Vec<Vec<u8>> = seeds(target).into_iter().map(|(_, content)| content).collect();
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
        let start = Instant::now();
        let mut tried = 0;
        while time.map_or(tried < FEW, |time| start.elapsed() < time / TARGETS.len() as u32) {
            let input = mutant(&mut chance, &seeds);
            let before = Instant::now();
            let done = catch_unwind(|| (target.run)(&input));
            if done.is_err() || before.elapsed() > PATIENCE {
                let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{tried}", target.name));
                fs::write(&kept, &input).unwrap();
                let how = if done.is_err() { "ends" } else { "delays" };
                panic!("an input {how} the target {}; it is kept as {}", target.name, kept.display());
            }
            tried += 1;
        }
        println!("{}: {tried} inputs in {:?}", target.name, start.elapsed());
    }
}

/// Numbers that look random and are the same in every run (xorshift64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }
}

/// A seed with a few changes.
fn mutant(chance: &mut Chance, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = seeds[chance.below(seeds.len())].clone();
    for _ in 0..=chance.below(4) {
        let at = chance.below(input.len());
        let most = 1 + chance.below(32);
        let length = chance.below(most).min(input.len() - at);
        match chance.below(7) {
            0 if !input.is_empty() => input[at] ^= 1 << chance.below(8),
            1 if !input.is_empty() => input[at] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'9', b'-'][chance.below(8)],
            2 => drop(input.drain(at..at + length)),
            3 => {
                let piece = input[at..at + length].to_vec();
                let place = chance.below(input.len() + 1);
                input.splice(place..place, piece);
            }
            4 => {
                let other = &seeds[chance.below(seeds.len())];
                let from = chance.below(other.len());
                let piece = &other[from..(from + length).min(other.len())];
                input.splice(at..at + length, piece.iter().copied());
            }
            5 => {
                let number = ["0", "1", "-1", "2147483648", "9223372036854775807", "-9223372036854775808", "1e400"];
                input.splice(at..at + length.min(3), number[chance.below(7)].bytes());
            }
            _ => input.truncate(if chance.below(8) == 0 { at } else { input.len() }),
        }
    }
    input
}

#[test]
fn every_target_has_a_fuzzer_and_every_folder_a_target() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let names = |folder: PathBuf| -> BTreeSet<String> {
        let files = folder.read_dir().unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(corpora()), targets);
    let fuzzers: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "..", "fuzz", "fuzz_targets"].iter().collect();
    assert_eq!(names(fuzzers), targets);
}
