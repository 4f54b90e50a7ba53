//! Directories for tests that are gone afterwards, also after a test that was killed: each is named after its process,
//! and the next one to start removes what dead processes left, mounts included.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::powerfs::detach_lazily;

static SWEEP: Once = Once::new();
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A directory that is removed when this is dropped.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// On the file system of `$TMPDIR`, else of `/tmp`: it has to know `O_DIRECT`.
    #[expect(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        let root = std::env::temp_dir().join("atoll-e2e");
        fs::create_dir_all(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
        SWEEP.call_once(|| sweep(&root));
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!(
            "{}-{}-{count}",
            process::id(),
            start_time(process::id()).unwrap_or(0)
        ));
        fs::create_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Scratch { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A new directory inside.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("ATOLL_KEEP").is_some() {
            eprintln!("kept: {}", self.path.display());
            return;
        }
        remove(&self.path);
    }
}

fn sweep(root: &Path) {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    for entry in entries {
        if owner_is_dead(&entry.file_name().to_string_lossy()) {
            remove(&entry.path());
        }
    }
}

fn owner_is_dead(name: &str) -> bool {
    let mut parts = name.split('-').map(|part| part.parse::<u64>().ok());
    let (Some(Some(pid)), Some(Some(started))) = (parts.next(), parts.next()) else {
        return false;
    };
    u32::try_from(pid).ok().and_then(start_time) != Some(started)
}

fn remove(path: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mountpoint in mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(Path::new)
    {
        if mountpoint.starts_with(path) {
            detach_lazily(mountpoint);
        }
    }
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("left behind: {}: {error}", path.display());
    }
}

/// When a process started, in clock ticks since boot; with its id it names a process for good.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The fields after the program's name, which may itself contain anything; this is proc(5)'s field 22.
    stat.rsplit_once(") ")?
        .1
        .split(' ')
        .nth(22 - 3)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_a_dead_process_is_swept_and_one_of_a_living_is_not() {
        let scratch = Scratch::new();
        let mine = scratch
            .path()
            .file_name()
            .expect("named")
            .to_string_lossy()
            .into_owned();
        assert!(!owner_is_dead(&mine));
        assert!(
            owner_is_dead(&format!("{}-0-0", process::id())),
            "another start time is another process"
        );
        assert!(!owner_is_dead("not-ours"));
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }
}
