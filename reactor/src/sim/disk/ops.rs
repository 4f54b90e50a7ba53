//! Running operations of the simulated disk: each takes effect at some point between its begin
//! and its end, belongs to the disk meanwhile, and answers to a slot that its future looks at.

use super::inode::OpenFile;
use super::tree::Tree;
use crate::buf::SharedBuf;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// How a crash cuts a write: between multiples of `unit` bytes.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub(super) unit: usize,
}

/// Where an operation's result waits for its future.
pub(super) struct Slot<T> {
    result: Cell<Option<T>>,
    waker: RefCell<Option<Waker>>,
}

impl<T> Slot<T> {
    pub(super) fn new() -> Rc<Slot<T>> {
        Rc::new(Slot {
            result: Cell::new(None),
            waker: RefCell::new(None),
        })
    }

    fn put(&self, result: T) -> Wake {
        self.result.set(Some(result));
        Wake(self.waker.take())
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<T> {
        match self.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// To be woken once the disk is not borrowed any more.
#[must_use]
pub(super) struct Wake(Option<Waker>);

impl Wake {
    pub(super) fn wake(self) {
        if let Some(waker) = self.0 {
            waker.wake();
        }
    }
}

pub(super) trait Work {
    /// It shall fail with this `errno`.
    fn fail(&mut self, code: i32);
    /// Others see it from here on, perhaps in part.
    fn take_effect(&mut self, tree: &mut Tree, rng: &mut ChaCha8Rng);
    /// It is complete.
    fn end(self: Box<Self>, tree: &mut Tree, rng: &mut ChaCha8Rng) -> Wake;
    /// The machine stops in its middle.
    fn cut(&mut self, cut: Cut, tree: &mut Tree, rng: &mut ChaCha8Rng);
}

/// A write of content.
pub(super) struct Write {
    pub(super) file: Rc<OpenFile>,
    pub(super) data: SharedBuf,
    pub(super) offset: u64,
    pub(super) slot: Rc<Slot<io::Result<()>>>,
    pub(super) failure: Option<i32>,
}

impl Write {
    fn some(&self, unit: usize, rng: &mut ChaCha8Rng) -> io::Result<()> {
        let inode = &self.file.inode;
        let mut content = inode.content()?.borrow_mut();
        let (offset, space) = (self.offset, inode.space());
        // None, nearly all, about half.
        let share = [0.0, 0.9, 0.5][rng.random_range(0..3)];
        content.write_pieces(offset, &self.data, unit, space, rng, |rng| {
            rng.random_bool(share)
        })
    }

    fn whole(&self, rng: &mut ChaCha8Rng) -> io::Result<()> {
        let inode = &self.file.inode;
        let mut content = inode.content()?.borrow_mut();
        content.write(self.offset, &self.data, inode.space(), rng)
    }
}

impl Work for Write {
    fn fail(&mut self, code: i32) {
        self.failure = Some(code);
    }

    fn take_effect(&mut self, _tree: &mut Tree, rng: &mut ChaCha8Rng) {
        // A lack of space shows at the end.
        let _ = self.some(super::content::BLOCK, rng);
    }

    fn end(self: Box<Self>, _tree: &mut Tree, rng: &mut ChaCha8Rng) -> Wake {
        let result = match self.failure {
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None => self.whole(rng),
        };
        self.slot.put(result)
    }

    fn cut(&mut self, cut: Cut, _tree: &mut Tree, rng: &mut ChaCha8Rng) {
        // What a full disk refuses is not written; nobody hears of it any more.
        let _ = match rng.random_range(0..4) {
            0 => self.whole(rng),
            _ => self.some(cut.unit, rng),
        };
    }
}

/// What a [`Call`] does to the disk, once; the second argument is the failure it shall end with.
pub(super) type Effect<T> = Box<dyn FnOnce(&mut Tree, &mut ChaCha8Rng) -> io::Result<T>>;
/// What is left of an operation that fails.
pub(super) type Failing = Box<dyn FnOnce(&mut Tree, &mut ChaCha8Rng)>;

/// Any other operation: it happens at one point.
pub(super) struct Call<T> {
    pub(super) effect: Option<Effect<T>>,
    pub(super) on_failure: Option<Failing>,
    /// Whether a crash before the point may still apply it.
    pub(super) changes: bool,
    pub(super) done: Option<io::Result<T>>,
    pub(super) failure: Option<i32>,
    pub(super) slot: Rc<Slot<io::Result<T>>>,
}

impl<T> Work for Call<T> {
    fn fail(&mut self, code: i32) {
        self.failure = Some(code);
    }

    fn take_effect(&mut self, tree: &mut Tree, rng: &mut ChaCha8Rng) {
        let Some(effect) = self.effect.take() else {
            return;
        };
        self.done = Some(match self.failure {
            Some(code) => {
                drop(effect);
                if let Some(on_failure) = self.on_failure.take() {
                    on_failure(tree, rng);
                }
                Err(io::Error::from_raw_os_error(code))
            }
            None => effect(tree, rng),
        });
    }

    fn end(mut self: Box<Self>, tree: &mut Tree, rng: &mut ChaCha8Rng) -> Wake {
        self.take_effect(tree, rng);
        match self.done.take() {
            Some(done) => self.slot.put(done),
            None => Wake(None),
        }
    }

    fn cut(&mut self, _cut: Cut, tree: &mut Tree, rng: &mut ChaCha8Rng) {
        if self.changes && rng.random_bool(0.5) {
            self.take_effect(tree, rng);
        }
    }
}
