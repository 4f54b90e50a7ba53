//! An allocator that counts each thread's calls, and can tell where they come from. For tests of other crates, too.
#![allow(unsafe_code, reason = "a global allocator is unsafe to write")]
#![allow(dead_code, reason = "each test binary uses a part")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// Calls that are told of one thread.
const MAX_TOLD: usize = 256;
/// Callers that are told of a call.
const CALLERS: usize = 6;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static TELLING: Cell<bool> = const { Cell::new(false) };
    static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls of the heap by this thread so far.
pub fn calls() -> u64 {
    CALLS.get()
}

/// From now on this thread's calls are told by where they come from; slow.
pub fn tell() {
    TELLING.set(true);
}

/// The ways that led to calls since [`tell`], each with its number.
pub fn told() -> Vec<String> {
    TELLING.set(false);
    let mut ways = BTreeMap::new();
    for way in TOLD.take() {
        *ways.entry(callers(&way)).or_insert(0) += 1;
    }
    let tell = |(way, count)| format!("{count} times{way}");
    ways.into_iter().map(tell).collect()
}

/// The innermost callers in our own code.
fn callers(way: &str) -> String {
    let places = way
        .lines()
        .filter_map(|line| line.trim().strip_prefix("at "));
    let foreign = ["/rustc/", ".cargo/", "/counting.rs"];
    let ours = places.filter(|place| !foreign.iter().any(|part| place.contains(part)));
    ours.take(CALLERS)
        .map(|place| format!("\n    {place}"))
        .collect()
}

fn count() {
    // A thread that ends has no counter any more; nobody reads it then.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
    if TELLING.try_with(|telling| telling.replace(false)) == Ok(true) {
        // What this allocates itself is not told.
        let way = Backtrace::force_capture().to_string();
        let more = TOLD.with_borrow_mut(|told| {
            told.push(way);
            told.len() < MAX_TOLD
        });
        TELLING.set(more);
    }
}

// SAFETY: all is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's contract.
        unsafe { System.realloc(block, layout, size) }
    }
}
