//! Key=value text of login and text requests (RFC 7143 §6.1): collecting it over several PDUs and
//! splitting it into pairs, within limits. What the keys mean is in `keys` and `negotiate`.
mod keys;
mod negotiate;

pub use keys::{Key, Kind, Phase, RULES, Rule, Use};
pub use negotiate::{Negotiator, Offers, Parameters};

use super::limits::{
    MAX_KEY_NAME_LENGTH, MAX_KEYS_PER_REQUEST, MAX_NAME_LENGTH, MAX_TEXT_LENGTH, MAX_VALUE_LENGTH,
};

/// Why text is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// More than [`MAX_TEXT_LENGTH`] over all PDUs.
    #[error("text is longer than {MAX_TEXT_LENGTH} bytes")]
    TooLong,
    /// Not ended by a zero byte.
    #[error("the last key=value pair does not end with a zero byte")]
    Unterminated,
    /// No '='.
    #[error("text item {0} has no '='")]
    NoEquals(usize),
    /// Empty, too long, or of characters that a key name must not have.
    #[error("text item {0} has a malformed key name")]
    Name(usize),
    /// Too long or not UTF-8.
    #[error("the value of text item {0} is too long or not UTF-8")]
    Value(usize),
    /// More than [`MAX_KEYS_PER_REQUEST`].
    #[error("more than {MAX_KEYS_PER_REQUEST} keys in one request")]
    TooManyKeys,
    /// Offered twice in one negotiation (§6.3).
    #[error("key {0} was negotiated before")]
    Duplicate(&'static str),
    /// A key only the target may send.
    #[error("key {0} is not the initiator's to send")]
    WrongSender(&'static str),
    /// A declared value outside its range or form.
    #[error("key {0} has an illegal value")]
    IllegalValue(&'static str),
    /// Every AuthMethod offered is unsupported.
    #[error("no offered AuthMethod is supported")]
    NoAuthMethod,
}

/// Text collected over PDUs with the C bit, at most [`MAX_TEXT_LENGTH`].
#[derive(Debug, Default)]
pub struct Assembler {
    text: Vec<u8>,
}

impl Assembler {
    /// Adds one data segment.
    pub fn push(&mut self, segment: &[u8]) -> Result<(), TextError> {
        if self.text.len() + segment.len() > MAX_TEXT_LENGTH {
            return Err(TextError::TooLong);
        }
        self.text.extend_from_slice(segment);
        Ok(())
    }
    /// Bytes of memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.text.capacity()
    }
    /// Takes what was collected and starts anew.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.text)
    }
}

/// Splits complete text into pairs. Empty items (padding inside the data segment) are skipped.
pub fn pairs(text: &[u8]) -> Result<Vec<(&str, &str)>, TextError> {
    let Some((0, body)) = text.split_last() else {
        return if text.is_empty() {
            Ok(Vec::new())
        } else {
            Err(TextError::Unterminated)
        };
    };
    let mut found = Vec::new();
    for (index, item) in body
        .split(|byte| *byte == 0)
        .filter(|item| !item.is_empty())
        .enumerate()
    {
        if index == MAX_KEYS_PER_REQUEST {
            return Err(TextError::TooManyKeys);
        }
        let equals = item
            .iter()
            .position(|byte| *byte == b'=')
            .ok_or(TextError::NoEquals(index))?;
        let (name, value) = (&item[..equals], &item[equals + 1..]);
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b".-+@_#".contains(byte);
        if name.is_empty() || name.len() > MAX_KEY_NAME_LENGTH || !name.iter().all(legal) {
            return Err(TextError::Name(index));
        }
        let name = std::str::from_utf8(name).map_err(|_| TextError::Name(index))?;
        let value = std::str::from_utf8(value).map_err(|_| TextError::Value(index))?;
        if value.len() > MAX_VALUE_LENGTH {
            return Err(TextError::Value(index));
        }
        found.push((name, value));
    }
    Ok(found)
}

/// Appends `key=value` and its zero byte.
pub fn push_pair(text: &mut Vec<u8>, key: &str, value: &str) {
    text.extend_from_slice(key.as_bytes());
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    text.push(0);
}

/// A number as §6.1 writes it: decimal, or hexadecimal after 0x.
#[must_use]
pub fn parse_number(value: &str) -> Option<u32> {
    let hexadecimal = value
        .strip_prefix("0x")
        .or_else(|| value.strip_prefix("0X"));
    let (digits, radix) = hexadecimal.map_or((value, 10), |digits| (digits, 16));
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain
        .then(|| u32::from_str_radix(digits, radix).ok())
        .flatten()
}

/// Whether `name` may be an iSCSI name (§4.2.7): right length, a known type designator, no blanks.
#[must_use]
pub fn is_iscsi_name(name: &str) -> bool {
    let typed = ["iqn.", "eui.", "naa."]
        .iter()
        .any(|kind| name.starts_with(kind));
    let printable = name.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    typed && printable && name.len() > 4 && name.len() <= MAX_NAME_LENGTH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_split_and_malformed_text_is_named() {
        assert_eq!(
            pairs(b"A=1\0B=x=y\0\0C=\0").unwrap(),
            [("A", "1"), ("B", "x=y"), ("C", "")]
        );
        assert_eq!(pairs(b""), Ok(vec![]));
        assert_eq!(pairs(b"A=1"), Err(TextError::Unterminated));
        assert_eq!(pairs(b"A=1\0nonsense\0"), Err(TextError::NoEquals(1)));
        assert_eq!(pairs(b"=1\0"), Err(TextError::Name(0)));
        assert_eq!(pairs(b"A b=1\0"), Err(TextError::Name(0)));
        assert_eq!(pairs(b"A=\xff\0"), Err(TextError::Value(0)));
        let long = [b"A=".as_slice(), &[b'x'; MAX_VALUE_LENGTH + 1], b"\0"].concat();
        assert_eq!(pairs(&long), Err(TextError::Value(0)));
        assert_eq!(
            pairs(&b"A=1\0".repeat(MAX_KEYS_PER_REQUEST + 1)),
            Err(TextError::TooManyKeys)
        );
    }

    #[test]
    fn collected_text_is_bounded() {
        let mut assembler = Assembler::default();
        assembler.push(&[b'a'; MAX_TEXT_LENGTH]).unwrap();
        assert_eq!(assembler.push(b"b"), Err(TextError::TooLong));
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!(parse_number("65536"), Some(65536));
        assert_eq!(parse_number("0x1000"), Some(4096));
        for bad in ["", "+1", "-1", "0x", "12x", "99999999999", " 1"] {
            assert_eq!(parse_number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn names_need_a_designator() {
        assert!(is_iscsi_name("iqn.2026-11.io.atoll:demo"));
        for bad in ["", "iqn.", "demo", "iqn.a b", "iqn.a\u{7f}"] {
            assert!(!is_iscsi_name(bad), "{bad:?}");
        }
    }
}
