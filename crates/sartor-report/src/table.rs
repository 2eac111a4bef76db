//! Tables for a terminal of a given width.

use comfy_table::{
    Attribute, CellAlignment, Color, ColumnConstraint, ContentArrangement, LineStyle, Row,
    TableStyle,
};

/// Nothing but a line below the titles.
const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Where a text is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Width of a line in columns; less than 20 counts as 20.
    pub width: u16,
    /// Whether colour may be used.
    pub color: bool,
}

/// What a cell says beyond its words; shown where colour may be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// What the eye should find first.
    Strong,
    /// What may be passed over.
    Faint,
    /// Better than before.
    Good,
    /// Worse than before, or failed.
    Bad,
    /// To be read before the rest is trusted.
    Caution,
}

/// One field of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// The same words in another tone.
    #[must_use]
    pub fn tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self { text: printable(text), tone: Tone::Plain }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

/// How a column is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Text,
    Number,
    Prose,
}

/// A column: its title and how its cells are laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    title: String,
    layout: Layout,
}

impl Column {
    /// Names and words: to the left, cut with `…` where the terminal is too narrow.
    pub fn text(title: &str) -> Self {
        Self { title: printable(title), layout: Layout::Text }
    }

    /// Numbers with their unit: to the right, given room before all others.
    pub fn number(title: &str) -> Self {
        Self { title: printable(title), layout: Layout::Number }
    }

    /// Sentences: to the left, continued on the next line. Beside them nothing is cut.
    pub fn prose(title: &str) -> Self {
        Self { title: printable(title), layout: Layout::Prose }
    }
}

/// A table for the terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows. The line of titles is left out where all titles are empty.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row; missing cells stay empty, cells beyond the last column are dropped.
    pub fn row<T: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = T>) -> &mut Self {
        self.rows.push(cells.into_iter().map(Into::into).take(self.columns.len()).collect());
        self
    }

    /// The table as lines, each with a newline at its end and no blanks before it.
    pub fn render(&self, terminal: Terminal) -> String {
        let mut table = comfy_table::Table::new();
        table
            .load_style(STYLE)
            .force_no_tty()
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(terminal.width.max(20));
        if terminal.color {
            // The caller has decided; the environment has no say here.
            crossterm::style::force_color_output(true);
            table.enforce_styling();
        }
        if self.columns.iter().any(|column| !column.title.is_empty()) {
            let titles = self
                .columns
                .iter()
                .map(|column| comfy_table::Cell::new(&column.title).add_attribute(Attribute::Bold));
            let mut titles = Row::from(titles.collect::<Vec<_>>());
            titles.max_height(1);
            table.set_header(titles);
        }
        for cells in &self.rows {
            table.add_row(self.laid_out(cells));
        }
        for (column, laid_out) in self.columns.iter().zip(table.column_iter_mut()) {
            laid_out.set_padding((0, 1));
            if column.layout == Layout::Number {
                laid_out.set_cell_alignment(CellAlignment::Right);
                laid_out.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        table.trim_fmt() + "\n"
    }

    fn laid_out(&self, cells: &[Cell]) -> Row {
        let mut row = Row::from(cells.iter().map(toned).collect::<Vec<_>>());
        if self.columns.iter().all(|column| column.layout != Layout::Prose) {
            row.max_height(1);
        }
        row
    }
}

fn toned(cell: &Cell) -> comfy_table::Cell {
    let laid_out = comfy_table::Cell::new(&cell.text);
    match cell.tone {
        Tone::Plain => laid_out,
        Tone::Strong => laid_out.add_attribute(Attribute::Bold),
        Tone::Faint => laid_out.add_attribute(Attribute::Dim),
        Tone::Good => laid_out.fg(Color::Green),
        Tone::Bad => laid_out.fg(Color::Red),
        Tone::Caution => laid_out.fg(Color::Yellow),
    }
}

/// Names come from files: nothing in them may move the cursor, change a colour or turn the line.
fn printable(text: &str) -> String {
    let replaced = |c: char| match c {
        '\n' | '\t' => ' ',
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(replaced).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};

    use super::*;

    fn nodes() -> Table {
        let mut table =
            Table::new([Column::text("node"), Column::text("op"), Column::number("latency")]);
        table.row(["layer1.0.conv1", "Conv", "1.23 ms"]);
        table.row([
            Cell::from("a/very/long/name/of/a/node/in/the/third/stage"),
            Cell::from("GlobalAveragePool"),
            Cell::from("120 ns").tone(Tone::Good),
        ]);
        table
    }

    #[test]
    fn numbers_stand_to_the_right_and_names_give_way() {
        insta::assert_snapshot!(nodes().render(Terminal { width: 80, color: false }));
        insta::assert_snapshot!(nodes().render(Terminal { width: 40, color: false }));
    }

    #[test]
    fn sentences_are_continued_and_titles_may_be_left_out() {
        let mut table = Table::new([Column::number(""), Column::prose("")]);
        table.row(["1", "the weights are read once for every inference, so the memory binds"]);
        insta::assert_snapshot!(table.render(Terminal { width: 34, color: false }));
    }

    #[test]
    fn colour_is_used_only_where_it_is_allowed() {
        assert!(!nodes().render(Terminal { width: 80, color: false }).contains('\u{1b}'));
        assert!(nodes().render(Terminal { width: 80, color: true }).contains("\u{1b}[38;5;10m"));
    }

    #[test]
    fn names_cannot_speak_to_the_terminal() {
        let mut table = Table::new([Column::text("node")]);
        table.row(["\u{1b}[2J\u{202e}gone\rx\ny"]);
        let text = table.render(Terminal { width: 80, color: false });
        assert_eq!(text.lines().last(), Some("\u{fffd}[2J\u{fffd}gone\u{fffd}x y"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_text_and_no_width_breaks_it(text in any::<String>(), width in any::<u16>(), color: bool) {
            let mut table = Table::new([Column::text("a"), Column::number("b"), Column::prose("c")]);
            table.row([text.as_str(), "1", text.as_str()]).row(["x"]).row(["1", "2", "3", "4"]);
            let text = table.render(Terminal { width: width % 200, color });
            prop_assert!(!text.is_empty());
        }
    }
}
