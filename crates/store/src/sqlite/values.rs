//! Many rows a statement.

/// How many. A few sizes only, so that prepared statements are found again; a row more than fits is a row of its
/// own statement, which costs little beside the larger ones.
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
pub(super) fn values(rows: usize, columns: usize) -> String {
    let row = format!(",({})", vec!["?"; columns].join(","));
    format!("VALUES {}", row.repeat(rows).trim_start_matches(','))
}

/// Integers as the JSON array that `json_each` takes apart: one parameter, however many they are.
pub(super) fn integers(list: impl IntoIterator<Item = i64>) -> String {
    let list: Vec<String> = list.into_iter().map(|n| n.to_string()).collect();
    format!("[{}]", list.join(","))
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
        assert_eq!(integers([1, -2]), "[1,-2]");
        assert_eq!(integers([]), "[]");
    }
}
