//! `flowtap inject`: manifests in, the same manifests with flowtap as a native sidecar out.
//!
//! The text is edited, never written anew: comments, order, quoting and line ends stay as they are, and
//! every edit stands between two comments, so that it can be taken back to the byte (see `edit`). What
//! cannot be edited safely is refused with document and line, and nothing is written then. Each result
//! proves itself before it is handed out: taken back it is the input, and read as YAML it is what the
//! same change makes of the objects.

use std::fmt;

use serde_json::Value;

mod bypass;
mod edit;
mod emit;
mod keys;
mod manifest;
mod plan;
mod pod;
mod policy;
mod port;
mod sidecar;
mod yaml;

#[cfg(test)]
mod tests;

use edit::{Edits, Starts};
use manifest::Manifest;
use plan::Decision;
pub use pod::{PodPatch, patch};
use port::AppPort;
pub use sidecar::{NAME, Sidecar};
use yaml::Parsed;

/// The longest text that is read.
pub const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What every workload gets unless its annotations say otherwise.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The image.
    pub image: String,
    /// Keys, as in annotations without their prefix, and their values.
    pub set: Vec<(String, String)>,
}

/// A text with sidecars in it.
#[derive(Clone, Debug)]
pub struct Injected {
    /// The text.
    pub text: String,
    /// What was done to which object, and what its owner should know; one line each.
    pub notes: Vec<String>,
}

/// Something that cannot be done, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The document, from 1; 0 where it is the text as a whole.
    pub document: usize,
    /// The line, from 1; 0 where it is not known.
    pub line: usize,
    /// Kind and name of the object; may be empty.
    pub object: String,
    /// Why.
    pub message: String,
    byte: Option<usize>,
}

impl Refusal {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }

    fn at(self, line: usize) -> Self {
        Self { line, ..self }
    }

    fn at_byte(self, byte: usize) -> Self {
        Self { byte: Some(byte), ..self }
    }

    /// Fills in what is not known yet.
    fn within(mut self, document: usize, object: &str, line: usize, starts: &Starts) -> Self {
        let told = self.byte.take().map(|byte| starts.line_of(byte) + 1);
        self.line = if self.line > 0 { self.line } else { told.unwrap_or(line) };
        self.document = document;
        self.object = object.to_owned();
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut places = Vec::new();
        if self.document > 0 {
            places.push(format!("document {}", self.document));
        }
        if self.line > 0 {
            places.push(format!("line {}", self.line));
        }
        if !self.object.is_empty() {
            places.push(self.object.clone());
        }
        let place = if places.is_empty() { String::new() } else { places.join(", ") + ": " };
        write!(f, "{place}{}", self.message)
    }
}

/// The manifests with a sidecar in each workload that has a port to stand before. Sidecars that were
/// injected before are taken out first, so that a second run changes nothing and new settings hold.
pub fn inject(text: &str, settings: &Settings) -> Result<Injected, Vec<Refusal>> {
    let (mark, text) = without_mark(text);
    check_text(text).map_err(|refusal| vec![refusal])?;
    let original = edit::restored(text).map_err(|refusal| vec![explained(refusal, text)])?;
    let parsed = yaml::parse(&original).map_err(|refusal| vec![explained(refusal, &original)])?;
    let starts = Starts::of(&original);
    let manifests = manifest::all(&parsed, &starts)?;
    let mut edits = Edits::of(&original);
    let mut notes = Vec::new();
    let mut expected: Vec<Value> = Vec::new();
    for document in &parsed.documents {
        expected.push(document.value().map_err(|refusal| vec![refusal])?);
    }
    let mut work = Work { manifests: &manifests, settings, notes: &mut notes };
    work.run(&starts, &mut edits, &mut expected)?;
    edits.begin_with_a_comment();
    let injected = edits.render();
    prove(&injected, &original, &expected).map_err(|refusal| vec![refusal])?;
    Ok(Injected { text: format!("{mark}{injected}"), notes })
}

/// Whether the keys that are set for all are keys; their values are checked with each workload.
pub fn check(settings: &Settings) -> Result<(), Refusal> {
    keys::read(&Default::default(), &settings.set).map(drop)
}

/// The manifests as they were before [`inject`], byte for byte.
pub fn uninject(text: &str) -> Result<String, Vec<Refusal>> {
    let (mark, text) = without_mark(text);
    let restored = check_text(text).and_then(|()| edit::restored(text));
    restored.map(|text| format!("{mark}{text}")).map_err(|refusal| vec![explained(refusal, text)])
}

struct Work<'a> {
    manifests: &'a [Manifest<'a>],
    settings: &'a Settings,
    notes: &'a mut Vec<String>,
}

impl Work<'_> {
    fn run(
        &mut self,
        starts: &Starts,
        edits: &mut Edits<'_>,
        expected: &mut [Value],
    ) -> Result<(), Vec<Refusal>> {
        let mut refusals = Vec::new();
        let decisions = self.decide(starts, &mut refusals);
        for (manifest, decision) in self.manifests.iter().zip(&decisions) {
            let edited = match decision {
                Some(Decision::Inject(sidecar, ..)) => {
                    manifest.add_sidecar(sidecar, edits, expected)
                }
                _ if manifest.is_service() => {
                    self.move_ports(manifest, &decisions, edits, expected)
                }
                _ => Ok(()),
            };
            refusals.extend(edited.err().map(|refusal| manifest.placed(refusal, starts)));
        }
        if refusals.is_empty() { Ok(()) } else { Err(refusals) }
    }

    fn decide(&mut self, starts: &Starts, refusals: &mut Vec<Refusal>) -> Vec<Option<Decision>> {
        let mut decisions = Vec::new();
        for manifest in self.manifests {
            if manifest.is_strange() {
                let name = manifest.name();
                self.notes
                    .push(format!("{name}: left as it is: it is no workload of Kubernetes' own"));
            }
            let decided = manifest.template().map(|template| {
                let services = self.services_of(manifest, template);
                let decision = plan::decide(manifest.value(), template, &services, self.settings)?;
                self.tell(manifest, &decision, services.is_empty());
                self.tell_of_bypasses(manifest, template, &decision);
                self.tell_of_policies(manifest, template, &decision);
                Ok(decision)
            });
            decisions.push(match decided.transpose() {
                Ok(decision) => decision,
                Err(refusal) => {
                    refusals.push(manifest.placed(refusal, starts));
                    None
                }
            });
        }
        self.refuse_what_is_unclear(&decisions, starts, refusals);
        decisions
    }

    /// Where nothing gets a sidecar because nobody can tell the port, that is no success. One of many
    /// workloads does not keep the others from theirs.
    fn refuse_what_is_unclear(
        &self,
        decisions: &[Option<Decision>],
        starts: &Starts,
        refusals: &mut Vec<Refusal>,
    ) {
        if decisions.iter().any(|decision| matches!(decision, Some(Decision::Inject(..)))) {
            return;
        }
        for (manifest, decision) in self.manifests.iter().zip(decisions) {
            if let Some(Decision::Unclear(why)) = decision {
                refusals.push(manifest.placed(Refusal::new(why.clone()), starts));
            }
        }
    }

    fn services_of(&self, manifest: &Manifest<'_>, template: &Value) -> Vec<&Value> {
        let services =
            self.manifests.iter().filter(|other| other.is_service()).map(Manifest::value);
        services.filter(|service| plan::selects(service, manifest.value(), template)).collect()
    }

    fn tell_of_bypasses(&mut self, manifest: &Manifest<'_>, template: &Value, decision: &Decision) {
        let Decision::Inject(sidecar, Some(app), _) = decision else { return };
        let notes = bypass::notes(&template["spec"], app, sidecar);
        self.notes.extend(notes.iter().map(|note| format!("{}: {note}", manifest.name())));
    }

    /// What NetworkPolicies of the text would do to a workload with a sidecar.
    fn tell_of_policies(&mut self, manifest: &Manifest<'_>, template: &Value, decision: &Decision) {
        let Decision::Inject(sidecar, Some(app), _) = decision else { return };
        let Some(port) = sidecar.port else { return };
        let policies = self.manifests.iter().filter(|other| other.is_kind("NetworkPolicy"));
        let policies = policies.map(Manifest::value);
        let own = (port, sidecar.port_name.as_str());
        let blocking = policy::shutting_out(policies, manifest.value(), template, app, own);
        for policy in blocking {
            self.notes.push(format!(
                "NetworkPolicy/{}: lets in port {} of {} and not the sidecar's, {port}: callers will be \
                 shut out; add `- port: {NAME}` beside it",
                policy["metadata"]["name"].as_str().unwrap_or("(no name)"),
                app.number,
                manifest.name(),
            ));
        }
    }

    fn tell(&mut self, manifest: &Manifest<'_>, decision: &Decision, alone: bool) {
        let name = manifest.name();
        self.notes.push(match decision {
            Decision::Leave(why) | Decision::Unclear(why) => {
                format!("{name}: left as it is: {why}")
            }
            Decision::Inject(_, Some(port), others) => {
                format!("{name}: injected before port {}{}", port.number, beside(others, alone))
            }
            Decision::Inject(_, None, _) => {
                format!("{name}: injected; only the pod itself reaches it")
            }
        });
        let local = matches!(decision, Decision::Inject(sidecar, ..)
            if !sidecar.environment.keys().any(|name| name.starts_with("FLOWTAP_BUCKET")));
        if local {
            self.notes.push(format!(
                "{name}: no bucket is set (flowtap.io/bucket): samples end with the pod"
            ));
        }
    }

    /// The Service's ports that lead to a port with a sidecar before it lead to the sidecar.
    fn move_ports(
        &mut self,
        service: &Manifest<'_>,
        decisions: &[Option<Decision>],
        edits: &mut Edits<'_>,
        expected: &mut [Value],
    ) -> Result<(), Refusal> {
        let selected: Vec<(&Manifest<'_>, Option<&AppPort>)> = (self.manifests.iter())
            .zip(decisions)
            .filter_map(|(workload, decision)| {
                let template = workload.template()?;
                let port = match decision {
                    Some(Decision::Inject(_, port, _)) => port.as_ref(),
                    _ => None,
                };
                plan::selects(service.value(), workload.value(), template)
                    .then_some((workload, port))
            })
            .collect();
        let mut moved_any = false;
        for (index, target) in port::service_ports(service.value()).enumerate() {
            let leads = |port: &AppPort| port.is_target_of(target);
            let moved = selected.iter().filter(|(_, port)| port.is_some_and(leads)).count();
            if moved == 0 {
                continue;
            }
            if let Some((other, _)) = selected.iter().find(|(_, port)| !port.is_some_and(leads)) {
                return Err(Refusal::new(format!(
                    "it sends to {} as well, which gets no sidecar at that port: inject both or none \
                     (flowtap.io/inject)",
                    other.name()
                )));
            }
            service.move_port(index, edits, expected)?;
            moved_any = true;
            self.notes.push(format!("{}: sends to the port named {NAME} now", service.name()));
        }
        if moved_any && bypass::is_headless(service.value()) {
            self.notes.push(format!(
                "{}: is headless: who calls a pod by its own port passes flowtap by; let callers use the \
                 sidecar's",
                service.name()
            ));
        }
        Ok(())
    }
}

/// What a workload's owner should know of a port that was chosen.
fn beside(others: &[u16], alone: bool) -> String {
    let mut told = String::new();
    if !others.is_empty() {
        let others = others.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        told = format!(" and not {others} (flowtap.io/port says otherwise)");
    }
    if alone {
        told += "; no Service here sends to it: let yours send to the port named ";
        told += NAME;
    }
    told
}

/// The result, taken back, is the input; and read, it is what was meant.
fn prove(injected: &str, original: &str, expected: &[Value]) -> Result<(), Refusal> {
    let failed = |why: &str| Err(Refusal::new(format!("the text cannot be edited safely: {why}")));
    let parsed = match yaml::parse(injected) {
        Ok(parsed) => parsed,
        Err(refusal) => return failed(&refusal.to_string()),
    };
    if edit::restore(injected, &parsed)? != original {
        return failed("the edits could not be taken back");
    }
    let same = parsed.documents.len() == expected.len();
    for (index, (document, expected)) in parsed.documents.iter().zip(expected).enumerate() {
        if !same || document.value()? != *expected {
            return failed(&format!("document {} would not mean what it should", index + 1));
        }
    }
    Ok(())
}

fn without_mark(text: &str) -> (&str, &str) {
    match text.strip_prefix('\u{feff}') {
        Some(rest) => (&text[..text.len() - rest.len()], rest),
        None => ("", text),
    }
}

fn check_text(text: &str) -> Result<(), Refusal> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Refusal::new(format!("the text is longer than {TEXT_BYTES_MAX} bytes")));
    }
    let bare = text
        .bytes()
        .zip(text.bytes().skip(1).chain([b'\n']))
        .position(|pair| pair.0 == b'\r' && pair.1 != b'\n');
    match bare {
        Some(at) => Err(Refusal::new("a carriage return without a line feed")
            .at(Starts::of(text).line_of(at) + 1)),
        None => Ok(()),
    }
}

/// Templates are the usual reason for what is no YAML, and JSON texts one after the other.
fn explained(mut refusal: Refusal, text: &str) -> Refusal {
    let line = refusal.byte.take().map(|byte| Starts::of(text).line_of(byte) + 1);
    refusal.line = line.unwrap_or(refusal.line);
    if text.contains("{{") {
        refusal.message.push_str("; it looks like a template: render it first (`helm template`)");
    } else if text.trim_start().starts_with('{') {
        refusal.message.push_str("; between JSON texts put a line of `---`");
    }
    refusal
}

/// The documents of a text, for those who need no places.
fn documents(parsed: &Parsed) -> impl Iterator<Item = (usize, &yaml::Document)> {
    parsed.documents.iter().enumerate()
}
