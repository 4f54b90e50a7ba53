//! Keys: a table byte and big-endian integers, built, read back, and as ranges for scans.

use crate::types::{GroupNo, NodeId, PageNo, PoolNumber, RefId, ResourceId, ResourceName};
use atoll_backends::{Generation, ObjectId, ObjectIndex};
use smallvec::SmallVec;
use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

/// Longest key in bytes: a name, or a store's record.
pub const MAX_KEY_LEN: usize = 256;
/// Longest name, in bytes, of a record that a store keeps (table 12).
pub const MAX_RECORD_KEY_LEN: usize = MAX_KEY_LEN - 5;

macro_rules! tables {
    ($($name:ident = $byte:literal,)*) => {
        /// First byte of a key.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Table {
            $($name = $byte,)*
        }

        impl Table {
            pub const ALL: &[Table] = &[$(Table::$name),*];

            pub const fn from_byte(byte: u8) -> Option<Table> {
                match byte {
                    $($byte => Some(Table::$name),)*
                    _ => None,
                }
            }
        }
    };
}

tables! {
    Superblock = 0x01,
    RunState = 0x02,
    Counter = 0x03,
    Pool = 0x10,
    Mark = 0x11,
    StoreRecord = 0x12,
    Resource = 0x20,
    Name = 0x21,
    Export = 0x22,
    Node = 0x30,
    Child = 0x31,
    Usage = 0x32,
    Group = 0x40,
    Page = 0x41,
    Partial = 0x50,
    Object = 0x60,
    Count = 0x61,
    Content = 0x62,
    Dead = 0x70,
}

/// Which numbers a counter gives out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum CounterKind {
    Node = 1,
    PoolNumber = 2,
    Ref = 3,
}

/// How a resource is exported.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Protocol {
    Iscsi = 1,
    NvmeTcp = 2,
}

/// A key of the metadata store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(SmallVec<[u8; 32]>);

/// What a key names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ParsedKey {
    Superblock,
    RunState,
    Counter(CounterKind),
    Pool(PoolNumber),
    Mark(PoolNumber),
    StoreRecord(PoolNumber, Vec<u8>),
    Resource(ResourceId),
    Name(ResourceName),
    Export(ResourceId, Protocol),
    Node(NodeId),
    Child { parent: NodeId, child: NodeId },
    Usage(NodeId),
    Group(NodeId, GroupNo),
    Page(NodeId, PageNo),
    Partial(PoolNumber, ObjectId),
    Object(PoolNumber, RefId),
    Count(PoolNumber, RefId),
    Content(PoolNumber, [u8; 32]),
    Dead(PoolNumber, ObjectId),
}

/// Keys from `from` to before `to`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRange {
    pub from: Key,
    pub to: Key,
}

impl Key {
    fn table(table: Table) -> Key {
        Key(SmallVec::from_slice(&[table as u8]))
    }

    fn with(mut self, bytes: &[u8]) -> Key {
        self.0.extend_from_slice(bytes);
        self
    }

    fn with_u32(self, value: u32) -> Key {
        self.with(&value.to_be_bytes())
    }

    fn with_u64(self, value: u64) -> Key {
        self.with(&value.to_be_bytes())
    }

    fn with_object(self, object: ObjectId) -> Key {
        self.with_u64(object.generation.get())
            .with_u64(object.index.get())
    }

    pub fn superblock() -> Key {
        Key::table(Table::Superblock)
    }

    pub fn run_state() -> Key {
        Key::table(Table::RunState)
    }

    pub fn counter(kind: CounterKind) -> Key {
        Key::table(Table::Counter).with(&[kind as u8])
    }

    pub fn pool(pool: PoolNumber) -> Key {
        Key::table(Table::Pool).with_u32(pool.get())
    }

    /// The pool's generation mark.
    pub fn mark(pool: PoolNumber) -> Key {
        Key::table(Table::Mark).with_u32(pool.get())
    }

    /// A record that the pool's store keeps here, by the store's own name for it. Panics above
    /// [`MAX_RECORD_KEY_LEN`] bytes.
    pub fn store_record(pool: PoolNumber, name: &[u8]) -> Key {
        assert!(
            name.len() <= MAX_RECORD_KEY_LEN,
            "a store's record name is too long"
        );
        Key::table(Table::StoreRecord)
            .with_u32(pool.get())
            .with(name)
    }

    pub fn resource(id: ResourceId) -> Key {
        Key::table(Table::Resource).with(&id.0)
    }

    pub fn name(name: &ResourceName) -> Key {
        Key::table(Table::Name).with(name.as_str().as_bytes())
    }

    pub fn export(id: ResourceId, protocol: Protocol) -> Key {
        Key::table(Table::Export)
            .with(&id.0)
            .with(&[protocol as u8])
    }

    pub fn node(node: NodeId) -> Key {
        Key::table(Table::Node).with_u64(node.get())
    }

    pub fn child(parent: NodeId, child: NodeId) -> Key {
        Key::table(Table::Child)
            .with_u64(parent.get())
            .with_u64(child.get())
    }

    /// How many objects the node's entries name.
    pub fn usage(node: NodeId) -> Key {
        Key::table(Table::Usage).with_u64(node.get())
    }

    pub fn group(node: NodeId, group: GroupNo) -> Key {
        Key::table(Table::Group)
            .with_u64(node.get())
            .with_u32(group.get())
    }

    pub fn page(node: NodeId, page: PageNo) -> Key {
        Key::table(Table::Page)
            .with_u64(node.get())
            .with_u32(page.get())
    }

    pub fn partial(pool: PoolNumber, object: ObjectId) -> Key {
        Key::table(Table::Partial)
            .with_u32(pool.get())
            .with_object(object)
    }

    pub fn object(pool: PoolNumber, id: RefId) -> Key {
        Key::table(Table::Object)
            .with_u32(pool.get())
            .with_u64(id.get())
    }

    pub fn count(pool: PoolNumber, id: RefId) -> Key {
        Key::table(Table::Count)
            .with_u32(pool.get())
            .with_u64(id.get())
    }

    pub fn content(pool: PoolNumber, sha256: &[u8; 32]) -> Key {
        Key::table(Table::Content).with_u32(pool.get()).with(sha256)
    }

    pub fn dead(pool: PoolNumber, first: ObjectId) -> Key {
        Key::table(Table::Dead)
            .with_u32(pool.get())
            .with_object(first)
    }

    /// The key right after this one, whatever its length: where a scan goes on.
    pub fn after(key: &[u8]) -> Key {
        Key(SmallVec::from_slice(key)).with(&[0])
    }

    /// Takes bytes as a key without a look at what they name.
    pub fn from_bytes(bytes: &[u8]) -> Key {
        Key(SmallVec::from_slice(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What the key names; `None` if no builder makes these bytes.
    pub fn parse(key: &[u8]) -> Option<ParsedKey> {
        let (&table, rest) = key.split_first()?;
        let mut fields = Fields(rest);
        let f = &mut fields;
        let parsed = match Table::from_byte(table)? {
            Table::Superblock => ParsedKey::Superblock,
            Table::RunState => ParsedKey::RunState,
            Table::Counter => ParsedKey::Counter(f.counter()?),
            Table::Pool => ParsedKey::Pool(f.pool()?),
            Table::Mark => ParsedKey::Mark(f.pool()?),
            Table::StoreRecord => ParsedKey::StoreRecord(f.pool()?, f.record()?),
            Table::Resource => ParsedKey::Resource(f.resource()?),
            Table::Name => ParsedKey::Name(ResourceName::from_bytes(f.rest())?),
            Table::Export => ParsedKey::Export(f.resource()?, f.protocol()?),
            Table::Node => ParsedKey::Node(f.node()?),
            Table::Child => ParsedKey::Child {
                parent: f.node()?,
                child: f.node()?,
            },
            Table::Usage => ParsedKey::Usage(f.node()?),
            Table::Group => ParsedKey::Group(f.node()?, GroupNo::new(f.u32()?)?),
            Table::Page => ParsedKey::Page(f.node()?, PageNo::new(f.u32()?)?),
            Table::Partial => ParsedKey::Partial(f.pool()?, f.object()?),
            Table::Object => ParsedKey::Object(f.pool()?, f.reference()?),
            Table::Count => ParsedKey::Count(f.pool()?, f.reference()?),
            Table::Content => ParsedKey::Content(f.pool()?, f.array()?),
            Table::Dead => ParsedKey::Dead(f.pool()?, f.object()?),
        };
        fields.0.is_empty().then_some(parsed)
    }
}

/// Reads a key's fields.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn rest(&mut self) -> &[u8] {
        std::mem::take(&mut self.0)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn pool(&mut self) -> Option<PoolNumber> {
        PoolNumber::new(self.u32()?)
    }

    fn node(&mut self) -> Option<NodeId> {
        NodeId::new(self.u64()?)
    }

    fn reference(&mut self) -> Option<RefId> {
        RefId::new(self.u64()?)
    }

    fn resource(&mut self) -> Option<ResourceId> {
        self.array().map(ResourceId)
    }

    fn object(&mut self) -> Option<ObjectId> {
        Some(ObjectId {
            generation: Generation::new(self.u64()?)?,
            index: ObjectIndex::new(self.u64()?)?,
        })
    }

    fn record(&mut self) -> Option<Vec<u8>> {
        let name = self.rest();
        (name.len() <= MAX_RECORD_KEY_LEN).then(|| name.to_vec())
    }

    fn counter(&mut self) -> Option<CounterKind> {
        match self.array()? {
            [1] => Some(CounterKind::Node),
            [2] => Some(CounterKind::PoolNumber),
            [3] => Some(CounterKind::Ref),
            _ => None,
        }
    }

    fn protocol(&mut self) -> Option<Protocol> {
        match self.array()? {
            [1] => Some(Protocol::Iscsi),
            [2] => Some(Protocol::NvmeTcp),
            _ => None,
        }
    }
}

impl KeyRange {
    /// Every key that begins with these bytes.
    fn of_prefix(from: Key) -> KeyRange {
        let mut to = from.clone();
        while to.0.last() == Some(&u8::MAX) {
            to.0.pop();
        }
        // No table byte is 255, so a byte is left to raise.
        *to.0.last_mut().expect("tables are below 255") += 1;
        KeyRange { from, to }
    }

    /// Every key of the store.
    pub fn all() -> KeyRange {
        KeyRange {
            from: Key(SmallVec::new()),
            to: Key(SmallVec::from_slice(&[u8::MAX])),
        }
    }

    pub fn prefix(table: Table) -> KeyRange {
        KeyRange::of_prefix(Key::table(table))
    }

    fn of_pool(table: Table, pool: PoolNumber) -> KeyRange {
        KeyRange::of_prefix(Key::table(table).with_u32(pool.get()))
    }

    fn of_node(table: Table, node: NodeId) -> KeyRange {
        KeyRange::of_prefix(Key::table(table).with_u64(node.get()))
    }

    pub fn store_records_of(pool: PoolNumber) -> KeyRange {
        KeyRange::of_pool(Table::StoreRecord, pool)
    }

    pub fn exports_of(id: ResourceId) -> KeyRange {
        KeyRange::of_prefix(Key::table(Table::Export).with(&id.0))
    }

    pub fn children_of(parent: NodeId) -> KeyRange {
        KeyRange::of_node(Table::Child, parent)
    }

    pub fn groups_of(node: NodeId) -> KeyRange {
        KeyRange::of_node(Table::Group, node)
    }

    /// The node's pages from this one on.
    pub fn pages_of(node: NodeId, from: PageNo) -> KeyRange {
        KeyRange {
            from: Key::page(node, from),
            ..KeyRange::of_node(Table::Page, node)
        }
    }

    /// The rows of these pages, `last` included.
    pub fn pages_between(node: NodeId, first: PageNo, last: PageNo) -> KeyRange {
        KeyRange {
            from: Key::page(node, first),
            to: Key::after(&Key::page(node, last)),
        }
    }

    pub fn partials_of(pool: PoolNumber) -> KeyRange {
        KeyRange::of_pool(Table::Partial, pool)
    }

    /// The partial records of one generation's objects from this index on.
    pub fn partials_from(pool: PoolNumber, from: ObjectId) -> KeyRange {
        let generation = Key::table(Table::Partial)
            .with_u32(pool.get())
            .with_u64(from.generation.get());
        KeyRange {
            from: Key::partial(pool, from),
            ..KeyRange::of_prefix(generation)
        }
    }

    pub fn objects_of(pool: PoolNumber) -> KeyRange {
        KeyRange::of_pool(Table::Object, pool)
    }

    pub fn counts_of(pool: PoolNumber) -> KeyRange {
        KeyRange::of_pool(Table::Count, pool)
    }

    pub fn contents_of(pool: PoolNumber) -> KeyRange {
        KeyRange::of_pool(Table::Content, pool)
    }

    pub fn dead_of(pool: PoolNumber) -> KeyRange {
        KeyRange::of_pool(Table::Dead, pool)
    }

    /// The rest of the range after a key that was seen.
    pub fn after(&self, seen: &[u8]) -> KeyRange {
        KeyRange {
            from: Key::after(seen),
            to: self.to.clone(),
        }
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&describe(&self.0))
    }
}

/// A key for people: what it names, or its bytes.
pub fn describe(key: &[u8]) -> String {
    match Key::parse(key) {
        Some(parsed) => format!("{parsed:?}"),
        None => key.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}
