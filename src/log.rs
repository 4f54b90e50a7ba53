//! The daemon's log: lines on stderr, written by a thread of its own. Whoever logs, a reactor for
//! one, never waits for the terminal or the pipe: when too many lines wait, new ones are counted
//! instead (R1, R3).

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::error::{Error, Result};

/// Lines that may wait to be written.
const MAX_WAITING: usize = 1024;
/// How long the end of the daemon waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// Everything before this is to be written, then this is answered by being dropped.
    Flush(SyncSender<()>),
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What a level or a list of directives lets through. A word alone is a level: as the name of a target, which it would be
/// otherwise, a mistyped level would silence everything else, errors too.
pub fn filter(level: &str) -> Result<EnvFilter> {
    let refused = |why: String| {
        let hint = "one of error, warn, info, debug, trace, off; or directives such as info,atoll_targets=debug";
        Error::invalid(format!("log.level: {level:?}: {why}")).hint(hint)
    };
    for word in level.split(',').map(str::trim) {
        let is_level = LEVELS.iter().any(|known| known.eq_ignore_ascii_case(word));
        if !is_level && !word.contains(['=', '[']) {
            return Err(refused(format!("{word:?} is no level")));
        }
    }
    EnvFilter::try_new(level).map_err(|e| refused(e.to_string()))
}

/// Starts logging; `level` is a level or a list of directives. The last lines are written when the
/// answer is dropped.
pub fn start(level: &str) -> Result<Flusher> {
    let filter = filter(level)?;
    let queue = Queue::start(io::stderr()).map_err(|e| Error::internal(format!("no log: {e}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        // They would be written to the very stream that fails, with a panic.
        .log_internal_errors(false)
        .with_writer(queue.clone())
        .try_init()
        .map_err(|e| Error::internal(format!("no log: {e}")))?;
    Ok(Flusher(queue))
}

/// Writes what waits when it is dropped.
pub struct Flusher(Queue);

impl Drop for Flusher {
    fn drop(&mut self) {
        let (done, wait) = sync_channel(0);
        if self.0.sender.try_send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

/// The way to the thread that writes.
#[derive(Clone)]
struct Queue {
    sender: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl Queue {
    fn start(stream: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, messages) = sync_channel(MAX_WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("atoll-log".to_owned())
            .spawn(move || write_all(&messages, &counted, stream))?;
        Ok(Self { sender, lost })
    }
}

fn write_all(messages: &Receiver<Message>, lost: &AtomicU64, mut stream: impl Write) {
    for message in messages {
        // A stream that fails is tried again with the next line: there is nobody to tell.
        match message {
            Message::Line(line) => {
                let _ = stream.write_all(&line);
            }
            Message::Flush(done) => drop(done),
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(
                stream,
                "{lost} lines of the log were lost: they came too fast"
            );
        }
    }
}

/// One line being written.
pub struct Line {
    bytes: Vec<u8>,
    queue: Queue,
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line {
            bytes: Vec::new(),
            queue: self.clone(),
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = Message::Line(std::mem::take(&mut self.bytes));
        if let Err(TrySendError::Full(_)) = self.queue.sender.try_send(line) {
            self.queue.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Hands over what is written, and waits for a permit before each write.
    struct Gated {
        permits: mpsc::Receiver<()>,
        written: mpsc::Sender<String>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Without a gatekeeper everything passes.
            let _ = self.permits.recv();
            let _ = self
                .written
                .send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_to_a_stuck_stream_does_not_wait_and_the_loss_is_told() {
        let (permit, permits) = mpsc::channel();
        let (written, lines) = mpsc::channel();
        let queue = Queue::start(Gated { permits, written }).unwrap();
        let sent = 2 * MAX_WAITING;
        for i in 0..sent {
            write!(queue.make_writer(), "line {i}").unwrap();
        }
        drop(permit);
        drop(Flusher(queue));
        let written: Vec<String> = lines.iter().collect();
        let whole = written
            .iter()
            .filter(|line| line.starts_with("line "))
            .count();
        assert_eq!(written[0], "line 0");
        // One line was with the stream while the others waited.
        assert!(
            (MAX_WAITING..=MAX_WAITING + 1).contains(&whole),
            "{whole} lines"
        );
        let rest = written.concat();
        assert!(
            rest.contains(&format!("{} lines of the log were lost", sent - whole)),
            "{rest}"
        );
    }

    #[test]
    fn the_last_lines_are_written_before_the_end() {
        let (permit, permits) = mpsc::channel::<()>();
        drop(permit);
        let (written, lines) = mpsc::channel();
        let queue = Queue::start(Gated { permits, written }).unwrap();
        write!(queue.make_writer(), "last").unwrap();
        drop(Flusher(queue));
        assert_eq!(lines.try_recv().unwrap(), "last");
    }
}
