//! Turns the TOML reader's complaints into ours: the option by its full name, the line, and what
//! was probably meant.

use crate::error::Error;

/// Most edits between a wrong name and the one that was probably meant.
const MAX_EDITS: usize = 2;

/// What is wrong with `text`, as one line, with a hint where there is a good one.
pub fn toml_error(text: &str, error: &toml::de::Error) -> Error {
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    let at = error.span().map(|span| span.start.min(text.len()));
    let place = at
        .map(|at| format!("line {}: ", line_of(text, at)))
        .unwrap_or_default();
    let Some((unknown, known)) = unknown_option(&message) else {
        return Error::invalid(format!("{place}{message}"));
    };
    let section = at.and_then(|at| section_of(text, at));
    let full = section.map_or_else(
        || unknown.to_owned(),
        |section| format!("{section}.{unknown}"),
    );
    let error = Error::invalid(format!("{place}unknown option {full:?}"));
    match nearest(unknown, &known) {
        Some(near) => error.hint(format!("did you mean {near:?}?")),
        None => error.hint(format!("known here: {}", known.join(", "))),
    }
}

/// Line of a byte offset, counted from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at]
        .iter()
        .filter(|b| **b == b'\n')
        .count()
        + 1
}

/// The `[section]` that a byte offset is in; none before the first, and none on its own header.
fn section_of(text: &str, at: usize) -> Option<&str> {
    let before = &text[..text.floor_char_boundary(at)];
    let complete = before.rfind('\n').map_or("", |end| &before[..end]);
    let header = complete
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix('['))?;
    let current = text[complete.len()..].trim_start().lines().next()?;
    if current.starts_with('[') {
        None
    } else {
        header.split(']').next().map(str::trim)
    }
}

/// Takes "unknown field `a`, expected one of `b`, `c`" apart.
fn unknown_option(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message
        .strip_prefix("unknown field ")?
        .split('`')
        .skip(1)
        .step_by(2);
    Some((quoted.next()?, quoted.collect()))
}

fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let closest = known.iter().map(|k| (edits(name, k), *k)).min()?;
    (closest.0 <= MAX_EDITS && closest.0 < name.len()).then_some(closest.1)
}

/// Levenshtein's distance in bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_insertions_deletions_and_substitutions() {
        for (a, b, n) in [
            ("", "", 0),
            ("spin", "spin", 0),
            ("spin", "spn", 1),
            ("kitten", "sitting", 3),
            ("", "ab", 2),
        ] {
            assert_eq!((edits(a, b), edits(b, a)), (n, n), "{a} {b}");
        }
    }
}
