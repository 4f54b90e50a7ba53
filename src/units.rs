//! Quantities as people write and read them: sizes, durations, moments. Each is a newtype, so
//! that no bare number crosses a module; what is legal for a given use is said where it is used.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

const SIZE_RULE: &str = "write bytes, or a whole number with K, M, G, T or P (or KiB, MiB, ...), powers of 1024: 512M, 10G, 1TiB";

/// Binary prefixes, smallest first; the n-th (from 1) stands for 1024^n bytes.
const PREFIXES: [char; 5] = ['K', 'M', 'G', 'T', 'P'];

/// A number of bytes.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(transparent)]
#[schema(value_type = u64)]
pub struct ByteSize(u64);

impl ByteSize {
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    pub const fn kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    pub const fn pib(pib: u64) -> Self {
        Self(pib << 50)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// The exact form that [`FromStr`] takes back: `10G`, `1536M`, `1000`.
    pub fn exact(self) -> String {
        let (mut value, mut prefix) = (self.0, None);
        for p in PREFIXES {
            if value == 0 || value % 1024 != 0 {
                break;
            }
            (value, prefix) = (value / 1024, Some(p));
        }
        prefix.map_or_else(|| value.to_string(), |p| format!("{value}{p}"))
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(format!("{text:?} is not a size: {SIZE_RULE}"));
        }
        let shift =
            size_unit_shift(unit).map_err(|why| format!("{text:?} is not a size: {why}"))?;
        number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(1 << shift))
            .map(Self)
            .ok_or_else(|| format!("{text:?} is more than the largest size, 16 EiB"))
    }
}

fn size_unit_shift(unit: &str) -> Result<u32, String> {
    if unit.is_empty() || unit == "B" {
        return Ok(0);
    }
    let upper = unit.to_ascii_uppercase();
    let mut shift = 0;
    for p in PREFIXES {
        shift += 10;
        if upper
            .strip_prefix(p)
            .is_some_and(|rest| rest.is_empty() || rest == "IB")
        {
            return Ok(shift);
        }
        if upper.strip_prefix(p) == Some("B") {
            return Err(format!(
                "{unit} can mean two things; {p} or {p}iB is a power of 1024"
            ));
        }
    }
    Err(SIZE_RULE.to_owned())
}

impl fmt::Display for ByteSize {
    /// Three significant digits or so, exact where the number is round: `10 GiB`, `1.5 MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut scale, mut unit) = (1u64, None);
        for p in PREFIXES {
            if self.0 / scale < 1024 {
                break;
            }
            (scale, unit) = (scale << 10, Some(p));
        }
        let Some(unit) = unit else {
            return write!(f, "{} B", self.0);
        };
        // Rounded down, so that what is shown as free or used is never more than there is.
        let hundredths = u128::from(self.0) * 100 / u128::from(scale);
        let (whole, fraction) = (hundredths / 100, hundredths % 100);
        match fraction {
            0 => write!(f, "{whole} {unit}iB"),
            _ if fraction % 10 == 0 => write!(f, "{whole}.{} {unit}iB", fraction / 10),
            _ => write!(f, "{whole}.{fraction:02} {unit}iB"),
        }
    }
}

/// A size in the configuration file: `"64M"`, or a number of bytes.
pub mod config_size {
    use super::*;

    pub fn serialize<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&size.exact())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "a size must be a string such as \"64M\" or a number of bytes"
        )]
        enum Raw {
            Text(String),
            Bytes(u64),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Text(text) => text.parse().map_err(de::Error::custom),
            Raw::Bytes(bytes) => Ok(ByteSize(bytes)),
        }
    }
}

/// A length of time in the configuration file: `"50us"`, `"30s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Units of a [`Span`] with their nanoseconds, largest first.
const SPAN_UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule = || {
            format!(
                "{text:?} is not a length of time: write a whole number and us, ms, s, m or h: \"50us\", \"30s\""
            )
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| rule())?;
        let (_, scale) = SPAN_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(rule)?;
        let nanos = number
            .checked_mul(*scale)
            .ok_or_else(|| format!("{text:?} is too long"))?;
        Ok(Self(Duration::from_nanos(nanos)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        let fitting = SPAN_UNITS
            .iter()
            .find(|(_, scale)| nanos.is_multiple_of(u128::from(*scale)));
        let (unit, scale) = fitting.unwrap_or(&("ns", 1));
        write!(f, "{}{unit}", nanos / u128::from(*scale))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).map_err(|_| {
            de::Error::custom("a length of time must be a string with its unit, such as \"30s\"")
        })?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A moment: seconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = u64)]
pub struct UnixSeconds(pub u64);

impl From<SystemTime> for UnixSeconds {
    /// A moment before 1970 (a clock that was never set) becomes 1970.
    fn from(time: SystemTime) -> Self {
        Self(
            time.duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        )
    }
}

impl fmt::Display for UnixSeconds {
    /// RFC 3339, in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = civil_date(days);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

/// Gregorian (year, month, day) of a number of days since 1970-01-01.
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_400_YEARS: u64 = 146_097;
    // Years counted from 0000-03-01, so that the leap day is the last of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / DAYS_PER_400_YEARS, days % DAYS_PER_400_YEARS);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_in_every_spelling() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("1k", 1 << 10),
            ("64K", 64 << 10),
            ("512M", 512 << 20),
            ("10G", 10 << 30),
            ("10GiB", 10 << 30),
            ("10gib", 10 << 30),
            ("1T", 1 << 40),
            ("1P", 1 << 50),
        ] {
            assert_eq!(text.parse::<ByteSize>(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn wrong_sizes_are_refused_with_the_rule() {
        for text in ["", "G", "-1", "1.5G", "10X", "10 G", "1GiBs", "G10"] {
            let why = text.parse::<ByteSize>().unwrap_err();
            assert!(why.contains("powers of 1024"), "{text}: {why}");
        }
        assert!(
            "10GB"
                .parse::<ByteSize>()
                .unwrap_err()
                .contains("two things")
        );
        for text in ["16384P", "18446744073709551616"] {
            assert!(
                text.parse::<ByteSize>().unwrap_err().contains("largest"),
                "{text}"
            );
        }
    }

    #[test]
    fn sizes_print_short_and_never_more_than_there_is() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1023.99 KiB"),
            (10 << 30, "10 GiB"),
            (1 << 50, "1 PiB"),
            (u64::MAX, "16383.99 PiB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }

    #[test]
    fn the_exact_form_parses_back() {
        for bytes in [0, 1, 1000, 1024, 1536, 10 << 30, 1 << 50, u64::MAX] {
            assert_eq!(ByteSize(bytes).exact().parse(), Ok(ByteSize(bytes)));
        }
        assert_eq!(ByteSize(10 << 30).exact(), "10G");
    }

    #[test]
    fn spans_parse_and_print() {
        for text in ["50us", "5ms", "30s", "2m", "1h", "0s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("60s".parse::<Span>().unwrap().to_string(), "1m");
        for text in ["", "50", "us", "5 s", "1.5s", "1d", "-1s"] {
            assert!(
                text.parse::<Span>()
                    .unwrap_err()
                    .contains("not a length of time"),
                "{text}"
            );
        }
        assert!("99999999999999h".parse::<Span>().is_err());
    }

    #[test]
    fn moments_print_as_utc_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_796_083_199, "2026-11-30T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(UnixSeconds(seconds).to_string(), text);
        }
    }
}
