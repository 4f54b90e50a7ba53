//! What a check found: findings, capped per kind, and totals. What they mean to an exit code or a
//! screen is the command line's business.

use std::collections::BTreeMap;
use std::fmt;

/// Findings of one kind that are kept; the others are only counted.
pub const MAX_FINDINGS_PER_KIND: u64 = 32;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// Expected after a crash or in the middle of a deletion, or says what was not looked at.
    Info,
    /// Something that no crash explains; no data is at stake.
    Warning,
    /// Data or metadata is damaged, or would be by going on.
    Error,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal $severity:ident,)*) => {
        /// Which check a finding comes from. A kind has always the same severity.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum FindingKind { $($(#[$doc])* $kind,)* }

        impl FindingKind {
            pub const ALL: &'static [FindingKind] = &[$(FindingKind::$kind,)*];

            /// The stable identifier, such as `object_missing`.
            pub const fn as_str(self) -> &'static str {
                match self { $(FindingKind::$kind => $name,)* }
            }

            pub const fn severity(self) -> Severity {
                match self { $(FindingKind::$kind => Severity::$severity,)* }
            }
        }
    };
}

kinds! {
    /// The metadata store could not read a part of itself.
    Unreadable = "unreadable" Error,
    /// A value is too short, has an unknown layout, or its checksum is wrong.
    Unsealed = "unsealed" Error,
    /// A key or a body breaks the format.
    Malformed = "malformed" Error,
    UnknownTable = "unknown_table" Error,
    SuperblockMissing = "superblock_missing" Error,
    /// The store's format is not one that this program reads.
    FormatVersion = "format_version" Error,
    RunStateMissing = "run_state_missing" Error,
    /// The run state contradicts itself.
    RunState = "run_state" Error,
    /// A counter would give out a number again.
    Counter = "counter" Error,
    /// Two pools have one UUID.
    PoolShared = "pool_shared" Error,
    /// A row belongs to a pool that the catalogue does not have.
    PoolMissing = "pool_missing" Error,
    /// The pool is not as the catalogue says.
    PoolMismatch = "pool_mismatch" Error,
    /// A resource has no name in table 21, or another.
    NameMissing = "name_missing" Error,
    /// A name of table 21 leads to no resource, or one of another name.
    NameDangling = "name_dangling" Error,
    /// Two resources have one name.
    NameShared = "name_shared" Error,
    ResourceSize = "resource_size" Error,
    /// An export of a resource that does not exist.
    ExportDangling = "export_dangling" Error,
    /// A row belongs to a node that does not exist.
    NodeMissing = "node_missing" Error,
    /// Two resources have one node.
    NodeShared = "node_shared" Error,
    /// A node that no resource, child or deletion accounts for.
    NodeUnowned = "node_unowned" Error,
    /// A resource and its node, or a child and its parent, do not fit together.
    NodeState = "node_state" Error,
    /// A flush of the volume has failed, and it was not cleared since.
    VolumeFaulted = "volume_faulted" Warning,
    ParentMissing = "parent_missing" Error,
    ParentCycle = "parent_cycle" Error,
    Depth = "depth" Error,
    /// Table 31 and the parents of the nodes differ.
    ChildTable = "child_table" Error,
    InheritEnd = "inherit_end" Error,
    Trim = "trim" Error,
    /// Table 32 differs from the entries of the node.
    UsageWrong = "usage_wrong" Error,
    /// A node was made before table 32 was.
    UsageMissing = "usage_missing" Info,
    /// A page has no row and its group says that it has, or the other way round.
    PageTable = "page_table" Error,
    /// An entry of a kind that is not allowed where it is.
    EntryKind = "entry_kind" Error,
    /// An entry beyond the end of its resource.
    EntryBeyondEnd = "entry_beyond_end" Error,
    /// A generation that the marks do not cover: it could be used a second time.
    AboveMark = "above_mark" Error,
    /// An entry says partial and there is no record.
    PartialMissing = "partial_missing" Error,
    /// A record of an object whose entry does not say partial.
    PartialFlag = "partial_flag" Error,
    /// A record of an object that nothing names.
    PartialOrphan = "partial_orphan" Warning,
    /// A bitmap of the wrong length.
    BitmapLength = "bitmap_length" Error,
    /// A record whose blocks are all valid.
    BitmapFull = "bitmap_full" Warning,
    /// A chain of records that does not end.
    BelowChain = "below_chain" Error,
    /// An entry or a record names a ref that table 60 does not have.
    RefMissing = "ref_missing" Error,
    /// Table 61 has less than the entries and records that name the ref, or no such ref.
    CountWrong = "count_wrong" Error,
    /// Table 61 has more, as an unfinished copy leaves it in a crash: the object is never deleted.
    CountHigh = "count_high" Info,
    /// A ref of count 0: the collector will delete it.
    RefUnused = "ref_unused" Info,
    /// Tables 60 and 62 differ.
    ContentTable = "content_table" Error,
    /// An object is named by more than one entry, row of table 60 or record above it.
    ObjectShared = "object_shared" Error,
    /// A head creates objects in a generation that others have objects of.
    GenerationShared = "generation_shared" Error,
    /// An object that is to be deleted is still named.
    DeadNamed = "dead_named" Error,
    /// An object is in two dead ranges.
    DeadTwice = "dead_twice" Warning,
    /// An object that a map names is not in its pool.
    ObjectMissing = "object_missing" Error,
    /// An object could not be read (deep check).
    ObjectUnreadable = "object_unreadable" Error,
    /// Objects that nothing names: created before a crash and never committed.
    Leaked = "leaked" Info,
    /// Objects that are going to be deleted.
    Pending = "pending" Info,
    /// Nodes of deleted resources that the collector has not ended with.
    Collecting = "collecting" Info,
    /// Something could not be checked.
    NotChecked = "not_checked" Info,
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    pub severity: Severity,
    pub kind: FindingKind,
    /// The row, object, pool or resource, in words.
    pub place: String,
    /// What is wrong, and what that means.
    pub text: String,
}

/// What was looked at. Bytes where a name says so, else numbers of things.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Rows by table, as the first byte of their keys.
    pub rows: BTreeMap<u8, u64>,
    pub pools: u64,
    pub resources: u64,
    pub nodes: u64,
    /// Entries of all maps that name an object or a ref.
    pub entries: u64,
    /// Objects in dead ranges.
    pub dead: u64,
    /// Refs of count 0.
    pub dead_refs: u64,
    /// Entries of dying nodes that name an object or a ref, and bytes that these have at most.
    pub dying_objects: u64,
    pub dying_bytes: u64,
    /// The same of frozen nodes that no resource names: what no child shows of them is given back.
    pub unnamed_objects: u64,
    pub unnamed_bytes: u64,
    /// Objects that the pools listed.
    pub listed: u64,
    pub leaked: u64,
    pub leaked_bytes: u64,
    /// Listed objects that are dead, or that a deletion or a shrink is about to drop.
    pub pending: u64,
    /// Objects read by a deep check.
    pub read: u64,
}

/// The result of a check.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// In the order of the check; at most [`MAX_FINDINGS_PER_KIND`] of each kind.
    pub findings: Vec<Finding>,
    /// How many findings of each kind there were, kept or not.
    pub counts: BTreeMap<FindingKind, u64>,
    pub totals: Totals,
}

impl Report {
    /// Number of findings of this severity, kept or not.
    pub fn count(&self, severity: Severity) -> u64 {
        let of = self
            .counts
            .iter()
            .filter(|(kind, _)| kind.severity() == severity);
        of.map(|(_, count)| count).sum()
    }

    /// How many findings of this kind were not kept.
    pub fn dropped(&self, kind: FindingKind) -> u64 {
        self.counts
            .get(&kind)
            .map_or(0, |count| count.saturating_sub(MAX_FINDINGS_PER_KIND))
    }

    /// No error was found. Warnings and infos do not count.
    pub fn is_clean(&self) -> bool {
        self.count(Severity::Error) == 0
    }
}

/// Collects a report.
#[derive(Default)]
pub(super) struct Log {
    pub(super) report: Report,
    /// Rows are being read again: what they say is in the report already.
    pub(super) repeats: bool,
    /// Some names of objects could not be read: what seems unnamed may be named.
    pub(super) names_lost: bool,
}

impl Log {
    pub(super) fn find(
        &mut self,
        kind: FindingKind,
        place: impl fmt::Display,
        text: impl FnOnce() -> String,
    ) {
        if self.repeats {
            return;
        }
        let count = self.report.counts.entry(kind).or_insert(0);
        *count += 1;
        if *count <= MAX_FINDINGS_PER_KIND {
            let (severity, place, text) = (kind.severity(), place.to_string(), text());
            self.report.findings.push(Finding {
                severity,
                kind,
                place,
                text,
            });
        }
    }

    /// Whether a further finding of this kind would be kept.
    pub(super) fn has_room(&self, kind: FindingKind) -> bool {
        self.report
            .counts
            .get(&kind)
            .is_none_or(|count| *count < MAX_FINDINGS_PER_KIND)
    }

    pub(super) fn row(&mut self, table: u8) {
        if !self.repeats {
            *self.report.totals.rows.entry(table).or_insert(0) += 1;
        }
    }
}
