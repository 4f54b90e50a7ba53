//! A guest with the Linux kernel's own initiator, emulated by QEMU: made once out of Debian packages
//! (`tests/guest/build.sh`), booted with a job (`tests/guest/jobs/`), listened to and answered. It reaches the host's
//! 127.0.0.1 and nothing else. No root, no KVM.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};

use crate::process::{self, PATIENCE};

/// The guest's memory: the initramfs stays in it.
const MEMORY_MIB: u32 = 768;
/// An emulated kernel crashes while it boots, once in some hundred times: then it is booted again.
const BOOTS: u32 = 3;
/// Lines shown of what a guest said when something failed.
const SHOWN: usize = 80;

/// A guest that can be booted.
pub struct Image {
    dir: PathBuf,
}

impl Image {
    /// Made in `dir`, unless it is there; or why it cannot be made on this machine.
    pub fn make(dir: &Path) -> Result<Self, String> {
        let mut build = process::command(scripts().join("build.sh"));
        let output = process::run(build.arg(dir));
        if output.status.success() {
            return Ok(Image { dir: dir.into() });
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{}\n{said}", output.status))
    }

    /// Boots it, with a job. Files go to `scratch`. `arguments` are QEMU's, such as disks.
    pub fn boot(&self, job: &Job<'_>, scratch: &Path, arguments: &[&str]) -> Guest {
        let initrd = self.with_job(job, scratch);
        for boot in 1..=BOOTS {
            let mut guest = self.start(&initrd, scratch, arguments);
            match guest.next() {
                Some(Said::Up) => return guest,
                other => eprintln!("boot {boot} of {BOOTS}: {other:?}\n{}", guest.tail()),
            }
        }
        panic!("the guest does not boot");
    }

    /// The initramfs followed by a second archive, which has init, job and parameters.
    fn with_job(&self, job: &Job<'_>, scratch: &Path) -> PathBuf {
        let files = scratch.join("guest");
        let jobs = files.join("job");
        fs::create_dir_all(&jobs).expect("a directory");
        fs::copy(scripts().join("init"), files.join("init")).expect("init");
        for entry in fs::read_dir(scripts().join("jobs")).expect("jobs") {
            let path = entry.expect("a job").path();
            fs::copy(&path, jobs.join(path.file_name().expect("named"))).expect("a job");
        }
        fs::write(jobs.join("name"), format!("{}\n", job.name)).expect("write");
        fs::write(jobs.join("port"), format!("{}\n", job.port)).expect("write");
        fs::write(jobs.join("rounds"), format!("{}\n", job.rounds)).expect("write");
        let initrd = scratch.join("initrd");
        let mut archive = process::command("sh");
        archive.args([
            "-euc",
            r#"cd "$1"; { cat "$2/initramfs.cpio"; find . | "$2/host/busybox" cpio -o -H newc -R 0:0; } > "$3""#,
            "sh",
        ]);
        process::succeed(archive.arg(&files).arg(&self.dir).arg(&initrd));
        initrd
    }

    fn start(&self, initrd: &Path, scratch: &Path, arguments: &[&str]) -> Guest {
        let console = scratch.join("console");
        let mut qemu = process::command(self.dir.join("host/qemu"));
        // TCG throughout: the same everywhere, and /dev/kvm alone does not say that this kernel runs on it.
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-M", "q35"]);
        qemu.args(["-smp", "2", "-m", &MEMORY_MIB.to_string()]);
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
        qemu.args(["-display", "none"]);
        qemu.arg("-serial")
            .arg(format!("file:{}", console.display()));
        qemu.args(["-chardev", "stdio,id=job,signal=off"]);
        qemu.args(["-serial", "chardev:job"]);
        qemu.args(["-netdev", "user,id=net,ipv6=off"]);
        qemu.args(["-device", "virtio-net-pci,netdev=net,romfile="]);
        qemu.arg("-kernel").arg(self.dir.join("vmlinux"));
        qemu.arg("-initrd").arg(initrd);
        qemu.args([
            "-append",
            "console=ttyS0 panic=-1 quiet loglevel=5 mitigations=off",
        ]);
        qemu.args(arguments);
        let errors = File::create(scratch.join("qemu")).expect("a file");
        qemu.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors);
        let mut child = qemu.spawn().expect("setpriv");
        Guest {
            answers: child.stdin.take().expect("piped"),
            lines: listen(child.stdout.take().expect("piped")),
            child,
            said: Vec::new(),
            files: scratch.into(),
        }
    }
}

/// What a guest is to do.
pub struct Job<'a> {
    /// A file of `tests/guest/jobs`, without its ending.
    pub name: &'a str,
    /// The guest's 127.0.0.1 is the host's for this port.
    pub port: u16,
    /// How often it repeats what there is to repeat.
    pub rounds: u32,
}

/// What a job says to the host.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// The guest is up, the job begins.
    Up,
    /// It waits for an answer to these words.
    Ask(Vec<String>),
    /// The job ended with this status.
    Ended(i32),
}

/// A running guest; killed when dropped, and if that is because a test failed, what it said is shown.
pub struct Guest {
    child: Child,
    answers: ChildStdin,
    lines: Receiver<String>,
    said: Vec<String>,
    files: PathBuf,
}

impl Guest {
    /// What it says to the host next; nothing if it ended. Panics when it has no line to say for too long.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would hold it borrowed"
    )]
    pub fn next(&mut self) -> Option<Said> {
        loop {
            let line = match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("nothing for {PATIENCE:?}"),
            };
            self.said.push(line.clone());
            let mut words = line.strip_prefix('@').unwrap_or("").split_whitespace();
            match words.next() {
                Some("up") => return Some(Said::Up),
                Some("ask") => return Some(Said::Ask(words.map(Into::into).collect())),
                Some("ended") => {
                    let status = words.next().and_then(|status| status.parse().ok());
                    return Some(Said::Ended(status.expect("a status")));
                }
                _ => {}
            }
        }
    }

    /// Answers what it asked last.
    pub fn answer(&mut self, answer: &str) {
        writeln!(self.answers, "{answer}").expect("a guest that listens");
    }

    /// Waits for QEMU's end, after the job's.
    pub fn wait(mut self) {
        let status = process::wait(&mut self.child, "a guest that powers off");
        assert!(status.success(), "QEMU: {status}");
    }

    /// All that the job said.
    pub fn said(&self) -> &[String] {
        &self.said
    }

    fn tail(&self) -> String {
        let file = |name| fs::read_to_string(self.files.join(name)).unwrap_or_default();
        let (console, qemu) = (file("console"), file("qemu"));
        format!(
            "the job's last lines:\n{}\nthe console's:\n{}\nQEMU's:\n{}",
            last(self.said.iter().map(String::as_str)),
            last(console.lines()),
            last(qemu.lines())
        )
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
    }
}

fn last<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let lines: Vec<&str> = lines.collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest")
}

/// The lines on the guest's second serial port, as they come, until it ends.
fn listen(port: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(port).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
