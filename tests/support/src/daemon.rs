//! `atoll serve` under test: started on free ports, asked through its CLI, stopped, killed and started again.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;

use serde_json::Value;

use crate::process::{self, PATIENCE, Signal};

/// Names of all targets begin so.
pub const IQN: &str = "iqn.2026-11.io.atoll";

/// The binary under test: `$ATOLL_BIN`, else the one that cargo built with the tests.
pub fn binary() -> PathBuf {
    if let Some(path) =
        std::env::var_os("ATOLL_BIN").or_else(|| std::env::var_os("CARGO_BIN_EXE_atoll"))
    {
        return path.into();
    }
    let test = std::env::current_exe().expect("the test's own path");
    let path = test
        .parent()
        .and_then(Path::parent)
        .map(|dir| dir.join("atoll"));
    path.filter(|path| path.exists())
        .expect("no `atoll` beside the tests: `cargo build` it, or set ATOLL_BIN")
}

/// How to start a daemon.
#[derive(Clone)]
pub struct Options {
    pub data: PathBuf,
    /// Where its log goes, over restarts.
    pub log: PathBuf,
    /// Where it serves iSCSI.
    pub iscsi: String,
    /// Further arguments of `atoll serve`.
    pub args: Vec<String>,
    /// Added to its environment.
    pub environment: Vec<(String, String)>,
}

impl Options {
    /// With everything in `dir`: `dir/data` and `dir/log`.
    pub fn in_dir(dir: &Path) -> Self {
        Options {
            data: dir.join("data"),
            log: dir.join("log"),
            iscsi: "127.0.0.1:0".into(),
            args: Vec::new(),
            environment: Vec::new(),
        }
    }

    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn command(&self) -> Command {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.unwrap_or_else(|e| panic!("{}: {e}", self.log.display()));
        let mut command = process::command(binary());
        command
            .args(["serve", "--data"])
            .arg(&self.data)
            .args(["--iscsi", &self.iscsi])
            .args(&self.args)
            .envs(self.environment.iter().cloned());
        if !self.args.iter().any(|arg| arg == "--config") {
            // How full the machine's disk is must not show in what initiators are told.
            let config = self.log.with_extension("toml");
            fs::write(&config, "[iscsi]\nlow_space = 0\n")
                .unwrap_or_else(|e| panic!("{}: {e}", config.display()));
            command.arg("--config").arg(config);
        }
        // What the environment of who runs the tests says must not lead to another daemon.
        command.env_remove("ATOLL_DATA").env_remove("ATOLL_ADMIN");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        command
    }

    /// Starts a daemon that is expected to refuse; returns how it ended and all that it wrote.
    pub fn start_refused(&self) -> (ExitStatus, String) {
        let mut child = self.command().spawn().expect("setpriv");
        let status = process::wait(&mut child, "a daemon that should refuse to start");
        let mut said = String::new();
        if let Some(mut stdout) = child.stdout.take() {
            let _ = stdout.read_to_string(&mut said);
        }
        (
            status,
            said + &fs::read_to_string(&self.log).unwrap_or_default(),
        )
    }
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    options: Options,
    child: Child,
    iscsi: SocketAddr,
    admin: PathBuf,
}

impl Daemon {
    /// Starts it and waits for its ready line. Panics, with its log, when there is none.
    pub fn start(options: Options) -> Self {
        let mut child = options.command().spawn().expect("setpriv");
        let line = ready_line(child.stdout.take().expect("piped"));
        let Some((iscsi, admin)) = line.as_deref().and_then(parse_ready) else {
            let _ = child.kill();
            let status = child.wait();
            panic!(
                "no ready line but {line:?}; {status:?}\n{}",
                tail(&options.log)
            );
        };
        Daemon {
            options,
            child,
            iscsi,
            admin,
        }
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The portal that initiators connect to.
    pub fn iscsi(&self) -> SocketAddr {
        self.iscsi
    }

    /// `iscsi://...` of LUN 0 of an export, as libiscsi and QEMU understand it.
    pub fn url(&self, export: &str) -> String {
        format!("iscsi://{}/{IQN}:{export}/0", self.iscsi)
    }

    /// An `atoll` command that talks to this daemon.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = process::command(binary());
        command
            .args(args)
            .env("ATOLL_ADMIN", &self.admin)
            .stdin(Stdio::null());
        command
    }

    /// Runs an `atoll` command that has to succeed; its stdout.
    pub fn run(&self, args: &[&str]) -> String {
        process::succeed(&mut self.command(args))
    }

    /// The same with `--json`.
    pub fn json(&self, args: &[&str]) -> Value {
        let text = process::succeed(self.command(args).arg("--json"));
        serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("atoll {args:?} --json: {e}:\n{text}"))
    }

    /// Runs an `atoll` command that has to be refused; what it said on stderr.
    pub fn refused(&self, args: &[&str]) -> String {
        let output = process::run(&mut self.command(args));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success(),
            "atoll {args:?} was not refused: {output:?}"
        );
        assert!(
            !said.trim().is_empty(),
            "atoll {args:?} failed without a word"
        );
        assert!(!said.contains("panicked"), "atoll {args:?}: {said}");
        said
    }

    /// Creates a volume and exports it over iSCSI.
    pub fn export_new(&self, name: &str, size: &str, more: &[&str]) {
        self.run(&[&["volume", "create", name, "--size", size], more].concat());
        self.run(&["export", "add", name, "--iscsi"]);
    }

    /// As a crash of the process: SIGKILL.
    pub fn kill(mut self) -> Options {
        process::send(&self.child, Signal::Kill);
        process::wait(&mut self.child, "a killed daemon");
        self.options.clone()
    }

    pub fn signal(&self, signal: Signal) {
        process::send(&self.child, signal);
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(mut self) -> (Options, ExitStatus) {
        process::send(&self.child, Signal::Term);
        let status = process::wait(&mut self.child, "a daemon after SIGTERM");
        (self.options.clone(), status)
    }

    /// Waits for its end, whatever brings it about.
    pub fn wait(mut self) -> (Options, ExitStatus) {
        let status = process::wait(&mut self.child, "the daemon");
        (self.options.clone(), status)
    }

    /// A request to the admin API itself, for what the CLI would be too slow for; panics unless it succeeds.
    pub fn post(&self, path: &str, body: &Value) {
        let mut socket = UnixStream::connect(&self.admin)
            .unwrap_or_else(|e| panic!("{}: {e}", self.admin.display()));
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: atoll\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut answer = String::new();
        socket
            .write_all(request.as_bytes())
            .and_then(|()| socket.read_to_string(&mut answer))
            .unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(answer.starts_with("HTTP/1.1 20"), "{path} {body}: {answer}");
    }

    /// CPU time that it has used, user and system, in clock ticks.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        // proc(5): fields 14 and 15, counted from behind the program's name, which is field 2.
        let fields = stat
            .rsplit_once(") ")
            .expect("a name")
            .1
            .split(' ')
            .skip(14 - 3)
            .take(2);
        fields
            .map(|ticks| ticks.parse::<u64>().expect("a number"))
            .sum()
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("VmRSS");
        line.trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number")
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid()));
        open.expect("it runs").count()
    }

    /// The sockets among them.
    pub fn sockets(&self) -> usize {
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs");
        let is_socket = |entry: &fs::DirEntry| {
            let to = fs::read_link(entry.path());
            to.is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
        };
        open.flatten().filter(is_socket).count()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let ended = self.child.try_wait().ok().flatten();
        if ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!(
                "the daemon ({}), its log ends:\n{}",
                how(ended),
                tail(&self.options.log)
            );
        }
    }
}

/// Checks the data directory of a stopped daemon; panics unless it is clean.
pub fn fsck(data: &Path) {
    process::succeed(
        process::command(binary())
            .args(["fsck", "--data"])
            .arg(data),
    );
}

fn how(ended: Option<ExitStatus>) -> String {
    ended.map_or_else(
        || "was running".into(),
        |status| format!("had ended: {status}"),
    )
}

/// The first line on stdout that begins with `ready`; keeps reading afterwards, so that the pipe never fills.
fn ready_line(stdout: ChildStdout) -> Option<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if line.starts_with("ready") {
                let _ = sender.send(line);
            }
        }
    });
    receiver.recv_timeout(PATIENCE).ok()
}

/// `ready iscsi=ADDR:PORT admin=PATH`, in any order and with anything else between.
fn parse_ready(line: &str) -> Option<(SocketAddr, PathBuf)> {
    let value = |key: &str| {
        line.split(' ')
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    };
    Some((value("iscsi")?.parse().ok()?, value("admin")?.into()))
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
