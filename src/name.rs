//! Names of volumes and pools: one rule, checked in one place, whatever the name comes from
//! (command line, HTTP, the catalogue).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::Error;

/// Longest name in bytes. With [`IQN_PREFIX`] it stays within the 223 bytes that an iSCSI name
/// may have (RFC 7143 §4.2.7.1).
pub const MAX_NAME: usize = 200;

/// What target names begin with; the volume's name follows.
pub const IQN_PREFIX: &str = "iqn.2026-11.io.atoll:";

const MAX_ISCSI_NAME: usize = 223;
const _: () = assert!(IQN_PREFIX.len() + MAX_NAME <= MAX_ISCSI_NAME);

/// The rule, as error messages quote it.
pub const NAME_RULE: &str = "a name is 1 to 200 characters of a-z, 0-9, '.', '_' and '-'";

/// Longest part of a refused name that the error repeats, in characters.
const SHOWN: usize = 64;

/// A name that obeys [`NAME_RULE`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[a-z0-9._-]+$", min_length = 1, max_length = 200)]
pub struct ResourceName(String);

impl ResourceName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The iSCSI name of the target that exports the volume of this name.
    pub fn iqn(&self) -> String {
        format!("{IQN_PREFIX}{}", self.0)
    }
}

impl FromStr for ResourceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for ResourceName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        if !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(legal) {
            return Ok(Self(text));
        }
        let what = match text.chars().find(|c| !c.is_ascii() || !legal(*c as u8)) {
            _ if text.is_empty() => "the name is empty".to_owned(),
            Some(c) => {
                let shown: String = text.chars().take(SHOWN).collect();
                format!("the name {shown:?} contains {c:?}")
            }
            None => format!("the name has {} characters", text.len()),
        };
        Err(Error::invalid(format!("{what}: {NAME_RULE}")))
    }
}

impl From<ResourceName> for String {
    fn from(name: ResourceName) -> Self {
        name.0
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_names_pass_unchanged() {
        let longest = "x".repeat(MAX_NAME);
        for text in ["a", "0", ".", "..", "-", "vm-1.disk_0", longest.as_str()] {
            assert_eq!(text.parse::<ResourceName>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn refused_names_come_with_the_rule_and_the_offender() {
        let long = "x".repeat(MAX_NAME + 1);
        for (text, part) in [
            ("", "empty"),
            ("Demo", "'D'"),
            ("a b", "' '"),
            ("a/b", "'/'"),
            ("ü", "'ü'"),
            ("a\nb", "'\\n'"),
            ("a\0", "'\\0'"),
            (long.as_str(), "201"),
        ] {
            let why = text.parse::<ResourceName>().unwrap_err();
            assert!(
                why.message.contains(part) && why.message.contains(NAME_RULE),
                "{why}"
            );
        }
    }

    #[test]
    fn every_legal_name_fits_an_iscsi_name() {
        let name: ResourceName = "z".repeat(MAX_NAME).parse().unwrap();
        assert!(name.iqn().len() <= MAX_ISCSI_NAME);
    }
}
