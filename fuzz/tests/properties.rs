//! Every property with the seeds and with variations of them, on the stable compiler.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use fastrand::Rng;
use sessionkit_fuzz::{Property, TARGETS};

/// How many variations of its seeds a property is tried with.
const ROUNDS: usize = 3_000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("the directory is read").path())
        .collect();
    files.sort();
    files
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let files = files(&root().join("seeds").join(target));
    files
        .into_iter()
        .map(|path| fs::read(path).expect("a seed is a file"))
        .collect()
}

/// A seed changed in a few places, of which a part may come from another seed.
fn varied(random: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = random.choice(seeds).cloned().unwrap_or_default();
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(..=input.len());
        let end = random.usize(at..=input.len().min(at + 16));
        match random.u8(..7) {
            0 if at < input.len() => input[at] ^= 1 << random.u8(..8),
            1 if at < input.len() => {
                input[at] = *random
                    .choice(&[0, 1, 0x7f, 0x80, 0xff])
                    .expect("there are five")
            }
            2 => input.truncate(at),
            3 => drop(input.drain(at..end)),
            4 => input.insert(at, random.u8(..)),
            5 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            _ => {
                let other = random.choice(seeds).cloned().unwrap_or_default();
                let from = random.usize(..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
    input
}

fn hold(target: &str) {
    let property = property(target);
    let seeds = seeds(target);
    let taken = seeds.iter().filter(|seed| property(seed)).count();
    assert!(taken > 0, "no seed of {target} is read");
    let mut random = Rng::with_seed(1);
    for _ in 0..ROUNDS {
        property(&varied(&mut random, &seeds));
    }
}

fn property(target: &str) -> Property {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    found.unwrap_or_else(|| panic!("no target {target}")).1
}

macro_rules! properties {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            hold(stringify!($target));
        })*

        #[test]
        fn every_target_has_its_test_its_file_and_its_seeds() {
            let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($target)),*]);
            let stems = |directory: &str| -> Vec<_> {
                let files = files(&root().join(directory)).into_iter();
                files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
            };
            assert_eq!(stems("fuzz_targets"), names);
            assert_eq!(stems("seeds"), names);
        }
    };
}

properties! {
    cookie_header envelope file keyring payload redis_value row sealed set_cookie signed url
}
