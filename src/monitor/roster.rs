//! The monitors in force: those of the configuration, and those that were saved over them or beside
//! them while flowtap ran. A saved one takes the place of the configured one of its name, until it is
//! taken back.
//!
//! Each saved text is checked by the rules of the configuration. One that does not keep them, which a
//! later version or a hand may bring about, is set aside and named: what is configured counts then.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::{saved, schedule};
use crate::config::{
    Admin, Config, Evaluate, Fault, Faults, Monitor, Place, monitors_in, monitors_shown,
};

/// All monitors of a process.
#[derive(Clone)]
pub struct Roster(Arc<Inner>);

struct Inner {
    admin: Admin,
    evaluate: Option<Evaluate>,
    configured: Vec<Monitor>,
    /// Why what was saved cannot be read.
    unreadable: Option<String>,
    kept: Mutex<BTreeMap<Arc<str>, Kept>>,
    in_force: watch::Sender<Arc<[Monitor]>>,
}

/// A saved text, and what it says.
struct Kept {
    text: String,
    checked: Result<Monitor, Faults>,
}

/// One monitor as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Arc<str>,
    /// What was saved, as it was typed; else what is configured.
    pub yaml: String,
    /// What is configured under this name.
    pub configured: Option<String>,
    /// Whether it was saved.
    pub saved: bool,
    /// What is wrong with what was saved: then it is not in force.
    pub faults: Vec<Fault>,
    /// Changes with all of the above.
    pub version: String,
}

/// Which state a change is made on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// The entry as of this version.
    Version(String),
    /// Any entry, whatever it says.
    Any,
    /// There is none.
    Absent,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Unsaved {
    /// Nothing can be changed here at all.
    #[error("{0}")]
    ReadOnly(String),
    /// The text is not what it may be.
    #[error("{0}")]
    Faulty(Faults),
    /// Somebody else was faster.
    #[error("the monitor is not the one that was read: somebody changed it meanwhile")]
    Changed,
    /// There is none of this name.
    #[error("there is no monitor `{0}`")]
    Unknown(String),
    /// It was not saved, so nothing can be taken back.
    #[error("`{0}` was not saved here: it is in the configuration file, and ends where it begins")]
    Configured(String),
    /// There are as many as there may be.
    #[error("there are {max} saved monitors, which is the most", max = saved::SAVED_MAX)]
    Full,
    /// The disk.
    #[error("the folder {0} cannot be written to: {1}")]
    Write(String, io::Error),
}

impl Roster {
    /// Reads what was saved. What cannot be read is told in the log, and what is configured counts.
    pub fn open(config: &Config) -> Self {
        let dir = &config.admin.monitors_dir;
        let (kept, unreadable) = match saved::read(dir) {
            Ok(texts) => (texts, None),
            Err(error) => {
                let told = format!("the folder {} cannot be read: {error}", dir.display());
                (BTreeMap::new(), Some(told))
            }
        };
        if let Some(told) = &unreadable {
            tracing::error!("saved monitors are left out: {told}");
        }
        let evaluate = config.evaluate.clone();
        let kept: BTreeMap<_, _> = kept
            .into_iter()
            .map(|(name, text)| {
                let kept = Kept::of(&name, text, evaluate.as_ref());
                (name, kept)
            })
            .collect();
        for (name, faults) in kept.iter().filter_map(|(n, k)| Some((n, k.checked.as_ref().err()?)))
        {
            tracing::error!(monitor = &**name, "a saved monitor is set aside: {faults}");
        }
        let configured = config.monitors.clone();
        let in_force = watch::Sender::new(in_force(&configured, &kept));
        let (admin, kept) = (config.admin.clone(), Mutex::new(kept));
        Self(Arc::new(Inner { admin, evaluate, configured, unreadable, kept, in_force }))
    }

    /// Those that run, and every change of them.
    pub fn in_force(&self) -> watch::Receiver<Arc<[Monitor]>> {
        self.0.in_force.subscribe()
    }

    /// Why what was saved cannot be trusted to be all: the folder, or this monitor's file.
    pub fn doubt(&self, name: Option<&str>) -> Option<String> {
        let kept = self.kept();
        let asked = kept.iter().filter(|(of, _)| name.is_none_or(|name| *name == ***of));
        let mut faulty =
            asked.filter_map(|(name, kept)| Some((name, kept.checked.as_ref().err()?)));
        let of_one = |(name, faults)| format!("the saved monitor `{name}` is faulty:\n{faults}");
        self.0.unreadable.clone().or_else(|| faulty.next().map(of_one))
    }

    /// The folder of what is saved.
    pub fn dir(&self) -> &Path {
        &self.0.admin.monitors_dir
    }

    /// Why nothing can be saved; `None` where it can.
    pub fn read_only(&self) -> Option<String> {
        let Admin { read_only, listen, token, monitors_dir, .. } = &self.0.admin;
        if *read_only {
            return Some("this flowtap is read-only (`admin.read_only`)".to_owned());
        }
        if token.is_none() && !listen.ip().is_loopback() {
            let told = "without a token nothing is changed from other hosts: set `admin.token_file`, \
                        or let `admin.listen` be a loopback address";
            return Some(told.to_owned());
        }
        self.0.unreadable.clone().or_else(|| saved::unwritable(monitors_dir))
    }

    /// All of them: the configured ones in their order, then those that were only saved.
    pub fn entries(&self) -> Vec<Entry> {
        let kept = self.kept();
        let configured = self.0.configured.iter().map(|monitor| &monitor.name);
        let only_saved = kept.keys().filter(|name| self.configured(name).is_none());
        configured.chain(only_saved).filter_map(|name| self.entry_of(name, &kept)).collect()
    }

    /// One of them.
    pub fn entry(&self, name: &str) -> Option<Entry> {
        self.entry_of(name, &self.kept())
    }

    /// All that are in force, as one text.
    pub fn shown(&self) -> String {
        monitors_shown(&self.0.in_force.borrow())
    }

    /// When the one of this name runs next; `None` where it is not in force, or never again.
    pub fn next(&self, name: &str, now: Timestamp) -> Option<Timestamp> {
        let in_force = self.0.in_force.borrow();
        schedule::next(in_force.iter().find(|monitor| *monitor.name == *name)?, now)
    }

    /// What is wrong with `text`, or the names of its monitors.
    ///
    /// # Errors
    /// All faults at once, each with its place in the text.
    pub fn check(&self, text: &str) -> Result<Vec<Arc<str>>, Faults> {
        let monitors = monitors_in(text, self.0.evaluate.as_ref())?;
        Ok(monitors.into_iter().map(|monitor| monitor.name).collect())
    }

    /// Saves `text` as the monitor `name`; true where there was none. It is on the disk and in force
    /// when this returns. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// Nothing was changed.
    pub fn save(&self, name: &str, text: &str, known: &Known) -> Result<(Entry, bool), Unsaved> {
        self.may_change()?;
        let monitor = one(name, text, self.0.evaluate.as_ref()).map_err(Unsaved::Faulty)?;
        let mut kept = self.kept();
        let before = self.entry_of(name, &kept);
        if !known.holds(before.as_ref()) {
            return Err(Unsaved::Changed);
        }
        if kept.len() >= saved::SAVED_MAX && !kept.contains_key(name) {
            return Err(Unsaved::Full);
        }
        saved::write(self.dir(), name, text).map_err(|error| self.unwritten(error))?;
        let name = Arc::clone(&monitor.name);
        kept.insert(Arc::clone(&name), Kept { text: text.to_owned(), checked: Ok(monitor) });
        self.publish(&kept);
        tracing::info!(monitor = &*name, "a monitor was saved");
        let entry = self.entry_of(&name, &kept);
        entry.map(|entry| (entry, before.is_none())).ok_or(Unsaved::Changed)
    }

    /// Takes back what was saved as `name`; what is configured under that name, if anything is.
    ///
    /// # Errors
    /// Nothing was changed.
    pub fn revert(&self, name: &str, known: &Known) -> Result<Option<Entry>, Unsaved> {
        self.may_change()?;
        let mut kept = self.kept();
        let before = self.entry_of(name, &kept);
        let Some(before) = before else { return Err(Unsaved::Unknown(name.to_owned())) };
        if !known.holds(Some(&before)) {
            return Err(Unsaved::Changed);
        }
        if !before.saved {
            return Err(Unsaved::Configured(name.to_owned()));
        }
        saved::remove(self.dir(), name).map_err(|error| self.unwritten(error))?;
        kept.remove(name);
        self.publish(&kept);
        tracing::info!(monitor = name, "what was saved of a monitor was taken back");
        Ok(self.entry_of(name, &kept))
    }

    fn may_change(&self) -> Result<(), Unsaved> {
        self.read_only().map_or(Ok(()), |why| Err(Unsaved::ReadOnly(why)))
    }

    fn unwritten(&self, error: io::Error) -> Unsaved {
        tracing::error!(%error, dir = %self.dir().display(), "a monitor could not be saved");
        Unsaved::Write(self.dir().display().to_string(), error)
    }

    fn publish(&self, kept: &BTreeMap<Arc<str>, Kept>) {
        self.0.in_force.send_replace(in_force(&self.0.configured, kept));
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Kept>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn configured(&self, name: &str) -> Option<&Monitor> {
        self.0.configured.iter().find(|monitor| *monitor.name == *name)
    }

    fn entry_of(&self, name: &str, kept: &BTreeMap<Arc<str>, Kept>) -> Option<Entry> {
        let configured = self.configured(name);
        let shown = configured.map(|monitor| monitors_shown(std::slice::from_ref(monitor)));
        let kept = kept.get_key_value(name);
        let name = kept.map(|(name, _)| name).or(configured.map(|monitor| &monitor.name))?;
        let saved = kept.map(|(_, kept)| kept);
        let yaml = saved.map(|kept| kept.text.clone()).or_else(|| shown.clone())?;
        let faults = saved.and_then(|kept| kept.checked.as_ref().err());
        let version = version(&[shown.as_deref(), saved.map(|kept| &*kept.text)]);
        Some(Entry {
            name: Arc::clone(name),
            yaml,
            configured: shown,
            saved: saved.is_some(),
            faults: faults.map(|faults| faults.0.clone()).unwrap_or_default(),
            version,
        })
    }
}

impl Known {
    fn holds(&self, entry: Option<&Entry>) -> bool {
        match (self, entry) {
            (Self::Version(version), Some(entry)) => *version == entry.version,
            (Self::Any, Some(_)) | (Self::Absent, None) => true,
            (Self::Version(_) | Self::Any, None) | (Self::Absent, Some(_)) => false,
        }
    }
}

impl Kept {
    fn of(name: &str, text: io::Result<String>, evaluate: Option<&Evaluate>) -> Self {
        match text {
            Ok(text) => Self { checked: one(name, &text, evaluate), text },
            Err(error) => {
                let checked = Err(fault(format!("the file cannot be read: {error}"), None));
                Self { text: String::new(), checked }
            }
        }
    }
}

/// The one monitor of `text`, which bears the name that it is saved under.
fn one(name: &str, text: &str, evaluate: Option<&Evaluate>) -> Result<Monitor, Faults> {
    let mut monitors = monitors_in(text, evaluate)?;
    let names: Vec<_> = monitors.iter().map(|monitor| monitor.name.to_string()).collect();
    match (monitors.pop(), names.as_slice()) {
        (Some(monitor), [only]) if only == name => Ok(monitor),
        (_, names) => {
            let found = match names {
                [] => "there is no monitor".to_owned(),
                [other] => format!("the monitor is called `{other}`"),
                names => format!("there are {} monitors: {}", names.len(), names.join(", ")),
            };
            let allowed = format!("`monitors` with one entry, whose `name` is `{name}`");
            Err(fault(found, Some(allowed)))
        }
    }
}

fn fault(message: String, allowed: Option<String>) -> Faults {
    let place = Place::File("monitors".to_owned());
    Faults(vec![Fault { place, message, allowed, nearest: None }])
}

fn in_force(configured: &[Monitor], kept: &BTreeMap<Arc<str>, Kept>) -> Arc<[Monitor]> {
    let sound = |name: &str| kept.get(name).and_then(|kept| kept.checked.as_ref().ok());
    let known = |name: &str| configured.iter().any(|monitor| *monitor.name == *name);
    let over = configured.iter().map(|monitor| sound(&monitor.name).unwrap_or(monitor));
    let beside = kept.keys().filter(|name| !known(name)).filter_map(|name| sound(name));
    over.chain(beside).cloned().collect()
}

/// The same for the same texts.
fn version(texts: &[Option<&str>]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        let length = text.map_or(u64::MAX, |text| text.len() as u64);
        hash.update(length.to_le_bytes());
        hash.update(text.unwrap_or_default());
    }
    hash.finalize().iter().take(8).fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests;
