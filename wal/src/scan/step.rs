//! What a walk meets: a frame, bytes that are none, zeros.
//!
//! Never here: how it came to them. Invariant: a [`Frame`] has a header whose checksum holds. Next
//! room: [`crate::scan`].

use crate::format::{ALIGN, FRAMES_START, FrameHeader};

/// One step of a walk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A frame whose header checksum holds. Its length, LSN and durable lag can be trusted unless
    /// `trouble` says that they cannot be.
    Frame(Frame),
    /// Bytes that are no frame, up to the next sound header or the end.
    Unreadable {
        /// First bad byte, on the grid.
        from: u64,
        /// First byte after.
        to: u64,
        /// What was wrong with them.
        why: &'static str,
    },
    /// Nothing but zeros from here to the end of the file, which is at `to`.
    Zeros {
        /// First zero.
        from: u64,
        /// End of the file.
        to: u64,
    },
}

/// A frame as found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Where it stands.
    pub offset: u64,
    /// What its header says.
    pub header: FrameHeader,
    /// What is wrong with it, if anything.
    pub trouble: Option<Trouble>,
}

impl Frame {
    /// First byte after it.
    pub fn end(&self) -> u64 {
        self.place().end()
    }

    /// The durable end it vouches for, unless its lag is impossible.
    pub fn witness(&self) -> Option<u64> {
        self.place().witness()
    }

    fn place(&self) -> Sound {
        Sound { offset: self.offset, header: self.header }
    }
}

impl Sound {
    #[inline]
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.header.frame_size())
    }

    #[inline]
    pub(super) fn witness(&self) -> Option<u64> {
        let lag = u64::from(self.header.durable_lag) * ALIGN;
        self.offset.checked_sub(lag).filter(|end| *end >= FRAMES_START)
    }
}

/// A frame with nothing wrong: what a reader meets record by record, small and without a drop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sound {
    pub(crate) offset: u64,
    pub(crate) header: FrameHeader,
}

/// One step of a walk, sorted by whether a reader goes on. What was met stays with the walker: a
/// frame that is passed from hand to hand by value cost as much as its checksums.
#[derive(Clone, Copy)]
pub(crate) enum Walked {
    /// A sound frame: [`Walker::current`].
    Sound,
    /// Trouble, or the end: [`Walker::take_met`].
    Other,
}

/// What can be wrong with a frame whose header checksum holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The payload or the padding is not what was written: tearing can do that.
    Tearable(&'static str),
    /// The header says what no writer writes here: tearing cannot do that.
    Impossible(&'static str),
    /// A flag or own kind of a newer version.
    Unsupported(String),
}
