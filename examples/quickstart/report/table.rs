//! A table of text: columns as wide as their widest cell, numbers to the right, words to the left.

/// Where the cells of a column stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Rows under a header; all have as many cells as the header.
#[derive(Debug)]
pub struct Table {
    align: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const COLUMNS: usize>(header: [(&str, Align); COLUMNS]) -> Self {
        Self {
            align: header.iter().map(|&(_, align)| align).collect(),
            rows: vec![header.iter().map(|&(name, _)| name.to_owned()).collect()],
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table indented by two spaces, a rule under the header, every line ended.
    pub fn render(&self) -> String {
        let columns = 0..self.align.len();
        let cell_width = |row: &Vec<String>, column: usize| {
            row.get(column).map_or(0, |cell| cell.chars().count())
        };
        let widest =
            |column| self.rows.iter().map(|row| cell_width(row, column)).max().unwrap_or(0);
        let widths: Vec<usize> = columns.map(widest).collect();

        let mut lines = Vec::new();
        for row in &self.rows {
            let cells =
                row.iter().zip(&widths).zip(&self.align).map(
                    |((cell, &width), align)| match align {
                        Align::Left => format!("{cell:<width$}"),
                        Align::Right => format!("{cell:>width$}"),
                    },
                );
            lines.push(cells.collect::<Vec<_>>().join("  "));
        }
        let rules: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
        lines.insert(1, rules.join("  "));
        lines.iter().map(|line| format!("  {}\n", line.trim_end())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new([("name", Align::Left), ("value", Align::Right)]);
        table.row([String::from("a"), String::from("1")]);
        table.row([String::from("longer"), String::from("1234567")]);
        let expected =
            "  name      value\n  ------  -------\n  a             1\n  longer  1234567\n";
        assert_eq!(table.render(), expected);
    }
}
