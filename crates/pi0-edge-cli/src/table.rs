//! Tables, for a terminal, to paste, and for a page.

use std::fmt::Write;

use crate::output::escape;

/// A head, and rows with as many cells.
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// A row of cells.
#[macro_export]
macro_rules! row {
    ($($cell:expr),+ $(,)?) => { vec![$($cell.to_string()),+] };
}

impl Table {
    /// An empty table.
    pub fn new(head: &[&str]) -> Self {
        Table { head: head.iter().map(|h| (*h).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds rows at the end.
    pub fn rows(mut self, rows: impl IntoIterator<Item = Vec<String>>) -> Self {
        self.rows.extend(rows);
        self
    }

    /// Columns of at least the given widths, the first one to the left and the others to the right. An empty head is
    /// left out.
    pub fn text(&self, widths: &[usize]) -> String {
        let mut out = String::new();
        for row in std::iter::once(&self.head).filter(|head| !head.is_empty()).chain(&self.rows) {
            for (i, (cell, width)) in row.iter().zip(widths).enumerate() {
                // Writing to a string cannot fail.
                _ = if i == 0 { write!(out, "{cell:<width$}") } else { write!(out, "{cell:>width$}") };
            }
            out.push('\n');
        }
        out
    }

    /// The table in Markdown: `words` columns to the left, then numbers to the right.
    pub fn markdown(&self, words: usize) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = (0..self.head.len()).map(|i| if i < words { "---|" } else { "--:|" });
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("{}|{}\n{rows}", line(&self.head), rule.collect::<String>())
    }

    /// The table in a frame of its own, which scrolls where the page is narrow.
    pub fn html(&self, class: &str) -> String {
        let cells = |tag: &str, row: &[String]| -> String {
            row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect()
        };
        let rows = self.rows.iter().map(|row| format!("<tr>{}</tr>", cells("td", row))).collect::<String>();
        let head = cells("th", &self.head);
        format!("<div class=\"wide\"><table class=\"{class}\"><tr>{head}</tr>{rows}</table></div>\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_column_is_of_words() {
        let table = Table::new(&["stage", "n"]).rows([row!["a<b", 12], row!["c", 3]]);
        assert_eq!(table.text(&[6, 4]), "stage    n\na<b     12\nc        3\n");
        assert_eq!(table.markdown(1), "| stage | n |\n|---|--:|\n| a<b | 12 |\n| c | 3 |\n");
        assert!(
            table
                .html("words")
                .contains("<table class=\"words\"><tr><th>stage</th><th>n</th></tr><tr><td>a&lt;b")
        );
        assert_eq!(Table::new(&[]).rows([row!["", "–"]]).text(&[3, 2]), "    –\n");
    }
}
