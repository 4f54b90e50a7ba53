//! Names and quantities of the mapper: nodes, pools, refs, pages, resources and their names.
//! Not the objects' own names, which are `atoll_backends`'.

use crate::error::{Error, ErrorKind};
use atoll_backends::ObjectIndex;
use std::fmt;
use std::str::FromStr;

/// Entries of a page, and pages of a group.
pub const ENTRIES_PER_PAGE: usize = 512;
/// log2 of [`ENTRIES_PER_PAGE`].
pub const PAGE_SHIFT: u32 = 9;

const _: () = assert!(1 << PAGE_SHIFT == ENTRIES_PER_PAGE);
const _: () = assert!(PageNo::BITS + PAGE_SHIFT == ObjectIndex::BITS);
const _: () = assert!(GroupNo::BITS + PAGE_SHIFT == PageNo::BITS);

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident, $int:ty, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name($int);

        impl $name {
            pub const FIRST: $name = $name(1);

            /// `None` for 0, which means "none" wherever it is stored.
            pub const fn new(value: $int) -> Option<$name> {
                if value == 0 { None } else { Some($name(value)) }
            }

            pub const fn get(self) -> $int {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, " {}"), self.0)
            }
        }
    };
}

numbered!(
    /// A node of the tree of maps. Numbered from 1, never used again.
    NodeId, u64, "node"
);
numbered!(
    /// A pool as keys name it. Numbered from 1, never used again.
    PoolNumber, u32, "pool"
);

/// An object that several entries name. Numbered from 1, never used again. 52 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RefId(u64);

impl RefId {
    pub const BITS: u32 = 52;
    pub const FIRST: RefId = RefId(1);

    /// `None` for 0 and for more than 52 bits.
    pub const fn new(value: u64) -> Option<RefId> {
        if value == 0 || value >> RefId::BITS != 0 {
            None
        } else {
            Some(RefId(value))
        }
    }

    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for RefId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ref {}", self.0)
    }
}

/// A page of a node's map: 512 entries. 31 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageNo(u32);

impl PageNo {
    pub const BITS: u32 = 31;
    pub const ZERO: PageNo = PageNo(0);
    pub const MAX: PageNo = PageNo((1 << PageNo::BITS) - 1);

    /// `None` if it has more than 31 bits.
    pub const fn new(value: u32) -> Option<PageNo> {
        if value >> PageNo::BITS == 0 {
            Some(PageNo(value))
        } else {
            None
        }
    }

    pub const fn get(self) -> u32 {
        self.0
    }

    /// The page that holds this entry.
    pub const fn of(index: ObjectIndex) -> PageNo {
        // 40 bits less 9: fits.
        PageNo((index.get() >> PAGE_SHIFT) as u32)
    }

    /// The entry's place in its page, 0 to 511.
    pub const fn slot_of(index: ObjectIndex) -> usize {
        (index.get() % ENTRIES_PER_PAGE as u64) as usize
    }

    /// The entry at this slot of the page. Panics unless the slot is 0 to 511.
    pub const fn index(self, slot: usize) -> ObjectIndex {
        assert!(slot < ENTRIES_PER_PAGE);
        match ObjectIndex::new(((self.0 as u64) << PAGE_SHIFT) + slot as u64) {
            Some(index) => index,
            None => panic!("31 and 9 bits are 40"),
        }
    }

    pub const fn group(self) -> GroupNo {
        GroupNo(self.0 >> PAGE_SHIFT)
    }

    /// The page's place in its group, 0 to 511.
    pub const fn group_slot(self) -> usize {
        self.0 as usize % ENTRIES_PER_PAGE
    }
}

impl fmt::Display for PageNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}", self.0)
    }
}

/// A group of a node's map: 512 pages. 22 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupNo(u32);

impl GroupNo {
    pub const BITS: u32 = 22;
    pub const ZERO: GroupNo = GroupNo(0);
    pub const MAX: GroupNo = GroupNo((1 << GroupNo::BITS) - 1);

    /// `None` if it has more than 22 bits.
    pub const fn new(value: u32) -> Option<GroupNo> {
        if value >> GroupNo::BITS == 0 {
            Some(GroupNo(value))
        } else {
            None
        }
    }

    pub const fn get(self) -> u32 {
        self.0
    }

    /// The page at this slot of the group. Panics unless the slot is 0 to 511.
    pub const fn page(self, slot: usize) -> PageNo {
        assert!(slot < ENTRIES_PER_PAGE);
        PageNo((self.0 << PAGE_SHIFT) + slot as u32)
    }
}

impl fmt::Display for GroupNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}", self.0)
    }
}

const UUID_DASHES: [usize; 4] = [8, 13, 18, 23];

fn write_uuid(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let text = text.as_bytes();
    if text.len() != 36 || UUID_DASHES.iter().any(|&at| text[at] != b'-') {
        return None;
    }
    let mut digits = (0..36)
        .filter(|at| !UUID_DASHES.contains(at))
        .map(|at| (text[at] as char).to_digit(16));
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        *byte = (digits.next()?? * 16 + digits.next()??) as u8;
    }
    Some(bytes)
}

macro_rules! uuid {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Reads the 36 characters of the UUID form, in either case; `None` for anything else.
            pub fn parse(text: &str) -> Option<$name> {
                parse_uuid(text).map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_uuid(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_uuid(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<$name, Error> {
                $name::parse(text).ok_or_else(|| {
                    Error::new(ErrorKind::Invalid, format!(concat!("\"{}\" is not ", $what), text))
                })
            }
        }
    };
}

uuid!(
    /// A resource's identity: a UUID in the order of its text form.
    ResourceId, "a resource's UUID"
);
uuid!(
    /// Identity of one metadata store, made when it is created.
    InstanceId, "an instance's UUID"
);

/// A resource's name: 1 to 200 bytes of `a`-`z`, `0`-`9`, `.`, `_` and `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName(Box<str>);

impl ResourceName {
    pub const MAX_LEN: usize = 200;

    /// `Invalid`, with the rule, for anything else.
    pub fn new(text: &str) -> Result<ResourceName, Error> {
        if Self::is_valid(text.as_bytes()) {
            return Ok(ResourceName(text.into()));
        }
        Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "{:?} is not a name: names have 1 to {} characters of a-z, 0-9, '.', '_' and '-'",
                text.chars()
                    .take(ResourceName::MAX_LEN + 1)
                    .collect::<String>(),
                ResourceName::MAX_LEN,
            ),
        ))
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<ResourceName> {
        let text = std::str::from_utf8(bytes).ok()?;
        Self::is_valid(bytes).then(|| ResourceName(text.into()))
    }

    fn is_valid(bytes: &[u8]) -> bool {
        (1..=ResourceName::MAX_LEN).contains(&bytes.len())
            && bytes
                .iter()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

impl FromStr for ResourceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<ResourceName, Error> {
        ResourceName::new(text)
    }
}
