//! An atomic batch of changes, sealed as they are added.

use crate::format::{Key, Row, seal};

/// One change; values and operands are sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    Put { key: Key, value: Vec<u8> },
    Delete { key: Key },
    Merge { key: Key, operand: Vec<u8> },
}

impl Op {
    pub fn key(&self) -> &Key {
        match self {
            Op::Put { key, .. } | Op::Delete { key } | Op::Merge { key, .. } => key,
        }
    }

    fn value_len(&self) -> usize {
        match self {
            Op::Put { value, .. } => value.len(),
            Op::Delete { .. } => 0,
            Op::Merge { operand, .. } => operand.len(),
        }
    }
}

/// Changes that happen together or not at all, in their order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    ops: Vec<Op>,
    frees: bool,
}

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    pub fn put(&mut self, key: Key, body: impl AsRef<[u8]>) {
        let value = seal(&key, body.as_ref());
        self.ops.push(Op::Put { key, value });
    }

    pub fn put_row(&mut self, key: Key, row: &impl Row) {
        self.put(key, row.encode());
    }

    pub fn delete(&mut self, key: Key) {
        self.ops.push(Op::Delete { key });
    }

    /// For tables 40, 41, 50 and 61; see [`crate::format::merge()`].
    pub fn merge(&mut self, key: Key, body: impl AsRef<[u8]>) {
        let operand = seal(&key, body.as_ref());
        self.ops.push(Op::Merge { key, operand });
    }

    pub fn merge_row(&mut self, key: Key, row: &impl Row) {
        self.merge(key, row.encode());
    }

    /// Adds the changes of another batch after these. The whole frees only if both do, or one of
    /// them is empty.
    pub fn extend(&mut self, other: Batch) {
        self.frees = match (self.is_empty(), other.is_empty()) {
            (true, _) => other.frees || (other.is_empty() && self.frees),
            (false, true) => self.frees,
            (false, false) => self.frees && other.frees,
        };
        self.ops.extend(other.ops);
    }

    /// Says that this batch serves to free space (deletes, steps of a deletion, a clean stop), so
    /// that a full store takes it nevertheless.
    pub fn set_frees(&mut self, frees: bool) {
        self.frees = frees;
    }

    pub fn frees(&self) -> bool {
        self.frees
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.ops
            .iter()
            .map(|op| op.key().len() + op.value_len())
            .sum()
    }

    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    pub(super) fn into_ops(self) -> Vec<Op> {
        self.ops
    }
}
