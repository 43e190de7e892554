//! Markdown tables with aligned columns.

/// A table. Every row has as many cells as the head; missing ones are empty, further ones are left out.
pub(crate) fn markdown(head: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).chain([title.chars().count(), 3]).max().unwrap_or(3)
        })
        .collect();
    let line = |cells: &dyn Fn(usize) -> String| {
        let padded = widths.iter().enumerate().map(|(column, width)| format!("{:<width$}", cells(column)));
        format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "))
    };
    let mut text = line(&|column| head[column].to_owned());
    text.push_str(&line(&|column| "-".repeat(widths[column])));
    for row in rows {
        text.push_str(&line(&|column| row.get(column).cloned().unwrap_or_default()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::markdown;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["formatting".to_owned(), "1".to_owned()], vec!["µ".to_owned()]];
        let expected = "\
| step       | s   |
| ---------- | --- |
| formatting | 1   |
| µ          |     |
";
        assert_eq!(markdown(&["step", "s"], &rows), expected);
    }
}
