//! A disk image in memory that remembers how to go back, and goes to a file as sparsely as it can.
//!
//! Never here: an opinion on what a device may keep ([`super::cuts`] has it). Invariant: after
//! [`Image::undo`] the image is what it was at [`Image::mark`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Blocks of zeros are not written out.
const BLOCK: usize = 4096;

pub(crate) struct Image {
    bytes: Vec<u8>,
    /// One flag a block: may hold something other than zeros.
    used: Vec<bool>,
    /// What stood there, newest last; `None` outside of a mark.
    undo: Option<Vec<(usize, Vec<u8>)>>,
}

impl Image {
    pub(crate) fn new(bytes: Vec<u8>) -> Image {
        let used = bytes.chunks(BLOCK).map(|block| block.iter().any(|b| *b != 0)).collect();
        Image { bytes, used, undo: None }
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes; what lies past the end is not of this image.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let Ok(from) = usize::try_from(offset) else { return };
        let to = from.saturating_add(data.len()).min(self.bytes.len());
        if from >= to {
            return;
        }
        if let Some(undo) = &mut self.undo {
            undo.push((from, self.bytes[from..to].to_vec()));
        }
        self.bytes[from..to].copy_from_slice(&data[..to - from]);
        self.used[from / BLOCK..to.div_ceil(BLOCK)].fill(true);
    }

    pub(crate) fn zero(&mut self, offset: u64, len: u64) {
        let len = len.min((self.bytes.len() as u64).saturating_sub(offset));
        self.write(offset, &vec![0; usize::try_from(len).unwrap_or(0)]);
    }

    /// From here on every change can be undone.
    pub(crate) fn mark(&mut self) {
        self.undo = Some(Vec::new());
    }

    pub(crate) fn undo(&mut self) {
        for (at, old) in self.undo.take().unwrap_or_default().into_iter().rev() {
            self.bytes[at..at + old.len()].copy_from_slice(&old);
        }
    }

    /// Makes the file this image. Its length never changes under a loop device but for a moment.
    pub(crate) fn write_to(&self, file: &File) -> io::Result<()> {
        file.set_len(0)?;
        file.set_len(self.bytes.len() as u64)?;
        let mut at = 0;
        while at < self.used.len() {
            let run = self.used[at..].iter().take_while(|used| **used).count();
            if run == 0 {
                at += 1;
                continue;
            }
            let from = at * BLOCK;
            let to = ((at + run) * BLOCK).min(self.bytes.len());
            file.write_all_at(&self.bytes[from..to], from as u64)?;
            at += run;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_marked_comes_back() {
        let mut image = Image::new(vec![1; 3 * BLOCK]);
        image.mark();
        image.write(100, &[2; 5000]);
        image.zero(200, 10);
        image.write(3 * BLOCK as u64 - 1, &[9; 10]); // past the end: one byte of it counts
        image.zero(1 << 40, 1);
        assert_eq!((image.bytes()[100], image.bytes()[205], image.bytes()[12287]), (2, 0, 9));
        image.undo();
        assert_eq!(image.bytes(), vec![1; 3 * BLOCK]);
    }

    #[test]
    fn a_file_gets_every_byte_whatever_it_held() {
        let path = std::env::temp_dir().join(format!("annals-image-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        file.write_all_at(&[7; 20_000], 0).unwrap();
        let mut image = Image::new(vec![0; 5 * BLOCK]);
        image.write(BLOCK as u64 + 1, b"one");
        image.write(3 * BLOCK as u64, b"two");
        image.write_to(&file).unwrap();
        let written = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(written == image.bytes());
    }
}
