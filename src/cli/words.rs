//! Numbers and times as people read them.

use std::time::Duration;

/// Two units at most: `4m 31s`, `2d 3h`; below a minute whole seconds.
pub(super) fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let mut left = seconds;
    let mut shown = Vec::new();
    for (size, unit) in units {
        let count = left / size;
        left %= size;
        if count > 0 {
            shown.push(format!("{count}{unit}"));
        } else if !shown.is_empty() {
            break;
        }
        if shown.len() == 2 {
            break;
        }
    }
    match shown.is_empty() {
        true => "0s".to_owned(),
        false => shown.join(" "),
    }
}

/// How long ago, in seconds; `never` if it never was.
pub(super) fn ago(seconds: Option<f64>) -> String {
    match seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(before) => format!("{} ago", duration(before.as_secs())),
        None => "never".to_owned(),
    }
}

/// With a unit of 1000: `1.2 MB`.
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

/// Lines of cells, each column as wide as its widest cell.
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
