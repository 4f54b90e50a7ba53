//! What went wrong below, as admins are told it: the one place where the kinds of the layers
//! become ours, with the way out.

use std::error::Error as StdError;

use atoll_mapper::ErrorKind as Below;

use crate::error::{Error, ErrorKind};

pub(super) const CHECK_IT: &str = "stop the daemon and run `atoll fsck`";

/// From the mapper, its stores and its metadata.
pub fn of_mapper(error: &atoll_mapper::Error) -> Error {
    let (kind, hint) = kind_and_hint(error.kind());
    // Where nothing below it failed, it is the resource itself that is not to be written.
    let of_resource = error.kind() == Below::ReadOnly && StdError::source(error).is_none();
    let hint = hint.filter(|_| !of_resource);
    let error = Error::new(kind, error.to_string());
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn kind_and_hint(kind: Below) -> (ErrorKind, Option<&'static str>) {
    match kind {
        Below::NotFound => (ErrorKind::NotFound, None),
        Below::AlreadyExists => (ErrorKind::AlreadyExists, None),
        Below::InUse | Below::NotOwner => (ErrorKind::InUse, None),
        Below::Invalid | Below::OutOfRange => (ErrorKind::Invalid, None),
        Below::NoSpace => (
            ErrorKind::NoSpace,
            Some("deleting volumes, or unmapping, gives space back"),
        ),
        Below::ReadOnly => (
            ErrorKind::Refused,
            Some("look at the permissions and at how the file system is mounted"),
        ),
        Below::Unsupported => (ErrorKind::Refused, None),
        Below::Timeout | Below::Offline | Below::Busy => {
            (ErrorKind::Unavailable, Some("try again"))
        }
        Below::Closed => (ErrorKind::Unavailable, None),
        Below::Corrupt | Below::Faulted => (ErrorKind::Internal, Some(CHECK_IT)),
        // Kinds that the mapper learns later are failures to us.
        _ => (ErrorKind::Internal, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_below_is_kept_and_damage_comes_with_the_way_out() {
        let below = atoll_mapper::Error::new(Below::Corrupt, "node 7: the row is missing");
        let error = of_mapper(&below);
        assert_eq!(error.kind, ErrorKind::Internal);
        assert_eq!(error.message, "node 7: the row is missing");
        assert_eq!(error.hint.as_deref(), Some(CHECK_IT));
    }

    #[test]
    fn only_what_a_store_refuses_to_write_points_at_its_file_system() {
        let snapshot = atoll_mapper::Error::new(Below::ReadOnly, "it is a snapshot");
        let store = atoll_mapper::Error::with_source(Below::ReadOnly, "pool", "mounted ro");
        let [snapshot, store] = [snapshot, store].map(|below| of_mapper(&below));
        assert_eq!(
            (snapshot.kind, store.kind),
            (ErrorKind::Refused, ErrorKind::Refused)
        );
        assert_eq!(snapshot.hint, None);
        assert!(store.hint.unwrap().contains("mounted"));
    }

    #[test]
    fn what_a_later_attempt_can_do_is_unavailable_and_says_so() {
        for kind in [Below::Timeout, Below::Offline, Below::Busy] {
            let error = of_mapper(&atoll_mapper::Error::new(kind, "x"));
            assert_eq!(
                (error.kind, error.hint.as_deref()),
                (ErrorKind::Unavailable, Some("try again"))
            );
        }
    }
}
