//! Going through a range of the store in parts, with the seal of every row checked.

use super::bytes::{Damage, Decoded, unseal};
use super::keys::{Key, describe};
use super::report::{FindingKind, Log};
use crate::error::{ErrorKind, Result};
use crate::meta::{MetaReader, Pair};

/// Rows read at a time.
const ROWS: usize = 256;
/// Longest key of the format and more, for a bound above all keys.
const LONGEST_KEY: usize = 4096;

/// The rows from one key on and below another.
pub(super) struct Rows {
    from: Vec<u8>,
    to: Vec<u8>,
    part: std::iter::Peekable<std::vec::IntoIter<Pair>>,
    more: bool,
}

impl Rows {
    pub(super) fn range(from: Vec<u8>, to: Vec<u8>) -> Rows {
        Rows {
            from,
            to,
            part: Vec::new().into_iter().peekable(),
            more: true,
        }
    }

    /// Of tables `first` to `last`.
    pub(super) fn tables(first: u8, last: u8) -> Rows {
        let from = if first == 0 { Vec::new() } else { vec![first] };
        let to = match last.checked_add(1) {
            Some(next) => vec![next],
            None => vec![u8::MAX; LONGEST_KEY],
        };
        Rows::range(from, to)
    }

    pub(super) async fn peek(
        &mut self,
        meta: &dyn MetaReader,
        log: &mut Log,
    ) -> Result<Option<&Pair>> {
        if self.part.peek().is_none() && self.more {
            match meta.scan(&self.from, &self.to, ROWS).await {
                Ok(pairs) => self.take_part(pairs),
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    self.more = false;
                    log.names_lost = true;
                    log.find(FindingKind::Unreadable, describe(&self.from), || {
                        format!("the store cannot read on from here: {error}; the rest of this table was not checked")
                    });
                }
                Err(error) => return Err(error.during("reading the metadata store")),
            }
        }
        Ok(self.part.peek())
    }

    fn take_part(&mut self, pairs: Vec<Pair>) {
        self.more = pairs.len() >= ROWS;
        if let Some((last, _)) = pairs.last() {
            self.from = [last, &[0][..]].concat();
        }
        self.part = pairs.into_iter().peekable();
    }

    pub(super) async fn next(
        &mut self,
        meta: &dyn MetaReader,
        log: &mut Log,
    ) -> Result<Option<Pair>> {
        self.peek(meta, log).await?;
        Ok(self.part.next())
    }
}

/// Reads a row with the body decoder of its table; what is wrong is logged.
pub(super) fn open<'a, T>(
    log: &mut Log,
    key: &[u8],
    value: &'a [u8],
    decode: impl FnOnce(&'a [u8]) -> Decoded<T>,
) -> Option<T> {
    match unseal(key, value).and_then(decode) {
        Ok(row) => Some(row),
        Err(damage) => {
            damaged(log, key, damage);
            None
        }
    }
}

/// The key; what is wrong is logged.
pub(super) fn key_of(log: &mut Log, key: &[u8]) -> Option<Key> {
    match Key::parse(key) {
        Ok(key) => Some(key),
        Err(damage) => {
            damaged(log, key, damage);
            None
        }
    }
}

fn damaged(log: &mut Log, key: &[u8], damage: Damage) {
    let kind = match damage {
        Damage::Seal(_) => FindingKind::Unsealed,
        Damage::Form(_) => FindingKind::Malformed,
    };
    log.find(kind, describe(key), || {
        format!("the row cannot be used: {damage}")
    });
}

/// The row under this key, as [`open`] reads it; `Err(())` if there is one that cannot be read,
/// which its own table's check reports.
pub(super) async fn get<T>(
    meta: &dyn MetaReader,
    key: &[u8],
    decode: impl FnOnce(&[u8]) -> Decoded<T>,
) -> Result<std::result::Result<Option<T>, ()>> {
    match meta.get(key).await {
        Ok(None) => Ok(Ok(None)),
        Ok(Some(value)) => Ok(unseal(key, &value)
            .and_then(decode)
            .map(Some)
            .map_err(|_| ())),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Err(())),
        Err(error) => Err(error.during("reading the metadata store")),
    }
}
