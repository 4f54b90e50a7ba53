//! Programs that nobody here wrote, found or fetched: QEMU's image tools with their iSCSI module, libiscsi's tools.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::process;

/// Where what was unpacked is kept, over runs: `$ATOLL_CACHE`, which the Makefile sets, else the user's cache.
pub fn cache_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("ATOLL_CACHE") {
        return dir.into();
    }
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or(home);
    base.unwrap_or_else(std::env::temp_dir).join("atoll")
}

/// `qemu-img` or `qemu-io`, able to open `iscsi://`.
pub fn qemu(program: &str) -> Command {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/qemu-with-iscsi.sh");
        let dir = process::succeed(Command::new(script).arg(cache_dir().join("qemu")));
        PathBuf::from(dir.trim_end())
    });
    process::command(dir.join(program))
}
