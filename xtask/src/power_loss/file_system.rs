//! The file systems under test: how they are made, and what they rely on.
//!
//! Never here: a mount ([`super::rig`]). Next room: [`super::cuts`], which tears what may be torn.

use std::path::Path;
use std::process::Command;

use super::rig::{Res, run};

const MIB: u64 = 1 << 20;

/// Magic and type, versions 1 and 2, of the superblock of ext4's journal.
const JBD2_SUPERBLOCKS: [[u8; 8]; 2] =
    [[0xC0, 0x3B, 0x39, 0x98, 0, 0, 0, 3], [0xC0, 0x3B, 0x39, 0x98, 0, 0, 0, 4]];

/// First bytes of the blocks of xfs metadata, version 5 (`xfs_format.h`, `xfs_da_format.h`).
const XFS_MAGICS: [&[u8; 4]; 15] = [
    b"XFSB", b"XAGF", b"XAGI", b"XAFL", b"AB3B", b"AB3C", b"IAB3", b"FIB3", b"BMA3", b"R3FC",
    b"RMB3", b"XDB3", b"XDD3", b"XDF3", b"XSLM",
];
/// Those whose magic comes after two pointers: index and attribute blocks.
const XFS_DA_MAGICS: [[u8; 2]; 4] = [[0x3E, 0xBE], [0x3D, 0xF1], [0x3D, 0xFF], [0x3B, 0xEE]];

/// A file system under test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fs {
    Ext4,
    Xfs,
    Btrfs,
}

impl Fs {
    pub(crate) const ALL: [Fs; 3] = [Fs::Ext4, Fs::Xfs, Fs::Btrfs];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Fs::Ext4 => "ext4",
            Fs::Xfs => "xfs",
            Fs::Btrfs => "btrfs",
        }
    }

    pub(crate) fn of(name: &str) -> Res<Fs> {
        let known = Fs::ALL.into_iter().find(|fs| fs.name() == name);
        known.ok_or_else(|| format!("--fs {name}: ext4, xfs and btrfs are known"))
    }

    /// About the smallest that its mkfs makes.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Fs::Ext4 => 64 * MIB,
            Fs::Xfs => 300 * MIB,
            Fs::Btrfs => 160 * MIB,
        }
    }

    /// How many cuts at once pay. btrfs knows its devices by their id and takes one of each.
    pub(crate) fn jobs(self) -> u64 {
        if self == Fs::Xfs { 6 } else { 1 }
    }

    /// How many bytes here are ones that the file system itself relies on being written whole,
    /// because nothing would mend them: they are lost or kept, never torn. Everything else is torn
    /// at 512 bytes. Found by mounts that were refused. On ext4 it is the superblock (1024 bytes
    /// under one checksum), and that of its journal, made likewise; on btrfs the superblock and
    /// its copy. xfs replays its log over a block only if the block's own LSN is older, so a
    /// torn directory block with a new first sector stays torn.
    pub(crate) fn whole(self, place: u64, data: &[u8]) -> Option<u64> {
        let begins = |magic: &[u8]| data.starts_with(magic);
        let (is_whole, len) = match self {
            Fs::Ext4 => (place == 1024 || JBD2_SUPERBLOCKS.iter().any(|magic| begins(magic)), 1024),
            Fs::Btrfs => ([64 << 10, 64 << 20].contains(&place), 4096),
            Fs::Xfs => {
                let da = data.get(8..10).unwrap_or_default();
                let known = XFS_MAGICS.iter().any(|magic| begins(*magic))
                    || XFS_DA_MAGICS.iter().any(|magic| magic == da);
                (known && place.is_multiple_of(4096), 4096)
            }
        };
        is_whole.then_some(len)
    }

    pub(crate) fn make(self, file: &Path) -> Res<()> {
        let mut mkfs = Command::new(format!("mkfs.{}", self.name()));
        match self {
            Fs::Ext4 => mkfs.args(["-q", "-F", "-b", "4096"]),
            Fs::Xfs => mkfs.args(["-q", "-f"]),
            Fs::Btrfs => mkfs.args(["-q", "-f"]),
        };
        run(mkfs.arg(file))
    }
}
