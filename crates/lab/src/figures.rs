//! Figures as aligned tables, and where a list of them lies.

use std::time::Duration;

/// Columns as wide as their widest cell: the first to the left, the others to the right.
pub fn table<const N: usize>(header: &[String; N], rows: &[[String; N]]) -> String {
    let all: Vec<&[String; N]> = std::iter::once(header).chain(rows).collect();
    let width = |column: usize| {
        let widths = all.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let mut text = String::new();
    for row in &all {
        for (column, cell) in row.iter().enumerate() {
            let width = width(column);
            text.push_str(&match column {
                0 => format!("{cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            });
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

/// The middle of some figures, the mean of the two in the middle of an even number; zero when there
/// are none.
pub fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match (figures.len() % 2, figures) {
        (_, []) => 0.0,
        (0, figures) => f64::midpoint(figures[middle - 1], figures[middle]),
        (_, figures) => figures[middle],
    }
}

/// The smallest of sorted times that `percent` of them do not exceed; zero when there are none.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let header = ["name", "x"].map(str::to_owned);
        let rows = [["a", "1–2"], ["longer", "3"]].map(|row| row.map(str::to_owned));
        let expected = "name      x\na       1–2\nlonger    3\n";
        assert_eq!(table(&header, &rows), expected);
    }

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut []), 0.0);
    }

    #[test]
    fn no_times_are_zero() {
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn percentiles_are_members_of_the_list() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_micros).collect();
        assert_eq!(percentile(&times, 50), Duration::from_micros(100));
        assert_eq!(percentile(&times, 99), Duration::from_micros(198));
        assert_eq!(percentile(&times[..1], 99), Duration::from_micros(1));
    }
}
