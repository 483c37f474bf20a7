// SPDX-License-Identifier: GPL-2.0

//! Pieces of reStructuredText.

/// A heading, with a line of these below it.
pub(super) fn heading(text: &str, line: char) -> String {
    format!("{text}\n{}\n\n", line.to_string().repeat(text.len()))
}

/// A table of reStructuredText, with its first line as its head.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |c: usize| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(|c| width(c).max(1)).collect();
    let rule = widths
        .iter()
        .map(|w| "=".repeat(*w))
        .collect::<Vec<_>>()
        .join("  ");
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(c, (text, w))| {
            // An empty first cell would join the line to the one before.
            let text = if c == 0 && text.is_empty() {
                "\\"
            } else {
                text
            };
            format!("{text:<w$}")
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    let mut lines = vec![rule.clone()];
    lines.extend(rows.first().map(line));
    lines.push(rule.clone());
    lines.extend(rows.iter().skip(1).map(line));
    lines.push(rule);
    lines.join("\n") + "\n\n"
}

/// As a line of a table.
pub(super) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| w.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_even_columns() {
        let text = table(&[words(&["", "a"]), words(&["long name", "b"])]);
        assert_eq!(
            text,
            "=========  =\n\\          a\n=========  =\nlong name  b\n=========  =\n\n"
        );
    }
}
