//! Data to stdout, talk to stderr.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Where and how to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// Whether stdout carries JSON.
    pub(crate) json: bool,
    color: bool,
    /// Whether stderr is a terminal that can show a moving progress line.
    pub(crate) live: bool,
}

impl Output {
    pub(crate) fn new(json: bool, color: Color) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        };
        Self { json, color, live: terminal && std::env::var("TERM").as_deref() != Ok("dumb") }
    }

    /// A line of data. A reader that has gone away (`| head`) ends the program quietly.
    pub(crate) fn data(&self, line: impl Display) {
        if writeln!(std::io::stdout(), "{line}").is_err() {
            std::process::exit(0);
        }
    }

    /// Data as JSON on one line.
    pub(crate) fn json_line(&self, value: &impl Serialize) {
        self.data(serde_json::to_string(value).expect("types of the protocol serialise"));
    }

    /// A line of talk.
    pub(crate) fn say(&self, line: impl Display) {
        // Talk that nobody can read is no reason to fail.
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    /// `text` in a style for stderr, when colours are on.
    pub(crate) fn paint(&self, style: anstyle::Style, text: impl Display) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_string() }
    }

    pub(crate) fn bold(&self, text: impl Display) -> String {
        self.paint(anstyle::Style::new().bold(), text)
    }

    pub(crate) fn dim(&self, text: impl Display) -> String {
        self.paint(anstyle::Style::new().dimmed(), text)
    }
}

/// Left-aligned text and right-aligned number columns, two spaces apart, without trailing blanks.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = header.len();
    let width = |c: usize| rows.iter().map(|r| r[c].chars().count()).chain([header[c].chars().count()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (c, cell) in cells.enumerate() {
            let pad = " ".repeat(widths[c] - cell.chars().count());
            let gap = if c > 0 { "  " } else { "" };
            text += &if right.contains(&c) { format!("{gap}{pad}{cell}") } else { format!("{gap}{cell}{pad}") };
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![line(&mut header.iter().copied())];
    lines.extend(rows.iter().map(|r| line(&mut r.iter().map(String::as_str))));
    lines.join("\n")
}

/// `12.34 ms` or `8.06 µs`, with three to four significant digits.
pub(crate) fn milliseconds(seconds: f64) -> String {
    let ms = seconds * 1e3;
    match ms {
        _ if ms < 0.01 => format!("{:.2} µs", ms * 1e3),
        _ if ms < 0.1 => format!("{:.1} µs", ms * 1e3),
        _ if ms >= 100.0 => format!("{ms:.1} ms"),
        _ if ms >= 10.0 => format!("{ms:.2} ms"),
        _ => format!("{ms:.3} ms"),
    }
}

/// `46.8 MB`.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}

/// `2026-01-31 12:00` in UTC, from Unix seconds.
pub(crate) fn when(unix: i64) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]");
    time::OffsetDateTime::from_unix_timestamp(unix).ok().and_then(|t| t.format(&format).ok()).unwrap_or_else(|| unix.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_text_left_and_numbers_right() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["long".into(), "1000".into()]];
        assert_eq!(table(&["NAME", "N"], &rows, &[1]), "NAME     N\na        1\nlong  1000");
    }

    #[test]
    fn quantities_read_well() {
        assert_eq!(milliseconds(0.0004123), "0.412 ms");
        assert_eq!(milliseconds(0.0211), "21.10 ms");
        assert_eq!(bytes(46_800_357), "46.8 MB");
        assert_eq!(when(0), "1970-01-01 00:00");
    }
}
