//! Every saved input through its body, on stable; and seeded variations of each, so that the
//! bodies see more than what was saved even where no fuzzer runs.

use std::path::Path;

use annals_fuzz::TARGETS;

/// Variations of the saved inputs of a target, all together; at least a few of each. The seed of
/// one is the input's place and the number.
const VARIATIONS: u64 = 1500;

fn run(target: &str) {
    let (_, body) = TARGETS.into_iter().find(|(name, _)| *name == target).unwrap();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "no saved inputs in {}", dir.display());
    let each = (VARIATIONS / files.len() as u64).max(5);
    for (index, file) in files.iter().enumerate() {
        let bytes = std::fs::read(file).unwrap();
        println!("{}", file.display());
        body(&bytes);
        for n in 0..each {
            let mut random = (index as u64) << 32 | n;
            let varied = vary(&bytes, &mut random);
            let outcome = std::panic::catch_unwind(|| body(&varied));
            assert!(
                outcome.is_ok(),
                "{} varied with seed {}",
                file.display(),
                (index as u64) << 32 | n
            );
        }
    }
}

/// SplitMix64.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) as usize
}

/// Flips, extremes, cuts, copies: a few at a time.
fn vary(bytes: &[u8], random: &mut u64) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..1 + next(random) % 6 {
        if out.is_empty() {
            return out;
        }
        // Most of a segment is zeros: look for a place that says something.
        let mut at = next(random) % out.len();
        for _ in 0..64 {
            if out[at] != 0 {
                break;
            }
            at = next(random) % out.len();
        }
        match next(random) % 6 {
            0 | 1 => out[at] ^= 1 << (next(random) % 8),
            2 => out[at] = [0, 1, 0x7F, 0x80, 0xFF][next(random) % 5],
            3 => out.truncate(at),
            4 => {
                let len = (next(random) % 64).min(out.len() - at);
                out[at..at + len].fill(if next(random) & 1 == 0 { 0 } else { 0xFF });
            }
            _ => {
                let from = next(random) % out.len();
                let len = (next(random) % 256).min(out.len() - at.max(from));
                out.copy_within(from..from + len, at);
            }
        }
    }
    out
}

#[test]
fn decode() {
    run("decode");
}

#[test]
fn scan() {
    run("scan");
}

#[test]
fn directory() {
    run("directory");
}

#[test]
fn operations() {
    run("operations");
}

#[test]
fn registry() {
    run("registry");
}

#[test]
fn payloads() {
    run("payloads");
}

#[test]
fn json() {
    run("json");
}
