//! Many rows a statement.

/// How many. A few sizes only, so that prepared statements are found again.
const SIZES: [usize; 4] = [256, 32, 4, 1];

/// Cuts rows into pieces of these sizes, in order.
pub(super) fn chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= rows.len())?;
        let (chunk, rest) = rows.split_at(size);
        rows = rest;
        Some(chunk)
    })
}

/// `VALUES (?,?),(?,?)`, for so many rows and columns.
pub(crate) fn values(rows: usize, columns: usize) -> String {
    rows_of(rows, &format!("({})", vec!["?"; columns].join(",")))
}

/// `VALUES` and so many times the same row.
pub(super) fn rows_of(rows: usize, row: &str) -> String {
    format!("VALUES {}", vec![row; rows].join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_all_rows_in_order_and_in_few_sizes() {
        let rows: Vec<usize> = (0..300).collect();
        let cut: Vec<&[usize]> = chunks(&rows).collect();
        assert_eq!(cut.iter().map(|c| c.len()).collect::<Vec<_>>(), [256, 32, 4, 4, 4]);
        assert_eq!(cut.concat(), rows);
        assert_eq!(chunks::<usize>(&[]).count(), 0);
    }

    #[test]
    fn lists_are_written_out() {
        assert_eq!(values(2, 3), "VALUES (?,?,?),(?,?,?)");
    }
}
