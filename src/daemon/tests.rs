//! The daemon's frame around an engine of memory: ready line, stop, failure, lock.

use super::*;
use crate::admin::client::Client;
use crate::admin::fake::FakeControl;
use crate::api::Status;

const SIGTERM: u8 = 15;
const SIGINT: u8 = 2;

/// Writes down the ready line and then calls a function with it.
struct Announced<F: FnOnce(&str)>(Vec<u8>, Option<F>);

impl<F: FnOnce(&str)> Write for Announced<F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let call = self.1.take().expect("flushed once");
        call(std::str::from_utf8(&self.0).unwrap());
        Ok(())
    }
}

/// Runs the frame on `control` with these signals; gives its answer and the engine. `ready` is
/// called with the ready line, before the first signal.
fn run_frame(
    control: FakeControl,
    signals: &'static [u8],
    json: bool,
    ready: impl FnOnce(&str),
) -> (Result<u8>, Arc<FakeControl>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let socket = AdminSocket::bind(&path).unwrap();
    let control = Arc::new(control);
    let (sender, requests) = StopRequests::channel().unwrap();
    let send = |line: &str| {
        ready(line);
        signals
            .iter()
            .for_each(|number| sender.try_send(*number).unwrap());
    };
    let engine = Arc::clone(&control) as Arc<dyn Control>;
    let ended = run(
        socket,
        requests,
        engine,
        json,
        &mut Announced(Vec::new(), Some(send)),
    );
    assert!(!path.exists(), "the socket is gone");
    (ended, control)
}

#[test]
fn the_first_signal_stops_the_engine_cleanly() {
    for signal in [&[SIGTERM], &[SIGINT]] {
        let (ended, control) = run_frame(FakeControl::new(), signal, false, |_| ());
        assert_eq!(ended.unwrap(), 0);
        assert!(control.is_stopped());
    }
}

#[test]
fn the_second_signal_ends_a_stop_that_hangs() {
    for (signals, code) in [(&[SIGTERM, SIGTERM], 143), (&[SIGTERM, SIGINT], 130)] {
        let mut fake = FakeControl::new();
        fake.hang_at_shutdown = true;
        let (ended, control) = run_frame(fake, signals, false, |_| ());
        assert_eq!(ended.unwrap(), code);
        assert!(!control.is_stopped());
    }
}

#[test]
fn an_engine_that_fails_ends_the_daemon_with_its_error_after_the_ready_line() {
    let mut fake = FakeControl::new();
    fake.failure = Some(Error::internal("reactor 0 has died"));
    let (ended, control) = run_frame(fake, &[], false, |line| {
        let (iscsi, admin) = line.trim_end().split_once(" admin=").unwrap();
        assert_eq!(iscsi, "ready iscsi=127.0.0.1:3260");
        assert!(line.ends_with('\n'));
        // Ready means served.
        Client::new(admin.into())
            .get::<Status>("/v1/status")
            .unwrap();
    });
    assert_eq!(ended.unwrap_err().message, "reactor 0 has died");
    assert!(control.is_stopped());
}

#[test]
fn the_ready_line_has_a_json_form() {
    let mut fake = FakeControl::new();
    fake.failure = Some(Error::internal("x"));
    let (ended, _) = run_frame(fake, &[], true, |line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["ready"]["iscsi"], "127.0.0.1:3260");
    });
    ended.unwrap_err();
}

#[test]
fn a_data_directory_is_private_and_has_one_owner_at_a_time() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a/b");
    assert_eq!(
        DataLock::existing(&data).unwrap_err().kind,
        ErrorKind::NotFound
    );
    let lock = DataLock::create(&data).unwrap();
    assert_eq!(
        fs::metadata(&data).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let error = DataLock::create(&data).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InUse);
    assert!(
        error
            .message
            .contains(&format!("process {}", std::process::id())),
        "{error}"
    );
    drop(lock);
    DataLock::existing(&data).unwrap();

    fs::write(dir.path().join("file"), "").unwrap();
    assert_eq!(
        DataLock::existing(&dir.path().join("file"))
            .unwrap_err()
            .kind,
        ErrorKind::Invalid
    );
}
