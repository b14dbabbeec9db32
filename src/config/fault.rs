//! Faults of a configuration, each with its place: rendered like a compiler's, all at once.

use std::fmt;

use super::mask::{self, Mask};
use super::node::Origin;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it stands.
    pub place: Place,
    /// What was found.
    pub message: String,
    /// What is allowed instead.
    pub allowed: Option<String>,
    /// The nearest valid key or value, where one is close.
    pub nearest: Option<String>,
}

/// Where a fault stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a place of the file.
    At {
        /// The file as named on the command line.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// The line itself, or what surrounds the column of a long one; secrets masked.
        source_line: String,
        /// How many characters of `source_line` stand before what is meant.
        indent: usize,
        /// How many characters are meant.
        length: usize,
    },
    /// In the file as a whole.
    File(String),
    /// In the environment variable of this name.
    Environment(String),
    /// After this option of the command line.
    CommandLine(&'static str),
    /// Nowhere in particular: something is missing, and there is no file.
    Nowhere,
}

/// All faults of a configuration: at least one, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.0 {
            writeln!(f, "{fault}")?;
        }
        match self.0.len() {
            1 => write!(f, "1 fault"),
            count => write!(f, "{count} faults"),
        }
    }
}

impl IntoIterator for Faults {
    type Item = Fault;
    type IntoIter = std::vec::IntoIter<Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        let hint = self.nearest.as_ref().map(|near| format!("did you mean `{near}`?"));
        let gutter = self.place.gutter();
        self.place.write(f, hint.as_deref())?;
        if let Some(allowed) = &self.allowed {
            writeln!(f, "{gutter}= allowed: {allowed}")?;
        }
        match (&self.place, hint) {
            (Place::At { .. }, _) | (_, None) => Ok(()),
            (_, Some(hint)) => writeln!(f, "{gutter}= {hint}"),
        }
    }
}

impl Place {
    fn gutter(&self) -> String {
        match self {
            Self::At { line, .. } => " ".repeat(line.to_string().len().max(2) + 1),
            _ => " ".repeat(3),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, hint: Option<&str>) -> fmt::Result {
        let gutter = self.gutter();
        let arrow = gutter.get(1..).unwrap_or_default();
        match self {
            Self::At { file, line, column, source_line: text, indent, length } => {
                writeln!(f, "{arrow}--> {file}:{line}:{column}\n{gutter}|")?;
                writeln!(f, "{line:>width$} | {text}", width = gutter.len() - 1)?;
                let (space, carets) = (" ".repeat(*indent), "^".repeat(*length));
                let line = format!("{gutter}| {space}{carets} {}", hint.unwrap_or_default());
                writeln!(f, "{}", line.trim_end())
            }
            Self::File(file) => writeln!(f, "{arrow}--> {file}"),
            Self::Environment(name) => writeln!(f, "{arrow}--> environment {name}"),
            Self::CommandLine(option) => writeln!(f, "{arrow}--> {option}"),
            Self::Nowhere => Ok(()),
        }
    }
}

/// What is wrong, before its place is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Complaint {
    message: String,
    veiled: Option<String>,
    allowed: Option<String>,
    nearest: Option<String>,
}

impl Complaint {
    /// A complaint that says what was found.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    /// Says instead what does not quote the place, should that be hidden.
    pub(super) fn veiled(mut self, veiled: Option<String>) -> Self {
        self.veiled = veiled;
        self
    }

    /// Says what is allowed.
    pub(super) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    /// Says what is nearest.
    pub(super) fn nearest(mut self, nearest: Option<String>) -> Self {
        self.nearest = nearest;
        self
    }
}

/// The most faults that are told: more come from something that is no configuration.
const FAULTS_MAX: usize = 500;

/// Collects faults and warnings while a configuration is checked.
#[derive(Debug, Default)]
pub(super) struct Report {
    file: Option<String>,
    text: String,
    faults: Vec<(Origin, Complaint)>,
    /// Faults beyond those that are told.
    untold: usize,
    /// Lines and columns from which on a line is not shown.
    hidden: Vec<(usize, usize)>,
    /// What does not stop us, but should be known.
    pub(super) warnings: Vec<String>,
}

impl Report {
    /// A report on the file of this name.
    pub(super) fn new(file: Option<String>) -> Self {
        Self { file, ..Self::default() }
    }

    /// The file's text: source lines are cut from it.
    pub(super) fn source(&mut self, text: &str) {
        text.clone_into(&mut self.text);
    }

    /// Adds a fault.
    pub(super) fn fault(&mut self, origin: &Origin, complaint: Complaint) {
        match self.faults.len() < FAULTS_MAX {
            true => self.faults.push((origin.clone(), complaint)),
            false => self.untold += 1,
        }
    }

    /// Hides what stands at `origin`, and what follows it on its line, from all that is shown.
    pub(super) fn hide(&mut self, origin: &Origin) {
        if let Origin::File { line, column, .. } = origin {
            self.hidden.push((*line, *column));
        }
    }

    /// Adds a warning.
    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(mask::line(&warning));
    }

    /// How many faults there are.
    pub(super) fn count(&self) -> usize {
        self.faults.len() + self.untold
    }

    /// The place of `origin` in words, for a fault that has two places.
    pub(super) fn place_in_words(&self, origin: &Origin) -> String {
        match origin {
            Origin::File { line, .. } => format!("line {line}"),
            Origin::Environment(name) => format!("environment {name}"),
            Origin::CommandLine(option) => (*option).to_owned(),
            Origin::Nowhere => "the default".to_owned(),
        }
    }

    /// All faults, in the order of the file, with their source lines.
    pub(super) fn into_faults(mut self) -> Faults {
        self.faults.sort_by_key(|(origin, _)| match origin {
            Origin::File { line, column, .. } => (*line, *column),
            _ => (usize::MAX, 0),
        });
        if self.untold > 0 {
            let message = format!("there are {} more faults, not shown here", self.untold);
            self.faults.push((Origin::Nowhere, Complaint::new(message)));
        }
        let mask = Mask::of(&self.text, &self.hidden);
        let file = self.file.as_deref();
        Faults(self.faults.into_iter().map(|(o, c)| fault(file, &mask, o, c)).collect())
    }
}

fn fault(file: Option<&str>, mask: &Mask, origin: Origin, complaint: Complaint) -> Fault {
    let message = match (&origin, complaint.veiled) {
        (Origin::File { line, column, .. }, Some(veiled)) if mask.hides(*line, *column) => veiled,
        _ => complaint.message,
    };
    let place = match (origin, file) {
        (Origin::File { line, column, length }, Some(file)) => {
            let (source_line, indent, length) = crop(mask.show(line), column, length);
            Place::At { file: file.to_owned(), line, column, source_line, indent, length }
        }
        (Origin::Environment(name), _) => Place::Environment(mask::line(&name)),
        (Origin::CommandLine(option), _) => Place::CommandLine(option),
        (_, Some(file)) => Place::File(file.to_owned()),
        (_, None) => Place::Nowhere,
    };
    Fault {
        place,
        message: mask::line(&message),
        allowed: complaint.allowed,
        nearest: complaint.nearest.map(|near| mask::line(&near)),
    }
}

/// The most characters of a source line that are shown.
const LINE_CHARS_MAX: usize = 140;

/// Cuts a long line to what surrounds `column`: the text, the carets' indent and their length.
fn crop(line: &str, column: usize, length: usize) -> (String, usize, usize) {
    let total = line.chars().count();
    let at = column.saturating_sub(1).min(total);
    let start = if total > LINE_CHARS_MAX { at.saturating_sub(LINE_CHARS_MAX / 3) } else { 0 };
    let cut: String = line.chars().skip(start).take(LINE_CHARS_MAX).collect();
    let room = cut.chars().count().saturating_sub(at - start);
    let (left, right) = (start > 0, start + LINE_CHARS_MAX < total);
    let text = format!("{}{cut}{}", if left { "…" } else { "" }, if right { "…" } else { "" });
    (text, at - start + usize::from(left), length.clamp(1, room.max(1)))
}

/// The name among `names` that is close enough to `typed` to be meant.
pub(super) fn nearest<'a>(
    typed: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if typed.len() > 64 {
        return None;
    }
    let typed = typed.to_lowercase().replace('-', "_");
    let limit = (typed.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&typed, name), name))
        .filter(|(distance, name)| *distance <= limit && *distance < name.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
