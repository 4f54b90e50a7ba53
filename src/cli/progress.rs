//! How far a long verb is, on stderr: a bar on a terminal, else now and then a line, and nothing where
//! the answer is for programs.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::units::ByteSize;

/// How often the sign of life moves.
const TICK: Duration = Duration::from_millis(100);
/// Lines of one verb, where they are printed: one each tenth.
const LINES: u64 = 10;

/// Where progress is shown.
pub struct Stage<'a> {
    err: &'a mut dyn Write,
    shown: Shown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// On the terminal that stderr is.
    Bar,
    Lines,
    Nothing,
}

impl<'a> Stage<'a> {
    pub fn new(err: &'a mut dyn Write, shown: Shown) -> Self {
        Self { err, shown }
    }

    /// For what is to be said although the answer goes elsewhere.
    pub fn err(&mut self) -> &mut dyn Write {
        self.err
    }

    /// Begins to show how far `what` is.
    pub fn begin(&mut self, what: &str) -> Progress<'_> {
        let bar = match self.shown {
            Shown::Bar => ProgressBar::new_spinner(),
            Shown::Lines | Shown::Nothing => ProgressBar::hidden(),
        };
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(TICK);
        Progress {
            err: (self.shown == Shown::Lines).then_some(&mut *self.err),
            what: what.to_owned(),
            bar,
            bounded: false,
            tenths: 0,
            said: String::new(),
        }
    }
}

/// What is shown of one verb; gone when this is dropped.
pub struct Progress<'a> {
    err: Option<&'a mut dyn Write>,
    what: String,
    bar: ProgressBar,
    bounded: bool,
    tenths: u64,
    said: String,
}

impl Progress<'_> {
    /// `done` bytes of `total`.
    pub fn bytes(&mut self, done: u64, total: u64) {
        if !self.bounded {
            self.bounded = true;
            self.bar.set_style(bar_style());
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        let tenths = u128::from(done) * u128::from(LINES) / u128::from(total.max(1));
        let tenths = u64::try_from(tenths).unwrap_or(LINES);
        // The end is what the answer says.
        if tenths > self.tenths && done < total {
            self.tenths = tenths;
            let [done, total] = [done, total].map(ByteSize::bytes);
            let percent = tenths * 100 / LINES;
            self.line(&format!("{percent} %, {done} of {total}"));
        }
    }

    /// What is being done, where its end is not known. The same again is said once.
    pub fn says(&mut self, text: &str) {
        if self.said != text {
            self.said = text.to_owned();
            self.bar.set_message(format!("{}: {text}", self.what));
            self.line(text);
        }
    }

    fn line(&mut self, text: &str) {
        if let Some(err) = &mut self.err {
            // Who does not want to hear it any more still gets the answer.
            let _ = writeln!(err, "{}: {text}", self.what).and_then(|()| err.flush());
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{msg} [{wide_bar}] {percent} %, {binary_bytes} of {binary_total_bytes}, {eta} left",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(shown: Shown, tell: impl FnOnce(&mut Progress<'_>)) -> String {
        let mut err = Vec::new();
        let mut stage = Stage::new(&mut err, shown);
        tell(&mut stage.begin("copying"));
        String::from_utf8(err).unwrap()
    }

    #[test]
    fn a_line_is_printed_at_most_for_each_tenth_and_none_for_the_end() {
        let said = lines(Shown::Lines, |progress| {
            for done in (0..=1000).step_by(7).chain([1000]) {
                progress.bytes(done << 20, 1000 << 20);
            }
        });
        assert_eq!(said.lines().count(), 9, "{said}");
        assert!(
            said.starts_with("copying: 10 %, 105 MiB of 1000 MiB\n"),
            "{said}"
        );
    }

    #[test]
    fn sizes_near_the_largest_and_of_nothing_do_not_overflow() {
        lines(Shown::Lines, |progress| {
            progress.bytes(0, 0);
            progress.bytes(u64::MAX - 1, u64::MAX);
        });
    }

    #[test]
    fn what_is_said_twice_is_printed_once_and_programs_are_told_nothing() {
        let tell = |progress: &mut Progress<'_>| {
            for text in ["a", "a", "b"] {
                progress.says(text);
            }
            progress.bytes(1, 2);
        };
        let said = lines(Shown::Lines, tell);
        assert!(said.starts_with("copying: a\ncopying: b\n"), "{said}");
        assert_eq!(lines(Shown::Nothing, tell), "");
    }

    #[test]
    fn the_bar_has_a_valid_template() {
        assert!(ProgressStyle::with_template("{msg} [{wide_bar}]").is_ok());
        bar_style();
    }
}
