//! Numbers, times and tables for people.

use postern_core::diagnosis::Seconds;
use serde::Serialize;

/// Two units at most: `4m 31s`, `2d 3h`; below a minute whole seconds.
pub(super) fn duration(seconds: u64) -> String {
    format!("{:#}", Seconds(seconds))
}

/// JSON with line breaks.
pub(super) fn json(report: &impl Serialize) -> serde_json::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(report)?))
}

/// A time that many seconds ago; `never` for `None`.
pub(super) fn ago(seconds: Option<f64>) -> String {
    match seconds {
        Some(before) => format!("{} ago", duration(before as u64)),
        None => "never".to_owned(),
    }
}

/// In decimal units: `1.2 MB`.
pub(super) fn bytes(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", units[unit]),
    }
}

/// Lines of cells. Each column is as wide as its widest cell.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:width$}  "))
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_show_the_two_largest_units() {
        let shown = [0, 7, 60, 271, 3600, 90_061].map(duration);
        assert_eq!(shown, ["0s", "7s", "1m", "4m 31s", "1h", "1d 1h"]);
    }

    #[test]
    fn bytes_are_rounded_to_one_decimal() {
        let shown = [999, 1000, 1_250_000, 999_960, 3_000_000_000].map(bytes);
        assert_eq!(shown, ["999 B", "1.0 kB", "1.2 MB", "1.0 MB", "3.0 GB"]);
    }

    #[test]
    fn columns_line_up_without_trailing_blanks() {
        let rows = [["a", "bb"], ["ccc", "d"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "a    bb\nccc  d\n");
    }
}
