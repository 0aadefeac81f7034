//! The gates of a partition while somebody watches: a bar for each on a terminal, one line elsewhere.

use std::{collections::BTreeMap, fmt::Write, io, time::Duration};

use gatefeed_core::inspect::GateCounts;
use indicatif::{ProgressBar, ProgressStyle};
use unicode_width::UnicodeWidthStr;

use crate::{logging::is_coloured, output};

/// More gates are not shown at a time.
const GATES_MAX: usize = 12;

/// How many gates that are behind are shown, where there are too many.
const BEHIND_MAX: usize = 3;

const BAR_CELLS_MAX: usize = 32;
const BAR_CELLS_MIN: usize = 6;

/// Counting a partition's gates may take at most this part of the time.
const COST_MAX: u32 = 10;

/// How long to wait before the next look, when the last one took so long.
pub(crate) fn pace(took: Duration, min: Duration) -> Duration {
    took.saturating_mul(COST_MAX).max(min)
}

/// What is known of the gates of a partition.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    views: BTreeMap<i32, View>,
    /// Gates up to this one are reached.
    reached: i32,
}

/// One gate.
#[derive(Clone, Copy, Debug, Default)]
struct View {
    counts: GateCounts,
    /// Deliveries begun and not ended, if that is known here. Their items count as available.
    in_flight: Option<i64>,
    /// The most items that it has been seen to have: those that moved on to a later gate are through.
    total: i64,
}

impl View {
    /// Due or delayed, and not in flight.
    fn available(&self) -> i64 {
        (self.counts.available - self.flying()).max(0)
    }

    /// No more than there are: the counts may be older.
    fn flying(&self) -> i64 {
        self.in_flight.unwrap_or(0).min(self.counts.available)
    }

    /// Done here, or moved on.
    fn through(&self) -> i64 {
        self.total - self.counts.open() - self.counts.failed - self.counts.cancelled
    }
}

impl Gates {
    /// Takes what a look has found. `reached` is the partition's gate.
    pub(crate) fn update(
        &mut self,
        counts: &[GateCounts],
        reached: i32,
        in_flight: impl Fn(i32) -> Option<i64>,
    ) {
        self.reached = reached;
        for view in self.views.values_mut() {
            view.counts = GateCounts { gate: view.counts.gate, ..GateCounts::default() };
        }
        for counts in counts {
            self.views.entry(counts.gate).or_default().counts = *counts;
        }
        for (gate, view) in &mut self.views {
            view.total = view.total.max(view.counts.total());
            view.in_flight = in_flight(*gate);
        }
    }

    /// A line for each gate, or for those around the current one, none wider than `width`.
    fn lines(&self, width: usize, gates_max: usize, is_coloured: bool) -> Vec<String> {
        let (before, shown, after) = self.window(gates_max);
        let label_width = shown.iter().map(|(gate, _)| label(**gate).len()).max().unwrap_or(0);
        let texts: Vec<String> = self.texts(&shown);
        let text_width = texts.iter().map(|text| text.width()).max().unwrap_or(0);
        let cells = width.saturating_sub(label_width + text_width + 4).min(BAR_CELLS_MAX);
        let paint = Paint { is_coloured };
        let line = |((gate, view), text): (&(&i32, &View), &String)| {
            let label = format!("{:label_width$}", label(**gate));
            let is_locked = **gate > self.reached;
            if cells < BAR_CELLS_MIN {
                return paint.locked(is_locked, &output::shortened(&format!("{label}  {text}"), width - 1));
            }
            let bar = bar(view, is_locked, cells, paint);
            format!("{}  {bar}  {}", paint.locked(is_locked, &label), paint.locked(is_locked, text))
        };
        let mut lines = Vec::new();
        lines.extend(left_out(before, "before"));
        lines.extend(shown.iter().zip(&texts).map(line));
        lines.extend(left_out(after, "after"));
        lines
    }

    /// How many gates are left out before, those that are shown, and how many are left out after.
    fn window(&self, gates_max: usize) -> (usize, Vec<(&i32, &View)>, usize) {
        let reached = self.views.range(..=self.reached).count();
        let first = match self.views.len() > gates_max {
            true => reached.saturating_sub(1 + BEHIND_MAX).min(self.views.len() - gates_max),
            false => 0,
        };
        let shown: Vec<_> = self.views.iter().skip(first).take(gates_max).collect();
        let after = self.views.len() - first - shown.len();
        (first, shown, after)
    }

    /// The counts of each gate, with numbers one below the other.
    fn texts(&self, shown: &[(&i32, &View)]) -> Vec<String> {
        let rows: Vec<[Field; FIELDS]> = shown.iter().map(|(_, view)| view.fields()).collect();
        // As wide as they may become, so that the bars do not jump.
        let widest = shown.iter().map(|(_, view)| compact(view.total).len()).max().unwrap_or(0);
        let columns: Vec<Column> = (0..FIELDS).map(|index| Column::of(&rows, index, widest)).collect();
        shown.iter().zip(&rows).map(|((gate, _), fields)| self.text(**gate, fields, &columns)).collect()
    }

    fn text(&self, gate: i32, fields: &[Field; FIELDS], columns: &[Column]) -> String {
        let is_locked = gate > self.reached;
        let part = |(field, column): (&Field, &Column)| {
            // A gate that is not reached has items that wait for it, and little else to tell.
            let is_shown =
                if is_locked { field.name == AVAILABLE || field.number != 0 } else { column.is_used };
            is_shown
                .then(|| format!("{} {:>width$}", field.name, compact(field.number), width = column.width))
        };
        let parts = fields.iter().zip(columns).filter_map(part).chain(self.lock(gate));
        parts.collect::<Vec<_>>().join(" · ")
    }

    /// What a gate that is not reached waits for.
    fn lock(&self, gate: i32) -> Option<String> {
        if gate <= self.reached {
            return None;
        }
        let before = self.views.range(..gate).next_back();
        Some(
            before.map_or_else(|| "not reached yet".to_owned(), |(gate, _)| format!("waits for gate {gate}")),
        )
    }

    /// All gates that are shown in one line, for a log.
    pub(crate) fn line(&self) -> String {
        let (before, shown, after) = self.window(GATES_MAX);
        let mut parts: Vec<String> = left_out(before, "before").into_iter().collect();
        parts.extend(shown.iter().map(|(gate, view)| self.sentence(**gate, view)));
        parts.extend(left_out(after, "after"));
        parts.join("; ")
    }

    fn sentence(&self, gate: i32, view: &View) -> String {
        let mut text = format!("gate {gate}: {} of {} complete", view.through(), view.total);
        for Field { name, number, .. } in view.fields() {
            if name != COMPLETE && number != 0 {
                _ = write!(text, ", {number} {name}");
            }
        }
        if let Some(lock) = self.lock(gate) {
            _ = write!(text, ", {lock}");
        }
        text
    }
}

const AVAILABLE: &str = "available";
const IN_FLIGHT: &str = "in flight";
const COMPLETE: &str = "complete";

const FIELDS: usize = 7;

/// One count of a gate.
struct Field {
    name: &'static str,
    number: i64,
    /// Whether it is worth its place even when it is zero.
    is_common: bool,
}

/// The same count of all gates.
struct Column {
    width: usize,
    is_used: bool,
}

impl Column {
    fn of(rows: &[[Field; FIELDS]], index: usize, widest: usize) -> Self {
        let fields = || rows.iter().map(|row| &row[index]);
        let is_wide = fields().any(|field| [AVAILABLE, IN_FLIGHT, COMPLETE].contains(&field.name));
        let width = fields().map(|field| compact(field.number).len()).max().unwrap_or(0);
        let is_used = fields().any(|field| field.is_common || field.number != 0);
        Self { width: if is_wide { widest } else { width }, is_used }
    }
}

impl View {
    fn fields(&self) -> [Field; FIELDS] {
        let counts = &self.counts;
        let common = |name, number| Field { name, number, is_common: true };
        let rare = |name, number| Field { name, number, is_common: false };
        [
            common(AVAILABLE, self.available()),
            Field { name: IN_FLIGHT, number: self.flying(), is_common: self.in_flight.is_some() },
            rare("waiting", counts.waiting),
            rare("blocked", counts.blocked),
            common(COMPLETE, self.through()),
            common("failed", counts.failed),
            rare("cancelled", counts.cancelled),
        ]
    }
}

fn label(gate: i32) -> String {
    format!("gate {gate}")
}

fn left_out(number: usize, place: &str) -> Option<String> {
    let gates = if number == 1 { "gate" } else { "gates" };
    (number > 0).then(|| format!("… and {number} {gates} {place}"))
}

/// A number in few characters.
fn compact(number: i64) -> String {
    match number {
        ..100_000 => indicatif::HumanCount(number.max(0).unsigned_abs()).to_string(),
        100_000..10_000_000 => format!("{}k", number / 1000),
        _ => format!("{}M", number / 1_000_000),
    }
}

/// How parts of a line look; without colours they differ by their characters alone.
#[derive(Clone, Copy)]
struct Paint {
    is_coloured: bool,
}

const GREEN: &str = "32";
const CYAN: &str = "36";
const RED: &str = "31";
const DIM: &str = "2";

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.is_coloured && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn locked(self, is_locked: bool, text: &str) -> String {
        if is_locked { self.with(DIM, text) } else { text.to_owned() }
    }
}

/// The bar: through, failed, in flight, and what is left.
fn bar(view: &View, is_locked: bool, cells: usize, paint: Paint) -> String {
    if is_locked {
        return paint.with(DIM, &"┄".repeat(cells));
    }
    let parts = [(view.through(), "━", GREEN), (view.counts.failed, "×", RED), (view.flying(), "╍", CYAN)];
    let total = view.total.max(1);
    let (mut bar, mut sum, mut drawn) = (String::new(), 0, 0);
    for (number, sign, colour) in parts {
        sum += number;
        let end = (i128::from(sum) * cells as i128 / i128::from(total)).clamp(0, cells as i128) as usize;
        bar += &paint.with(colour, &sign.repeat(end.saturating_sub(drawn)));
        drawn = drawn.max(end);
    }
    bar + &paint.with(DIM, &"─".repeat(cells - drawn))
}

/// Where the bars are drawn: stderr, if it is a terminal.
pub(crate) struct Bars {
    drawing: ProgressBar,
}

impl Bars {
    /// `None`: stderr is no terminal.
    pub(crate) fn new() -> Option<Self> {
        if !io::IsTerminal::is_terminal(&io::stderr()) {
            return None;
        }
        let style =
            ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        Some(Self { drawing: ProgressBar::new_spinner().with_style(style) })
    }

    /// Draws the gates in place of what was drawn before.
    pub(crate) fn show(&self, gates: &Gates) {
        let (width, height) = terminal_size();
        let lines = gates.lines(
            width - 1,
            GATES_MAX.min(height.saturating_sub(4)).max(1),
            is_coloured(&io::stderr()),
        );
        self.drawing.set_message(lines.join("\n"));
        self.drawing.tick();
    }

    /// Writes a remark above the bars.
    pub(crate) fn note(&self, text: &str) {
        self.drawing.println(text);
    }

    /// Leaves the bars where they are.
    pub(crate) fn end(self) {
        self.drawing.abandon();
    }
}

/// Columns and rows, with what terminals had for half a century where the terminal does not tell.
fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 1 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(gate: i32, available: i64, complete: i64, failed: i64) -> GateCounts {
        GateCounts { gate, available, complete, failed, ..GateCounts::default() }
    }

    fn gates(counts: &[GateCounts], reached: i32) -> Gates {
        let mut gates = Gates::default();
        gates.update(counts, reached, |_| None);
        gates
    }

    #[test]
    fn a_line_a_gate_and_the_barrier_shows() {
        let mut gates = Gates::default();
        gates.update(&[counts(0, 20, 40, 0), counts(1, 1, 0, 0)], 0, |gate| Some(8 * i64::from(gate == 0)));
        let expected = [
            "gate 0  ━━━━━━━━━━━━━━━━╍╍╍╍─────  available 12 · in flight  8 · complete 40 · failed 0",
            "gate 1  ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄  available  1 · waits for gate 0",
        ];
        let lines = gates.lines(87, 12, false);
        assert_eq!(lines, expected);
    }

    #[test]
    fn items_that_moved_on_are_through() {
        let mut gates = gates(&[counts(0, 10, 0, 0)], 0);
        gates.update(&[counts(0, 3, 1, 1), counts(7, 5, 0, 0)], 0, |_| None);
        assert_eq!(
            gates.line(),
            "gate 0: 6 of 10 complete, 3 available, 1 failed; gate 7: 0 of 5 complete, 5 available, waits for gate 0"
        );
        gates.update(&[counts(7, 2, 8, 0)], 7, |_| None);
        assert_eq!(gates.line(), "gate 0: 10 of 10 complete; gate 7: 8 of 10 complete, 2 available");
    }

    #[test]
    fn lines_fit_whatever_the_width() {
        let all: Vec<_> =
            (0..30).map(|gate| counts(gate * 50_000_000, 2_000_000 * i64::from(gate), 99_999, 3)).collect();
        let gates = gates(&all, 600_000_000);
        for width in 2..120 {
            for line in gates.lines(width, 12, false) {
                assert!(line.width() <= width.max("… and 18 gates before".len()), "{width}: {line}");
            }
        }
    }

    #[test]
    fn of_many_gates_those_around_the_current_one_are_shown() {
        let all: Vec<_> = (0..40).map(|gate| counts(gate * 10, 1, 0, 0)).collect();
        let lines = gates(&all, 200).lines(100, 12, false);
        assert_eq!(lines.len(), 14);
        assert_eq!(
            (lines[0].as_str(), lines[13].as_str()),
            ("… and 17 gates before", "… and 11 gates after")
        );
        assert!(lines[4].starts_with("gate 200 ") && lines[4].contains("complete 0"));
        assert!(lines[5].contains("waits for gate 200"));
        assert_eq!(gates(&all, 390).lines(100, 12, false).len(), 13);
    }

    #[test]
    fn counts_that_do_not_fit_together_are_drawn_all_the_same() {
        let mut gates = Gates::default();
        gates.update(&[counts(0, 1, 0, 0)], 5, |_| Some(100));
        assert!(gates.lines(80, 12, true)[0].contains("available 0 · in flight 1"));
        gates.update(&[], 5, |_| Some(100));
        assert!(gates.lines(80, 12, false)[0].contains("complete 1"));
        assert!(Gates::default().lines(80, 12, false).is_empty());
    }

    #[test]
    fn looking_costs_a_tenth_of_the_time_at_the_most() {
        let ms = Duration::from_millis;
        assert_eq!((pace(ms(1), ms(250)), pace(ms(300), ms(250))), (ms(250), ms(3000)));
    }
}
