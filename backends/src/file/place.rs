//! Where an object's file is: names and directories, as `FORMAT.md` says.

use super::format::OwnerPrefix;
use crate::ObjectId;
use crc_fast::{CrcAlgorithm, checksum};
use std::path::{Path, PathBuf};

pub(crate) const LABEL: &str = "pool.label";
pub(crate) const LABEL_TEMP: &str = "pool.label.tmp";
pub(crate) const MARK: &str = "pool.mark";
pub(crate) const MARK_TEMP: &str = "pool.mark.tmp";
pub(crate) const LOCK: &str = "pool.lock";
pub(crate) const OBJECTS: &str = "objects";

/// log2 of the neighbouring objects of one generation that share a directory: a volume written in
/// order makes few directories, and one directory sync serves many objects.
const GROUP_BITS: u32 = 8;
/// Directories on the first level, and in each of them.
pub(crate) const FANOUT: usize = 256;

/// Number of one of the 65536 directories that hold objects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Leaf(pub(crate) u16);

impl Leaf {
    pub(crate) fn of(id: ObjectId) -> Leaf {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&id.generation.get().to_le_bytes());
        key[8..].copy_from_slice(&(id.index.get() >> GROUP_BITS).to_le_bytes());
        let sum = checksum(CrcAlgorithm::Crc32Iscsi, &key);
        Leaf(u16::try_from(sum & 0xffff).expect("16 bits"))
    }

    /// The leaf of a directory on the first level and one in it.
    pub(crate) fn at(first: u8, second: u8) -> Leaf {
        Leaf(u16::from_be_bytes([first, second]))
    }

    pub(crate) fn first(self) -> usize {
        usize::from(self.0 >> 8)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The paths of one pool.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    root: PathBuf,
    objects: PathBuf,
    owner: OwnerPrefix,
}

impl Places {
    pub(crate) fn new(root: &Path, owner: OwnerPrefix) -> Places {
        Places {
            root: root.to_path_buf(),
            objects: root.join(OBJECTS),
            owner,
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn objects(&self) -> &Path {
        &self.objects
    }

    pub(crate) fn first(&self, first: usize) -> PathBuf {
        self.objects.join(format!("{first:02x}"))
    }

    pub(crate) fn leaf(&self, leaf: Leaf) -> PathBuf {
        let (first, second) = (leaf.0 >> 8, leaf.0 & 0xff);
        self.objects.join(format!("{first:02x}/{second:02x}"))
    }

    pub(crate) fn object(&self, id: ObjectId) -> PathBuf {
        self.leaf(Leaf::of(id)).join(format!("{}-{id}", self.owner))
    }

    /// The object that a file in a leaf is; `None` for foreign files.
    pub(crate) fn parse(&self, leaf: Leaf, name: &str) -> Option<ObjectId> {
        let id = name.strip_prefix(self.owner.as_str())?.strip_prefix('-')?;
        ObjectId::parse(id).filter(|id| Leaf::of(*id) == leaf)
    }
}

/// The number of a directory named with two lower-case hex digits.
pub(crate) fn parse_directory(name: &str) -> Option<u8> {
    let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if name.len() != 2 || !name.bytes().all(lower_hex) {
        return None;
    }
    u8::from_str_radix(name, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Generation, ObjectIndex, PoolId};

    fn id(generation: u64, index: u64) -> ObjectId {
        ObjectId::new(
            Generation::new(generation).expect("52 bits"),
            ObjectIndex::new(index).expect("40 bits"),
        )
    }

    #[test]
    fn a_path_of_the_format_and_back() {
        let owner = OwnerPrefix::of(PoolId([0xa5; 16]));
        let places = Places::new(Path::new("/p"), owner);
        let path = places.object(id(0x1_2345, 0x678));
        assert_eq!(
            path,
            Path::new("/p/objects/7f/09/a5a5a5a5-0000000012345.0000000678")
        );
        let leaf = Leaf::of(id(0x1_2345, 0x678));
        let parse = |name: &str| places.parse(leaf, name);
        assert_eq!(
            parse("a5a5a5a5-0000000012345.0000000678"),
            Some(id(0x1_2345, 0x678))
        );
        for foreign in [
            "b5a5a5a5-0000000012345.0000000678",
            "a5a5a5a5-0000000012345.0000010678",
            "a5a5a5a5-0000000012345.0000000678~",
            "0000000012345.0000000678",
        ] {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
        assert_eq!(parse_directory("0f"), Some(15));
        for foreign in ["f", "+f", "0F", "0g", "0ff", ""] {
            assert_eq!(parse_directory(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn neighbours_share_a_directory_and_millions_of_objects_spread() {
        assert_eq!(Leaf::of(id(7, 0)), Leaf::of(id(7, 255)));
        let mut groups = vec![0_u32; 1 << 16];
        for generation in 1..5_u64 {
            for group in 0..1 << 16 {
                groups[Leaf::of(id(generation * 97, group << GROUP_BITS)).index()] += 1;
            }
        }
        // 2^26 objects: 1024 per directory on the average.
        let fullest = groups.iter().max().expect("not empty") << GROUP_BITS;
        assert!(fullest <= 8192, "{fullest} objects in one directory");
    }
}
