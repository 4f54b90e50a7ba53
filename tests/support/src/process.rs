//! Child processes that die with the test that started them, and what they say.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output};
use std::time::{Duration, Instant};

/// How long anything may take that is expected to happen. Not a measure of speed: a bound on a hang.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A command that is killed when the thread that spawns it ends, however that happens.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Signals that tests send.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    Kill,
    Term,
    Int,
}

/// Sends a signal to a child that has not been waited for.
pub fn send(child: &Child, signal: Signal) {
    let number = match signal {
        Signal::Kill => libc::SIGKILL,
        Signal::Term => libc::SIGTERM,
        Signal::Int => libc::SIGINT,
    };
    let pid = libc::pid_t::try_from(child.id()).expect("a pid");
    // SAFETY: plain values; the child has not been reaped (we hold it), so the pid is still its.
    #[allow(unsafe_code, reason = "std sends only SIGKILL")]
    let sent = unsafe { libc::kill(pid, number) };
    assert_eq!(
        sent,
        0,
        "kill({pid}, {signal:?}): {}",
        io::Error::last_os_error()
    );
}

/// A command and all that it starts, killed together when this is dropped.
pub struct Group(pub Child);

impl Group {
    pub fn spawn(command: &mut Command) -> Self {
        Group(
            command
                .process_group(0)
                .spawn()
                .unwrap_or_else(|error| panic!("{command:?}: {error}")),
        )
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Ok(pid) = libc::pid_t::try_from(self.0.id()) {
            // SAFETY: plain values. The group is ours: its leader has not been waited for, or what it started is
            // still in it, and an empty group is only an error.
            #[allow(unsafe_code, reason = "std knows no groups")]
            unsafe {
                libc::kill(-pid, libc::SIGKILL)
            };
        }
        let _ = self.0.wait();
    }
}

/// Waits for the end of a child; panics when it takes longer than [`PATIENCE`].
pub fn wait(child: &mut Child, what: &str) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status,
            Ok(None) if Instant::now() > deadline => {
                let _ = child.kill();
                panic!("{what} did not end within {PATIENCE:?}");
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command that has to succeed, and returns its stdout.
pub fn succeed(command: &mut Command) -> String {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
