//! The Unix socket of the admin API: made with its permissions in place, a stale one replaced, one
//! that somebody listens on left alone, and paths longer than `sun_path` allows.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind as IoKind};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Bytes of `sun_path` without its final zero: the longest path that `bind` and `connect` take.
pub const MAX_SUN_PATH: usize = 107;

const SOCKET_MODE: u32 = 0o600;
const PRIVATE_DIR_MODE: u32 = 0o700;

/// A socket that listens, and its place in the file system, given up when this is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    /// Device and inode: what is found at `path` later may be somebody else's.
    identity: (u64, u64),
    listener: Option<UnixListener>,
}

impl AdminSocket {
    /// Listens at `path`. `InUse` if somebody does already; `Refused` if something that is no
    /// socket is there.
    pub fn bind(path: &Path) -> Result<Self> {
        let failed =
            |e: &io::Error| Error::internal(format!("admin socket {}: {e}", path.display()));
        let Some(name) = path.file_name() else {
            return Err(Error::invalid(format!(
                "admin socket {}: no file name",
                path.display()
            )));
        };
        check_replaceable(path)?;
        let dir = parent_of(path);
        // Nobody else can enter the private directory, so that the socket is never there with
        // the permissions that the umask leaves.
        let mut private_name = std::ffi::OsString::from(format!(".{}.", std::process::id()));
        private_name.push(name);
        let private = dir.join(private_name);
        let made = DirBuilder::new().mode(PRIVATE_DIR_MODE).create(&private);
        match made {
            Err(e) if e.kind() == IoKind::NotFound => {
                return Err(Error::not_found(format!(
                    "admin socket {}: no directory {}",
                    path.display(),
                    dir.display()
                ))
                .hint("create the directory, or choose another place with --admin"));
            }
            Err(e) if e.kind() != IoKind::AlreadyExists => return Err(failed(&e)),
            _ => {}
        }
        let bound = bind_through(&private, path);
        let _ = fs::remove_dir_all(&private);
        let (listener, identity) = bound.map_err(|e| failed(&e))?;
        Ok(Self {
            path: path.to_owned(),
            identity,
            listener: Some(listener),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The listening end, nonblocking; none the second time.
    pub fn take_listener(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|m| identity(&m) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds in the directory `private`, then moves the socket to `path` in one step.
fn bind_through(private: &Path, path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let inside = private.join("s");
    // Left behind by a daemon of the same process id that was killed here.
    let _ = fs::remove_file(&inside);
    let listener = Reachable::new(&inside)?.with(|path| UnixListener::bind(path))?;
    fs::set_permissions(&inside, Permissions::from_mode(SOCKET_MODE))?;
    listener.set_nonblocking(true)?;
    let identity = identity(&fs::symlink_metadata(&inside)?);
    fs::rename(&inside, path)?;
    Ok((listener, identity))
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Only a socket that nobody listens on may be replaced.
fn check_replaceable(path: &Path) -> Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == IoKind::NotFound => return Ok(()),
        Err(e) => {
            return Err(Error::internal(format!(
                "admin socket {}: {e}",
                path.display()
            )));
        }
        Ok(found) => found,
    };
    if !found.file_type().is_socket() {
        return Err(Error::refused(format!(
            "admin socket {}: this is no socket",
            path.display()
        ))
        .hint("choose another place with --admin, or move the file away"));
    }
    match Reachable::new(path)
        .and_then(|reachable| reachable.with(|path| UnixStream::connect(path)))
    {
        Err(e) if matches!(e.kind(), IoKind::ConnectionRefused | IoKind::NotFound) => Ok(()),
        Err(e) => Err(Error::internal(format!(
            "admin socket {}: {e}",
            path.display()
        ))),
        Ok(_) => Err(Error::in_use(format!(
            "admin socket {}: a daemon listens on it",
            path.display()
        ))
        .hint("choose another place with --admin, or stop that daemon")),
    }
}

/// Connects to the daemon that listens at `path`.
pub fn connect(path: &Path) -> Result<UnixStream> {
    let connected =
        Reachable::new(path).and_then(|reachable| reachable.with(|path| UnixStream::connect(path)));
    connected.map_err(|e| {
        let why = match e.kind() {
            IoKind::NotFound => "there is no such socket",
            IoKind::ConnectionRefused => "the socket is there, but nobody listens on it",
            IoKind::PermissionDenied => {
                return Error::unavailable(format!("no access to the admin socket {}", path.display()))
                    .hint("run this as the user that the daemon runs as");
            }
            _ => return Error::unavailable(format!("admin socket {}: {e}", path.display())),
        };
        Error::unavailable(format!("no daemon listens at {}: {why}", path.display())).hint(
            "start one with `atoll serve`, or say where it listens with --admin SOCKET or --data DIR",
        )
    })
}

fn parent_of(path: &Path) -> &Path {
    path.parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// A path that fits `sun_path`: itself, or a way through an open directory.
struct Reachable {
    path: PathBuf,
    /// Keeps the directory's descriptor, which `path` names, open.
    _dir: Option<File>,
}

impl Reachable {
    fn new(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_bytes().len() <= MAX_SUN_PATH {
            return Ok(Self {
                path: path.to_owned(),
                _dir: None,
            });
        }
        let too_long = || {
            io::Error::new(
                IoKind::InvalidInput,
                "the name is too long for a Unix socket",
            )
        };
        let name = path.file_name().ok_or_else(too_long)?;
        let dir = File::open(parent_of(path))?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
        if short.as_os_str().as_bytes().len() > MAX_SUN_PATH {
            return Err(too_long());
        }
        Ok(Self {
            path: short,
            _dir: Some(dir),
        })
    }

    fn with<T>(&self, call: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        call(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_socket_is_private_leaves_nothing_else_and_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = AdminSocket::bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        connect(&path).unwrap();
        drop(socket);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(connect(&path).unwrap_err().kind, ErrorKind::Unavailable);
        let socket = AdminSocket::bind(&path).unwrap();
        assert_eq!(AdminSocket::bind(&path).unwrap_err().kind, ErrorKind::InUse);
        connect(socket.path()).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        fs::write(&path, "precious").unwrap();
        assert_eq!(
            AdminSocket::bind(&path).unwrap_err().kind,
            ErrorKind::Refused
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_socket_that_another_daemon_has_put_there_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = AdminSocket::bind(&path).unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        let second = AdminSocket::bind(&path).unwrap();
        drop(first);
        connect(second.path()).unwrap();
    }

    #[test]
    fn paths_longer_than_sun_path_work_up_to_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(100)).join("e".repeat(100));
        fs::create_dir_all(&deep).unwrap();
        let path = deep.join("admin.sock");
        let socket = AdminSocket::bind(&path).unwrap();
        connect(socket.path()).unwrap();
        assert_eq!(mode(&path), 0o600);
        drop(socket);
        assert!(!path.exists());

        let why = connect(&dir.path().join("f".repeat(150))).unwrap_err();
        assert!(why.message.contains("too long for a Unix socket"), "{why}");
    }

    #[test]
    fn a_missing_directory_is_said_to_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let why = AdminSocket::bind(&dir.path().join("none/s")).unwrap_err();
        assert_eq!(why.kind, ErrorKind::NotFound);
        assert!(why.message.contains("no directory"), "{why}");
        assert!(
            connect(&dir.path().join("none/s"))
                .unwrap_err()
                .hint
                .unwrap()
                .contains("atoll serve")
        );
    }
}
