//! All changes of a resource, asked for page by page.

use crate::admin::client::Client;
use crate::api::{ChangePage, ChangedRange, Volume};
use crate::error::{Error, Result};
use crate::transfer::format::UNIT;

/// Answers in a row that may go no further: each has taken the daemon a moment, as it is busy.
const MAX_STUCK: u32 = 1000;

/// Ranges in ascending order, whole units, not overlapping.
pub struct Changes<'a> {
    client: &'a Client,
    /// Without the place to begin.
    path: String,
    size: u64,
    page: std::vec::IntoIter<ChangedRange>,
    /// Where the next page begins.
    next: Option<u64>,
    /// End of the last range.
    at: u64,
    /// Answers in a row that went no further.
    stuck: u32,
}

impl<'a> Changes<'a> {
    /// From `offset` on; all that is stored without `from`.
    pub fn new(client: &'a Client, from: Option<&Volume>, to: &Volume, offset: u64) -> Self {
        let from = from.map(|from| format!("&from={}&from_id={}", from.name, from.id));
        Self {
            client,
            path: format!(
                "/v1/resources/{}/changes?id={}{}",
                to.name,
                to.id,
                from.unwrap_or_default()
            ),
            size: to.size.get(),
            page: Vec::new().into_iter(),
            next: Some(offset),
            at: offset,
            stuck: 0,
        }
    }

    fn ask(&mut self, offset: u64) -> Result<()> {
        let page: ChangePage = self.client.get(&format!("{}&offset={offset}", self.path))?;
        // It may have had no time to look at anything, but that must end.
        let next = page.next.map(|next| next.max(offset));
        self.stuck = match next == Some(offset) {
            true => self.stuck + 1,
            false => 0,
        };
        if self.stuck > MAX_STUCK {
            return Err(Error::internal(format!(
                "the daemon's list of changes does not go on behind byte {offset}"
            )));
        }
        self.next = next;
        self.page = page.ranges.into_iter();
        Ok(())
    }

    /// The whole units of it that were not given yet.
    fn clipped(&mut self, range: ChangedRange) -> Option<ChangedRange> {
        let end = range.offset.saturating_add(range.length);
        // Of a unit that is zero in part only, the content tells.
        let whole = range.offset.is_multiple_of(UNIT) && end.is_multiple_of(UNIT);
        let start = (range.offset / UNIT * UNIT).max(self.at);
        let end = end.next_multiple_of(UNIT).min(self.size);
        (start < end).then(|| {
            self.at = end;
            ChangedRange {
                offset: start,
                length: end - start,
                zero: range.zero && whole,
            }
        })
    }
}

impl Iterator for Changes<'_> {
    type Item = Result<ChangedRange>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            while let Some(range) = self.page.next() {
                if let Some(range) = self.clipped(range) {
                    return Some(Ok(range));
                }
            }
            let offset = self.next.take()?;
            if let Err(error) = self.ask(offset) {
                return Some(Err(error));
            }
        }
    }
}
