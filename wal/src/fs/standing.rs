//! What the system says of a directory and its files beyond their bytes: whose they are, who may
//! change them, which files they are, what kind of file system holds them.
//!
//! Never here: a decision ([`crate::trust`] and [`crate::watch`] decide), a system call.
//! Next room: [`super::os`], which fills these in.

/// Which file this is on this machine, whose, and how many names lead to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// The device of its file system.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// How many names it has.
    pub links: u64,
    /// The user that owns it.
    pub owner: u32,
}

impl Status {
    /// Whether both are one file.
    pub fn is_same_file(&self, other: &Status) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Who may change a directory, and what it stands on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Permission bits, the sticky bit among them.
    pub mode: u32,
    /// The user that owns it.
    pub owner: u32,
    /// The user that this process acts as.
    pub user: u32,
    /// What holds it.
    pub file_system: FileSystem,
}

/// A kind of file system, as far as a log must know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileSystem {
    /// None of those that are known not to be local.
    Local,
    /// Locks or syncs of it may end at another machine or another program; its name.
    Network(&'static str),
}

impl FileSystem {
    /// The kind behind the number that Linux gives in `f_type` of statfs(2).
    ///
    /// Numbers: linux/magic.h and GNU coreutils, src/stat.c, which marks those below as remote but
    /// for 9p. FUSE and 9p may well be local (an encrypted home, a sandbox); but nothing tells
    /// whether locks reach every other user of the files, or whether a sync reaches a disk.
    pub fn of_magic(magic: u64) -> FileSystem {
        let found = NETWORK.iter().find(|(number, _)| *number == magic);
        found.map_or(FileSystem::Local, |(_, name)| FileSystem::Network(name))
    }
}

const NETWORK: [(u64, &str); 20] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x564C, "NCP"),
    (0x00C3_6400, "Ceph"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE"),
    (0x7461_636F, "OCFS2"),
    (0x0116_1970, "GFS2"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0xAAD7_AAEA, "PanFS"),
    (0xBEEF_DEAD, "StorNext"),
    (0x786F_4256, "VirtualBox shared folder"),
    (0xBACB_ACBC, "VMware shared folder"),
];
