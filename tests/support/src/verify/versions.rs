//! What one sector was told to hold, and what is known of the order in which that took effect. A version takes effect at
//! one moment between its beginning and its end; which of two that overlap was later, only reads tell.

use std::fmt;

use super::stamp::Sequence;

/// A place in the order of what the test has seen begin and end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    pub(super) const START: Moment = Moment(0);
    const NEVER: Moment = Moment(u64::MAX);

    /// The next one.
    pub(super) fn tick(&mut self) -> Moment {
        self.0 += 1;
        *self
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Moment::NEVER => f.write_str("never"),
            Moment(number) => write!(f, "{number}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Zeros,
    Data,
}

/// A write or unmap of one sector.
#[derive(Clone, Copy)]
pub(super) struct Version {
    pub(super) sequence: Sequence,
    pub(super) content: Content,
    begun: Moment,
    /// If it takes effect it has by then: its end, or that of a read that showed it.
    latest: Moment,
    /// It has taken effect by then for sure; never known of one that was refused and not read.
    certain: Moment,
    /// Reads that begin later do not show it: another one has replaced it.
    replaced: Moment,
    acknowledged: Moment,
    /// Durable by itself (FUA).
    durable: bool,
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\n  {:?} of {:?} at {:?}..{:?}, acknowledged {:?}, replaced {:?}",
            self.content, self.sequence, self.begun, self.latest, self.acknowledged, self.replaced
        )
    }
}

impl Version {
    pub(super) fn begun(sequence: Sequence, content: Content, now: Moment) -> Version {
        Version {
            sequence,
            content,
            begun: now,
            latest: Moment::NEVER,
            certain: Moment::NEVER,
            replaced: Moment::NEVER,
            acknowledged: Moment::NEVER,
            durable: false,
        }
    }

    /// Whether a read that began at a moment may show it.
    pub(super) fn is_visible(&self, begun: Moment) -> bool {
        begun < self.replaced
    }

    fn is_durable(&self, flushed: Moment) -> bool {
        self.durable || self.acknowledged <= flushed
    }
}

/// All of a sector that may still matter, in the order of their beginnings; never none.
#[derive(Clone, Debug)]
pub(super) struct Versions(Vec<Version>);

impl Versions {
    /// Zeros, durable.
    pub(super) fn new() -> Versions {
        let start = Moment::START;
        Versions(vec![Version {
            latest: start,
            certain: start,
            acknowledged: start,
            durable: true,
            ..Version::begun(Sequence(0), Content::Zeros, start)
        }])
    }

    pub(super) fn begin(&mut self, version: Version) {
        self.0.push(version);
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Sequence> {
        self.0.iter().map(|version| version.sequence)
    }

    /// Those that a read that began at a moment may show.
    pub(super) fn visible(&self, begun: Moment) -> impl Iterator<Item = Sequence> + Clone {
        let visible = self.0.iter().filter(move |v| v.is_visible(begun));
        visible.map(|version| version.sequence)
    }

    /// Whether none of them took effect after that moment.
    pub(super) fn is_stable(&self, since: Moment) -> bool {
        self.0.iter().all(|version| version.latest < since)
    }

    pub(super) fn acknowledge(&mut self, sequence: Sequence, now: Moment, durable: bool) {
        let Some(version) = self.0.iter_mut().find(|v| v.sequence == sequence) else {
            // A read has shown that it was replaced, and something durable has done so.
            return;
        };
        version.acknowledged = now;
        version.durable = durable;
        self.took_effect(sequence, now);
    }

    pub(super) fn refuse(&mut self, sequence: Sequence, now: Moment) {
        if let Some(version) = self.0.iter_mut().find(|v| v.sequence == sequence) {
            version.latest = version.latest.min(now);
        }
    }

    /// It has taken effect by now: what had before it began is replaced.
    fn took_effect(&mut self, sequence: Sequence, now: Moment) {
        let Some(version) = self.0.iter_mut().find(|v| v.sequence == sequence) else {
            return;
        };
        version.latest = version.latest.min(now);
        version.certain = version.certain.min(now);
        let begun = version.begun;
        for older in self.0.iter_mut().filter(|v| v.latest < begun) {
            older.replaced = older.replaced.min(now);
        }
    }

    /// A read that ran from `begun` to `now` has shown one of those that `shown` says; false if there is none.
    pub(super) fn observe(
        &mut self,
        shown: impl Fn(&Version) -> bool,
        begun: Moment,
        now: Moment,
    ) -> bool {
        let mut fitting = self.0.iter().filter(|version| shown(version));
        let Some(first) = fitting.next().map(|version| version.sequence) else {
            return false;
        };
        // Several may be zeros.
        if fitting.next().is_none() {
            self.took_effect(first, now);
        }
        // All else that had taken effect before the read began is older than what it has shown.
        for version in &mut self.0 {
            if !shown(version) && version.latest < begun {
                version.replaced = version.replaced.min(now);
            }
        }
        true
    }

    /// After a crash: one that `found` says is there, and nothing else any more; false if there is none.
    pub(super) fn settle(&mut self, found: impl Fn(&Version) -> bool, now: Moment) -> bool {
        let Some(&version) = self.0.iter().rfind(|version| found(version)) else {
            return false;
        };
        self.0 = vec![Version {
            begun: Moment::START,
            latest: now,
            certain: now,
            replaced: Moment::NEVER,
            acknowledged: now,
            ..version
        }];
        true
    }

    /// Drops those that something durable has replaced, so that no crash brings them back, and that no read shows
    /// which runs, the oldest of them since `oldest_read`.
    pub(super) fn forget(&mut self, flushed: Moment, oldest_read: Moment) {
        if self.0.len() < 2 {
            return;
        }
        let durable = self.0.iter().filter(|version| version.is_durable(flushed));
        let Some(newest) = durable.map(|version| version.begun).max() else {
            return;
        };
        self.0
            .retain(|version| version.latest >= newest || version.is_visible(oldest_read));
    }

    /// Those that were not replaced at a moment: what a snapshot may hold that was asked for then.
    pub(super) fn visible_since(&self, begun: Moment) -> Versions {
        let visible = self.0.iter().filter(|version| version.is_visible(begun));
        Versions(visible.copied().collect())
    }

    /// Of those only such stay as were found; false if there is none.
    pub(super) fn narrow(&mut self, found: impl Fn(&Version) -> bool) -> bool {
        let some = self.0.iter().any(&found);
        if some {
            self.0.retain(found);
        }
        some
    }

    /// Between which moments it was one of these that the sector held.
    pub(super) fn span(&self) -> (Moment, Moment) {
        let begun = self.0.iter().map(|version| version.begun).min();
        let replaced = self.0.iter().map(|version| version.replaced).max();
        (
            begun.unwrap_or(Moment::START),
            replaced.unwrap_or(Moment::NEVER),
        )
    }

    /// The same as what was there from the beginning on, durably: one of these, nobody has looked which.
    pub(super) fn since_the_start(&self) -> Versions {
        let start = Moment::START;
        let rebased = self.0.iter().map(|version| Version {
            latest: start,
            certain: start,
            acknowledged: start,
            durable: true,
            ..Version::begun(version.sequence, version.content, start)
        });
        Versions(rebased.collect())
    }
}
