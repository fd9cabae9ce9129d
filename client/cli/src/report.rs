//! What a command prints: one JSON object, or tables; and the progress bar on standard error.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::engine::{Bytes, Traffic};

/// Widest table in columns.
const WIDTH: u16 = 116;
/// A rule above, below and under the header.
const STYLE: TableStyle = TableStyle::new()
    .top_border(LineStyle::none().fill('─').junction('─'))
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

/// What a command found out.
pub trait Report {
    /// Decisions that differ outside the band.
    fn outside_band(&self) -> u64;
    /// The object of `--json`, in one line.
    ///
    /// # Errors
    /// None in practice: reports are numbers under fixed names.
    fn json(&self) -> serde_json::Result<String>;
    /// Tables for people, with a final line break.
    fn text(&self) -> String;
}

/// Writes a report.
///
/// # Errors
/// What the writer says.
pub fn write(report: &dyn Report, json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        writeln!(out, "{}", report.json()?)?;
    } else {
        out.write_all(report.text().as_bytes())?;
    }
    out.flush()
}

/// A table in the style of the house; columns in `numbers` are aligned to the right.
#[must_use]
pub fn table(header: &[&str], numbers: &[usize], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row.clone());
    }
    for &number in numbers {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// The last line of a report.
#[must_use]
pub fn conclusion(outside_band: u64) -> String {
    match outside_band {
        0 => String::from("Every decision outside the noise band equals the plaintext decision."),
        1 => String::from("1 decision differs from the plaintext one, and noise does not explain it."),
        n => format!("{n} decisions differ from the plaintext ones, and noise does not explain them."),
    }
}

/// The parties of a [`Traffic`] with their names in tables.
#[must_use]
pub fn parties(traffic: &Traffic) -> Vec<(&'static str, Bytes)> {
    let five = [
        ("client", traffic.client),
        ("matcher", traffic.matcher),
        ("key holder K0", traffic.k0),
        ("key holder K1", traffic.k1),
        ("key holder K2", traffic.k2),
    ];
    five.into_iter().chain(traffic.twin.map(|twin| ("twin", twin))).collect()
}

/// Bytes with a unit of 1,000s.
#[must_use]
pub fn bytes(count: u64) -> String {
    let (mut value, mut unit) = (count as f64, "B");
    for larger in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, larger);
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// Thousands separated by commas.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Milliseconds to a thousandth.
#[must_use]
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The progress bar: on standard error if that is a terminal, else nowhere.
pub struct Progress {
    visible: bool,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Progress(visible: {})", self.visible)
    }
}

/// The bar of one stage; it disappears when the stage is dropped.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Progress {
    /// Draws on standard error.
    #[must_use]
    pub fn on_stderr() -> Self {
        Self { visible: true }
    }

    /// Draws nowhere.
    #[must_use]
    pub fn hidden() -> Self {
        Self { visible: false }
    }

    /// Begins a stage of this many steps.
    #[must_use]
    pub fn stage(&self, name: &'static str, steps: usize) -> Bar {
        let target = if self.visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(steps as u64), target).with_prefix(name);
        // The template is a constant; should it ever be malformed, the plain bar still serves.
        if let Ok(style) = ProgressStyle::with_template("{prefix:>18} {bar:40} {human_pos}/{human_len} {eta}") {
            bar.set_style(style);
        }
        bar.tick();
        Bar(bar)
    }

    /// Begins a stage that nobody knows the length of; `what` is counted.
    #[must_use]
    pub fn search(&self, name: &'static str, what: &'static str) -> Bar {
        let target = if self.visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target).with_prefix(name).with_message(what);
        if let Ok(style) = ProgressStyle::with_template("{prefix:>18} {spinner} {human_pos} {msg}, {elapsed}") {
            bar.set_style(style);
        }
        bar.tick();
        Bar(bar)
    }
}

impl Bar {
    /// One more step is done.
    pub fn step(&self) {
        self.0.inc(1);
    }

    /// So many more steps are done.
    pub fn advance(&self, steps: usize) {
        self.0.inc(steps as u64);
    }

    /// So many steps are done.
    pub fn reach(&self, steps: usize) {
        self.0.set_position(steps as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Report for Fixed {
        fn outside_band(&self) -> u64 {
            0
        }
        fn json(&self) -> serde_json::Result<String> {
            Ok(String::from("{}"))
        }
        fn text(&self) -> String {
            String::from("a table\n")
        }
    }

    #[test]
    fn json_is_one_line_and_nothing_else() {
        let mut out = Vec::new();
        write(&Fixed, true, &mut out).unwrap();
        assert_eq!(out, b"{}\n");
        out.clear();
        write(&Fixed, false, &mut out).unwrap();
        assert_eq!(out, b"a table\n");
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!((bytes(999), bytes(1000), bytes(1_234_567)), ("999 B".into(), "1.0 kB".into(), "1.2 MB".into()));
        assert_eq!((count(7), count(1000), count(1_234_567)), ("7".into(), "1,000".into(), "1,234,567".into()));
        assert_eq!(milliseconds(Duration::from_nanos(1_234_567)), 1.235);
    }

    #[test]
    fn tables_fit_a_terminal() {
        let text = table(&["party", "saw"], &[1], &[vec!["client".into(), "word ".repeat(60)]]);
        assert!(text.lines().count() > 3 && text.lines().all(|l| l.chars().count() <= usize::from(WIDTH)), "{text}");
    }
}
