//! Failures of the metadata store and of the pools during a check: what is a finding, and what
//! ends the check.

use super::store::{Reader, Store, kinds, run_with};
use crate::error::{Error, ErrorKind, Result};
use crate::fsck::{FindingKind, MEMORY_LIMIT, Options, check_within};
use crate::meta::{MetaReader, Pair};
use atoll_backends::chaos::{Fault, Op};
use atoll_reactor::LocalFuture;
use atoll_reactor::sim::Sim;
use std::rc::Rc;

const DEEP: Options = Options { deep: true };

#[test]
fn a_deep_check_reports_the_object_that_cannot_be_read_and_reads_the_others() {
    let (report, reads) = run_with(&Store::healthy(), DEEP, MEMORY_LIMIT, |chaos| {
        chaos.fail_call(
            Op::Read,
            5,
            Fault::Error(atoll_backends::ErrorKind::Corrupt),
        );
    });
    let report = report.unwrap();
    assert_eq!(kinds(&report), [FindingKind::ObjectUnreadable]);
    assert_eq!(report.counts[&FindingKind::ObjectUnreadable], 1);
    assert_eq!(report.totals.read, 521);
    // Objects of 64 KiB are read at once.
    assert_eq!(reads, 521);
}

#[test]
fn a_check_that_is_not_deep_reads_no_object() {
    let (report, reads) = run_with(&Store::healthy(), Options::default(), MEMORY_LIMIT, |_| ());
    assert!(report.unwrap().is_clean());
    assert_eq!(reads, 0);
}

#[test]
fn a_pool_that_cannot_be_listed_ends_the_check() {
    let (report, _) = run_with(&Store::healthy(), DEEP, MEMORY_LIMIT, |chaos| {
        chaos.fail_call(
            Op::List,
            1,
            Fault::Error(atoll_backends::ErrorKind::Offline),
        );
    });
    assert_eq!(report.unwrap_err().kind(), ErrorKind::Offline);
}

/// Fails scans that begin in a table.
struct Failing {
    inner: Reader,
    table: u8,
    kind: ErrorKind,
}

impl MetaReader for Failing {
    fn get(&self, key: &[u8]) -> LocalFuture<'static, Result<Option<Vec<u8>>>> {
        self.inner.get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> LocalFuture<'static, Result<Vec<Pair>>> {
        if from.first() == Some(&self.table) {
            return LocalFuture::ready(Err(Error::new(self.kind, "a damaged block")));
        }
        self.inner.scan(from, to, limit)
    }
}

fn check_failing(table: u8, kind: ErrorKind) -> Result<crate::fsck::Report> {
    let inner = Reader(Rc::new(Store::healthy().sealed()));
    let reader = Failing { inner, table, kind };
    Sim::new(1, 1)
        .block_on(async move { check_within(&reader, &[], DEEP, &mut |_| (), MEMORY_LIMIT).await })
}

#[test]
fn a_part_of_the_store_that_cannot_be_read_is_a_finding_and_the_rest_is_checked() {
    for table in [0x50, 0x70] {
        let report = check_failing(table, ErrorKind::Corrupt).unwrap();
        assert!(
            kinds(&report).contains(&FindingKind::Unreadable),
            "{table:02x}"
        );
        assert!(!report.is_clean());
        assert!(report.counts.contains_key(&FindingKind::NotChecked));
        assert_eq!(report.totals.rows[&0x41], 3);
    }
}

#[test]
fn a_store_that_does_not_answer_ends_the_check() {
    assert_eq!(
        check_failing(0x20, ErrorKind::Io).unwrap_err().kind(),
        ErrorKind::Io
    );
}
