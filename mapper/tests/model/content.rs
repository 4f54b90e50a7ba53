//! What a sector may hold: which write of which volume it comes from, or one of several. Not when it
//! may be seen, which is the oracle's.

#![expect(
    clippy::disallowed_types,
    reason = "the model goes from one runtime to the next; no other thread has it meanwhile"
)]

use std::sync::{Arc, Mutex, PoisonError};

/// Which write a sector's content comes from, over all volumes; 0 is zeros.
pub type Stamp = u32;

/// One sector of one write. Clones and copies show it elsewhere: nothing else looks like it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content {
    /// The volume that was written to, and the sector there.
    volume: u64,
    sector: u64,
    pub stamp: Stamp,
}

impl Content {
    pub const ZERO: Content = Content {
        volume: 0,
        sector: 0,
        stamp: 0,
    };

    pub fn new(volume: u64, sector: u64, stamp: Stamp) -> Content {
        match stamp {
            0 => Content::ZERO,
            _ => Content {
                volume,
                sector,
                stamp,
            },
        }
    }

    /// The bytes that it stands for.
    pub fn fill(&self, out: &mut [u8]) {
        if self.stamp == 0 {
            out.fill(0);
            return;
        }
        let mut word = self
            .volume
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(self.sector.wrapping_mul(0xbf58_476d_1ce4_e5b9))
            .wrapping_add(u64::from(self.stamp).wrapping_mul(0x94d0_49bb_1331_11eb))
            | 1;
        for chunk in out.chunks_mut(8) {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// One content, which may not be known yet. Who shares a choice learns what another has seen.
#[derive(Clone, Debug)]
pub enum Value {
    Known(Content),
    OneOf(Choice),
}

#[derive(Clone, Debug)]
pub struct Choice(Arc<Mutex<Vec<Content>>>);

impl Choice {
    pub fn of(values: &[Value]) -> Choice {
        let choice = Choice(Arc::new(Mutex::new(Vec::new())));
        values.iter().for_each(|value| choice.widen(value));
        choice
    }

    /// What else it may be, as long as it has not been seen.
    pub fn widen(&self, value: &Value) {
        let more = value.contents();
        self.with(|contents| {
            let new = more
                .into_iter()
                .filter(|content| !contents.contains(content));
            let new: Vec<Content> = new.collect();
            contents.extend(new);
        });
    }

    fn with<R>(&self, f: impl FnOnce(&mut Vec<Content>) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Value {
    pub const ZERO: Value = Value::Known(Content::ZERO);

    /// One of these, of which there is at least one.
    pub fn one_of(values: &[Value]) -> Value {
        if let [single] = values {
            return single.clone();
        }
        let choice = Choice::of(values);
        match choice.with(|contents| (contents.len() == 1).then(|| contents[0])) {
            Some(content) => Value::Known(content),
            None => Value::OneOf(choice),
        }
    }

    pub fn contents(&self) -> Vec<Content> {
        match self {
            Value::Known(content) => vec![*content],
            Value::OneOf(choice) => choice.with(|contents| contents.clone()),
        }
    }

    /// It was seen: it is this, here and wherever the choice is shared.
    pub fn is_seen_as(&self, content: Content) {
        if let Value::OneOf(choice) = self {
            choice.with(|contents| *contents = vec![content]);
        }
    }

    /// The content, if there is no doubt.
    pub fn known(&self) -> Option<Content> {
        match self {
            Value::Known(content) => Some(*content),
            Value::OneOf(choice) => {
                choice.with(|contents| (contents.len() == 1).then(|| contents[0]))
            }
        }
    }
}
