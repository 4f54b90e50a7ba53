//! Moves what is stored, or has changed, from a resource to where an export goes: several reads on
//! their way, handed on in order.

use std::collections::VecDeque;

use crate::admin::client::Client;
use crate::admin::lanes::{Lanes, Ticket, WINDOW, Work};
use crate::api::{ChangedRange, DataRange, MAX_DATA, Volume};
use crate::cli::Failure;
use crate::cli::progress::{Progress, Stage};
use crate::transfer::encode::Totals;
use crate::transfer::zeros;

use super::export_target::Target;
use super::pages::Changes;

/// Ranges that lie no farther apart are read at once: that is cheaper than asking again.
const MAX_GAP: u64 = 64 << 10;

/// What is on its way.
enum Part {
    Data {
        /// Where what is read begins.
        offset: u64,
        ticket: Ticket,
        wanted: Vec<(u64, u64)>,
    },
    Zeros(u64, u64),
}

/// Ranges that are to be read at once; offset and length of each.
struct Gathered(Vec<(u64, u64)>);

impl Gathered {
    fn start(&self) -> u64 {
        self.0.first().map_or(0, |(offset, _)| *offset)
    }

    fn end(&self) -> u64 {
        self.0.last().map_or(0, |(offset, length)| offset + length)
    }

    /// Whether a range is read with these: near, and in the same piece of the resource.
    fn takes(&self, offset: u64) -> bool {
        offset / MAX_DATA == self.start() / MAX_DATA && offset - self.end() <= MAX_GAP
    }
}

struct Copy<'a> {
    resource: &'a Volume,
    incremental: bool,
    lanes: Lanes,
    window: VecDeque<Part>,
    gathered: Gathered,
    target: Box<dyn Target + 'a>,
    progress: Progress<'a>,
}

/// All of it, or what has changed since `base`.
pub fn copy<'a>(
    client: &Client,
    resource: &'a Volume,
    base: Option<&Volume>,
    target: Box<dyn Target + 'a>,
    stage: &'a mut Stage<'_>,
) -> Result<Totals, Failure> {
    let from = target.at();
    let mut copy = Copy {
        resource,
        incremental: base.is_some(),
        lanes: Lanes::open(client.socket(), &resource.name)?,
        window: VecDeque::new(),
        gathered: Gathered(Vec::new()),
        target,
        progress: stage.begin(&format!("exporting {}", resource.name)),
    };
    for change in Changes::new(client, base, resource, from) {
        copy.add(change?)?;
    }
    copy.read()?;
    while let Some(part) = copy.window.pop_front() {
        copy.hand_on(part)?;
    }
    Ok(copy.target.end()?)
}

impl Copy<'_> {
    fn add(&mut self, change: ChangedRange) -> Result<(), Failure> {
        let (mut offset, end) = (change.offset, change.offset + change.length);
        if change.zero {
            self.read()?;
            return self.push(Part::Zeros(offset, change.length));
        }
        while offset < end {
            if !self.gathered.0.is_empty() && !self.gathered.takes(offset) {
                self.read()?;
            }
            // In pieces that lie as objects do.
            let until = end.min((offset / MAX_DATA + 1) * MAX_DATA);
            self.gathered.0.push((offset, until - offset));
            offset = until;
        }
        Ok(())
    }

    /// Reads what was gathered.
    fn read(&mut self) -> Result<(), Failure> {
        if self.gathered.0.is_empty() {
            return Ok(());
        }
        let offset = self.gathered.start();
        let work = Work::Read(DataRange {
            id: self.resource.id,
            offset,
            length: self.gathered.end() - offset,
            session: None,
        });
        let part = Part::Data {
            offset,
            ticket: self.lanes.begin(work),
            wanted: std::mem::take(&mut self.gathered.0),
        };
        self.push(part)
    }

    fn push(&mut self, part: Part) -> Result<(), Failure> {
        self.window.push_back(part);
        if self.window.len() <= WINDOW {
            return Ok(());
        }
        match self.window.pop_front() {
            Some(part) => self.hand_on(part),
            None => Ok(()),
        }
    }

    fn hand_on(&mut self, part: Part) -> Result<(), Failure> {
        let at = match part {
            Part::Zeros(offset, length) => {
                self.zeros(offset, length)?;
                offset + length
            }
            Part::Data {
                offset,
                ticket,
                wanted,
            } => {
                let bytes = ticket.wait()?;
                for (start, length) in wanted {
                    // What was read is as long as all of them.
                    let first = (start - offset) as usize;
                    self.data(start, &bytes[first..first + length as usize])?;
                }
                offset + bytes.len() as u64
            }
        };
        self.progress.bytes(at, self.resource.size.get());
        Ok(())
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        for run in zeros::runs(bytes) {
            let at = offset + run.range.start as u64;
            match run.zero {
                true => self.zeros(at, run.range.len() as u64)?,
                false => self.target.data(at, &bytes[run.range])?,
            }
        }
        Ok(())
    }

    /// Of a whole export all that has no record is zero.
    fn zeros(&mut self, offset: u64, length: u64) -> Result<(), Failure> {
        if self.incremental {
            self.target.zeros(offset, length)?;
        }
        Ok(())
    }
}
