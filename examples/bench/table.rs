//! The one table.

use std::{fmt, time::Duration};

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

/// What a row's figure is.
#[derive(Clone, Copy)]
pub enum Figure {
    /// CPU or wall time.
    Time(Duration),
    /// Memory in KiB.
    Memory(u64),
    /// Bytes on the wire.
    Bytes(u64),
    /// So many of something.
    Count(f64),
    /// A part of one core.
    Core(f64),
}

impl Figure {
    fn value(self) -> f64 {
        match self {
            Self::Time(time) => time.as_secs_f64(),
            Self::Memory(value) | Self::Bytes(value) => value as f64,
            Self::Count(value) | Self::Core(value) => value,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) if time.as_secs() > 0 => write!(f, "{:.2} s", time.as_secs_f64()),
            Self::Time(time) => write!(f, "{:.1} ms", time.as_secs_f64() * 1e3),
            Self::Memory(kib) => write!(f, "{:.1} MiB", *kib as f64 / 1024.0),
            Self::Bytes(bytes) if *bytes >= 1 << 20 => {
                write!(f, "{:.2} MiB", *bytes as f64 / f64::from(1 << 20))
            }
            Self::Bytes(bytes) if *bytes >= 1 << 10 => write!(f, "{:.1} KiB", *bytes as f64 / 1024.0),
            Self::Bytes(bytes) => write!(f, "{bytes} B"),
            Self::Count(count) if count.fract() == 0.0 => write!(f, "{count}"),
            Self::Count(count) => write!(f, "{count:.1}"),
            Self::Core(part) => write!(f, "{:.2} % of a core", part * 100.0),
        }
    }
}

/// What a row should come to.
#[derive(Clone, Copy)]
pub enum Target {
    /// At most this ratio to the baseline, written so.
    Ratio(f64, &'static str),
    /// At most this.
    Most(Figure),
    /// None: the row is there to be read.
    None,
}

impl Target {
    fn words(self, figure: Figure, baseline: Option<Figure>) -> [String; 2] {
        let (text, met) = match self {
            Self::Ratio(limit, text) => {
                let met = baseline.is_some_and(|baseline| figure.value() <= baseline.value() * limit);
                (format!("≤ {text}"), met)
            }
            Self::Most(limit) => (format!("≤ {limit}"), figure.value() <= limit.value()),
            Self::None => return [String::new(), String::new()],
        };
        [text, if met { "met" } else { "missed" }.to_owned()]
    }
}

/// All rows.
#[derive(Default)]
pub struct Rows {
    rows: Vec<[String; 7]>,
    notes: Vec<String>,
}

impl Rows {
    /// What the next rows are about.
    pub fn title(&mut self, title: &str) {
        let mut row: [String; 7] = Default::default();
        row[0] = title.to_uppercase();
        self.rows.push(row);
    }

    /// A figure beside what `than` came to.
    pub fn beside(&mut self, what: &str, figure: Figure, baseline: Figure, than: &str, target: Target) {
        let ratio = figure.value() / baseline.value();
        let ratio = if baseline.value() == 0.0 {
            String::new()
        } else if ratio > 0.0 && ratio < 0.5 {
            format!("{ratio:.4} (1/{:.0})", ratio.recip())
        } else {
            format!("{ratio:.2}")
        };
        self.push(what, figure, Some(baseline), than, ratio, target);
    }

    /// A figure by itself.
    pub fn alone(&mut self, what: &str, figure: Figure, target: Target) {
        self.push(what, figure, None, "", String::new(), target);
    }

    fn push(
        &mut self,
        what: &str,
        figure: Figure,
        baseline: Option<Figure>,
        than: &str,
        ratio: String,
        target: Target,
    ) {
        let [target, met] = target.words(figure, baseline);
        let beside = baseline.map(|baseline| baseline.to_string()).unwrap_or_default();
        let row = [format!("  {what}"), figure.to_string(), beside, than.to_owned(), ratio, target, met];
        eprintln!("    {}", row.iter().map(|cell| cell.trim()).collect::<Vec<_>>().join(" | "));
        self.rows.push(row);
    }

    /// Something a reader must know, below the table.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
        table.set_header(["", "measured", "baseline", "which is", "ratio", "target", ""]);
        for column in [1, 2] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.add_rows(&self.rows);
        writeln!(f, "{table}")?;
        for note in &self.notes {
            writeln!(f, "- {note}")?;
        }
        Ok(())
    }
}
