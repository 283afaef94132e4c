//! A table of text in three columns: cells are wrapped, rows of more than one line stand apart.

/// Characters of the columns.
const WIDTHS: [usize; 3] = [30, 42, 42];

/// One row: what is asked, and the answers of both conventions.
pub type Row = [String; 3];

/// Rows under a header.
#[derive(Debug)]
pub struct Table {
    header: Row,
    rows: Vec<Row>,
}

impl Table {
    pub fn new(header: [&str; 3], rows: Vec<Row>) -> Self {
        Self { header: header.map(str::to_owned), rows }
    }

    /// The table indented by two spaces, a rule under the header, every line ended.
    pub fn render(&self) -> String {
        let mut text = lines(&self.header);
        text += &lines(&WIDTHS.map(|width| "-".repeat(width)));
        for row in &self.rows {
            text += &lines(row);
        }
        text
    }
}

/// The lines of one row.
fn lines(row: &Row) -> String {
    let cells = [0, 1, 2].map(|column| wrap(&row[column], WIDTHS[column]));
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    let line = |at: usize| {
        let part = |column: usize| cells[column].get(at).map_or("", String::as_str);
        let [a, b, c] = [0, 1, 2].map(part);
        let padded = format!("  {a:<0$}  {b:<1$}  {c}", WIDTHS[0], WIDTHS[1]);
        format!("{}\n", padded.trim_end())
    };
    (0..height).map(line).collect()
}

/// Breaks a text at its spaces; a word longer than a line stands alone.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            *line = word.to_owned();
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            *line += " ";
            *line += word;
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_wrapped_at_their_column_s_width() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("aa bbbbbbb c", 5), ["aa", "bbbbbbb", "c"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn columns_line_up_where_cells_have_several_lines() {
        let long = "x ".repeat(40);
        let table = Table::new(["what", "one", "two"], vec![["a".into(), long, "b".into()]]);
        let text = table.render();
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(rows.len(), 2);
        assert!(rows[0].ends_with("  b") && rows[0].starts_with("  a  "));
        assert_eq!(rows[1].find('x'), Some(2 + WIDTHS[0] + 2));
    }
}
