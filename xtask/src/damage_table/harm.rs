//! Does one random damage to the files of a directory.
//!
//! Never here: anything of the format. It knows names, sizes and bytes, and no more than a failing
//! disk, a careless copy or a mistaken `mv` would. Invariant: the same seed does the same to the
//! same files.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xtask::world::Random;

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Act {
    FlipOneBit,
    FlipSeveralBits,
    Noise,
    Zero,
    Swap,
    Cut,
    Delete,
    Duplicate,
    Rename,
}

impl Act {
    pub(crate) const ALL: [Act; 9] = [
        Act::FlipOneBit,
        Act::FlipSeveralBits,
        Act::Noise,
        Act::Zero,
        Act::Swap,
        Act::Cut,
        Act::Delete,
        Act::Duplicate,
        Act::Rename,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Act::FlipOneBit => "one bit flipped",
            Act::FlipSeveralBits => "2 to 16 bits flipped",
            Act::Noise => "a range of noise",
            Act::Zero => "a range zeroed",
            Act::Swap => "two ranges swapped",
            Act::Cut => "a file cut",
            Act::Delete => "a file deleted",
            Act::Duplicate => "a file duplicated",
            Act::Rename => "a file renamed",
        }
    }
}

/// Files and their bytes.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) fn files(dir: &Path) -> io::Result<Files> {
    let mut files = Files::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.insert(name, fs::read(entry.path())?);
    }
    Ok(files)
}

/// Does it, in place: inodes stay but where the act says otherwise.
pub(crate) fn harm(dir: &Path, act: Act, random: &mut Random) -> io::Result<String> {
    let before = files(dir)?;
    // Large files are hit more often, as by a disk; small ones too.
    let names: Vec<&String> = before.keys().collect();
    let large: Vec<&String> = before.iter().filter(|f| f.1.len() > 4096).map(|f| f.0).collect();
    let name = if random.one_in(10) { random.pick(&names) } else { random.pick(&large) };
    let bytes = &before[name];
    let len = bytes.len() as u64;
    let write = |name: &str, at: u64, bytes: &[u8]| {
        OpenOptions::new().write(true).open(dir.join(name))?.write_all_at(bytes, at)
    };
    let range = |random: &mut Random, len: u64| {
        let sectors = random.one_in(2);
        let want = if sectors { 512 * (1 + random.below(8)) } else { 1 + random.below(4096) };
        let from = random.below(len.max(1));
        let from = if sectors { from / 512 * 512 } else { from };
        (from, want.min(len - from.min(len)))
    };
    match act {
        Act::FlipOneBit | Act::FlipSeveralBits => {
            let count = if act == Act::FlipOneBit { 1 } else { 2 + random.below(15) };
            let start = random.below(len.max(1));
            let mut changed = bytes.clone();
            let mut told = Vec::new();
            for _ in 0..count {
                let at = (start + random.below(512)).min(len.saturating_sub(1));
                let at = if count == 1 { start } else { at };
                let bit = random.below(8);
                if let Some(byte) = changed.get_mut(at as usize) {
                    *byte ^= 1 << bit;
                    told.push(format!("{at}.{bit}"));
                }
            }
            write(name, 0, &changed)?;
            Ok(format!("{name}: bits {}", told.join(" ")))
        }
        Act::Noise | Act::Zero => {
            let (from, want) = range(random, len);
            let new: Vec<u8> =
                (0..want).map(|_| if act == Act::Zero { 0 } else { random.draw() as u8 }).collect();
            write(name, from, &new)?;
            Ok(format!("{name}: bytes {from}..{}", from + want))
        }
        Act::Swap => {
            let other = random.pick(&large);
            let (from, want) = range(random, len);
            let (to, _) = range(random, before[other].len() as u64);
            let want = want.min(before[other].len() as u64 - to);
            let a = bytes[from as usize..(from + want) as usize].to_vec();
            let b = before[other][to as usize..(to + want) as usize].to_vec();
            write(name, from, &b)?;
            write(other, to, &a)?;
            Ok(format!("{name} {from}..{} with {other} at {to}", from + want))
        }
        Act::Cut => {
            let to = random.below(len.max(1));
            OpenOptions::new().write(true).open(dir.join(name))?.set_len(to)?;
            Ok(format!("{name}: to {to} of {len} bytes"))
        }
        Act::Delete => {
            fs::remove_file(dir.join(name))?;
            Ok(name.clone())
        }
        Act::Duplicate => {
            let new = new_name(name, &names, random);
            if new == *name {
                return Ok(format!("{name} as itself: nothing"));
            }
            fs::copy(dir.join(name), dir.join(&new))?;
            Ok(format!("{name} as {new}"))
        }
        Act::Rename => {
            let new = new_name(name, &names, random);
            fs::rename(dir.join(name), dir.join(&new))?;
            Ok(format!("{name} to {new}"))
        }
    }
}

/// What people and tools make of a name: the same with a suffix, another's, or its number changed.
fn new_name(name: &str, names: &[&String], random: &mut Random) -> String {
    let digits: String = name.chars().take_while(char::is_ascii_digit).collect();
    match (random.below(4), digits.parse::<u64>()) {
        (0, _) => format!("{name}.bak"),
        (1, _) => random.pick(names).clone(),
        (_, Ok(number)) => {
            let new =
                if random.one_in(2) { number + 1 + random.below(3) } else { random.below(20) };
            format!("{new:0width$}{}", &name[digits.len()..], width = digits.len())
        }
        (_, Err(_)) => format!("copy of {name}"),
    }
}
