//! What a verb has to take away again however it ends: done once, at its end, after an error, or
//! when a signal comes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// A process that a signal ended exits with this plus the signal's number.
const EXIT_SIGNAL: i32 = 128;

type Task = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    tasks: Vec<Task>,
    /// What is said when a signal comes.
    advice: Option<String>,
}

type Shared = Arc<Mutex<State>>;

/// Tasks that are done when this is dropped, or before the process exits on SIGINT, SIGTERM or
/// SIGHUP; the last one first.
pub struct Cleanup {
    state: Shared,
    end: Option<oneshot::Sender<()>>,
    watcher: Option<JoinHandle<()>>,
}

impl Cleanup {
    pub fn watch() -> Result<Self> {
        let failed = |e: std::io::Error| Error::internal(format!("cannot wait for signals: {e}"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let state = Shared::default();
        let (end, ended) = oneshot::channel();
        let guard = runtime.enter();
        let [mut int, mut term, mut hangup] = [
            signal(SignalKind::interrupt()).map_err(failed)?,
            signal(SignalKind::terminate()).map_err(failed)?,
            signal(SignalKind::hangup()).map_err(failed)?,
        ];
        drop(guard);
        let shared = Arc::clone(&state);
        let watcher = std::thread::spawn(move || {
            let came = runtime.block_on(async {
                tokio::select! {
                    _ = ended => None,
                    _ = int.recv() => Some(SignalKind::interrupt()),
                    _ = term.recv() => Some(SignalKind::terminate()),
                    _ = hangup.recv() => Some(SignalKind::hangup()),
                }
            });
            if let Some(kind) = came {
                eprintln!("interrupted");
                run(&shared);
                if let Some(advice) = &lock(&shared).advice {
                    eprintln!("hint: {advice}");
                }
                std::process::exit(EXIT_SIGNAL + kind.as_raw_value());
            }
        });
        Ok(Self {
            state,
            end: Some(end),
            watcher: Some(watcher),
        })
    }

    pub fn add(&self, task: impl FnOnce() + Send + 'static) {
        lock(&self.state).tasks.push(Box::new(task));
    }

    /// What to do after a signal, as who waits for the verb's end will not be told by an error.
    pub fn advise(&self, advice: impl Into<String>) {
        lock(&self.state).advice = Some(advice.into());
    }

    /// They are not needed any more.
    pub fn forget(&self) {
        lock(&self.state).tasks.clear();
    }
}

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(state: &Shared) {
    // Held meanwhile: who comes second waits until all is done.
    let mut state = lock(state);
    while let Some(task) = state.tasks.pop() {
        task();
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        run(&self.state);
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_done_once_the_last_first_and_forgotten_ones_never() {
        let done = Arc::new(Mutex::new(Vec::new()));
        let task = |n: u32| {
            let done = Arc::clone(&done);
            move || done.lock().unwrap().push(n)
        };
        let cleanup = Cleanup::watch().unwrap();
        cleanup.add(task(0));
        cleanup.forget();
        cleanup.add(task(1));
        cleanup.add(task(2));
        drop(cleanup);
        assert_eq!(*done.lock().unwrap(), [2, 1]);
    }
}
