//! An object of the text: what it is, where it is, and how it is edited.

use serde_json::{Value, json};

use super::edit::{Edits, Starts, stands_alone};
use super::sidecar::{NAME, Sidecar};
use super::yaml::{Document, Node, Parsed, Step, What};
use super::{Refusal, documents, emit, plan};

/// An object of the text.
pub(super) struct Manifest<'a> {
    document: &'a Document,
    /// From 0.
    index: usize,
    /// Where the object lies in its document: items of lists.
    path: Vec<Step>,
    value: Value,
    kind: String,
}

/// All objects, those of lists included.
pub(super) fn all<'a>(
    parsed: &'a Parsed,
    starts: &Starts,
) -> Result<Vec<Manifest<'a>>, Vec<Refusal>> {
    let (mut found, mut refusals) = (Vec::new(), Vec::new());
    for (index, document) in documents(parsed) {
        match document.value() {
            Ok(value) => collect(document, index, Vec::new(), value, &mut found),
            Err(refusal) => refusals.push(refusal.within(index + 1, "", 0, starts)),
        }
    }
    if refusals.is_empty() { Ok(found) } else { Err(refusals) }
}

fn collect<'a>(
    document: &'a Document,
    index: usize,
    path: Vec<Step>,
    value: Value,
    found: &mut Vec<Manifest<'a>>,
) {
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    // A list of lists has no end; nobody writes one.
    if let Some(of) = kind.strip_suffix("List").filter(|_| path.is_empty()) {
        for (item, value) in value["items"].as_array().into_iter().flatten().enumerate() {
            let mut value = value.clone();
            // What the API server lists by kind does not bear it.
            if let Some(map) = value.as_object_mut().filter(|map| !map.contains_key("kind")) {
                map.insert("kind".to_owned(), of.into());
            }
            collect(document, index, vec![Step::Key("items"), Step::Index(item)], value, found);
        }
    } else {
        found.push(Manifest { document, index, path, value, kind });
    }
}

impl Manifest<'_> {
    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    pub(super) fn is_service(&self) -> bool {
        self.is_kind("Service")
    }

    pub(super) fn is_kind(&self, kind: &str) -> bool {
        self.kind == kind
    }

    /// Kind and name.
    pub(super) fn name(&self) -> String {
        let meta = &self.value["metadata"];
        let name = meta["name"].as_str().or(meta["generateName"].as_str()).unwrap_or("(no name)");
        format!("{}/{name}", self.kind)
    }

    /// The pod template, where its kind has one.
    pub(super) fn template(&self) -> Option<&Value> {
        let template = plan::at(&self.value, plan::template_path(&self.kind)?);
        template["spec"].is_object().then_some(template)
    }

    /// It has a pod template, and its kind is not one that is known.
    pub(super) fn is_strange(&self) -> bool {
        let containers = plan::at(&self.value, &["spec", "template", "spec", "containers"]);
        containers.is_array() && plan::template_path(&self.kind).is_none()
    }

    /// A refusal with document, line and object.
    pub(super) fn placed(&self, refusal: Refusal, starts: &Starts) -> Refusal {
        let node = self.document.at(&self.path).ok().flatten();
        let line = node.map_or(0, |node| starts.line_of(node.start) + 1);
        refusal.within(self.index + 1, &self.name(), line, starts)
    }

    /// Adds the container and its volume to the pod's spec.
    pub(super) fn add_sidecar(
        &self,
        sidecar: &Sidecar,
        edits: &mut Edits<'_>,
        expected: &mut [Value],
    ) -> Result<(), Refusal> {
        let mut steps = self.path.clone();
        steps.extend(
            plan::template_path(&self.kind).into_iter().flatten().map(|key| Step::Key(key)),
        );
        steps.push(Step::Key("spec"));
        let container = sidecar.container();
        self.add_item(&steps, "initContainers", &container, edits)?;
        self.add_item(&steps, "volumes", &sidecar.volume(), edits)?;
        let spec = value_at(expected, self.index, &steps);
        prepend(spec, "initContainers", container);
        prepend(spec, "volumes", sidecar.volume());
        Ok(())
    }

    /// Puts `item` first in the list `key` of the map at `steps`, which gets the list if it has none.
    fn add_item(
        &self,
        steps: &[Step],
        key: &'static str,
        item: &Value,
        edits: &mut Edits<'_>,
    ) -> Result<(), Refusal> {
        let missing = || Refusal::new("its pod's spec comes from a merge key: write it out");
        let map = self.document.at(steps)?.ok_or_else(missing)?;
        let Some((name, list)) = map.entry(key) else {
            self.check_unmerged(steps, map, key)?;
            if map.is_flow() {
                edits.insert_flow(map.start, format!("{}: [{item}]", json!(key)), !map.is_empty());
                return Ok(());
            }
            return self.add_list(steps, map, key, block_column(map, edits)?, item, edits);
        };
        self.document.at(&[steps, &[Step::Key(key)]].concat())?;
        match &list.what {
            What::List { items, flow: true }
                if map.is_flow()
                    || !items.is_empty()
                    || !edits.is_one_line(list.start..list.end) =>
            {
                edits.insert_flow(list.start, item.to_string(), !items.is_empty());
            }
            What::List { flow: false, .. } => {
                edits.insert_after(name.start, emit::item(item, dash_column(list, edits)?));
            }
            What::Scalar { plain: true, text } if map.is_flow() && is_null(text) => {
                edits.replace(list.start..list.end, format!("[{item}]"));
            }
            _ => self.fill_list(map, name, list, item, edits)?,
        }
        Ok(())
    }

    /// What is nothing in block style, such as `volumes: []`, becomes a list of `item` alone.
    fn fill_list(
        &self,
        map: &Node,
        name: &Node,
        list: &Node,
        item: &Value,
        edits: &mut Edits<'_>,
    ) -> Result<(), Refusal> {
        let column = block_column(map, edits)?;
        let nothing = match &list.what {
            What::Scalar { plain, text } => *plain && is_null(text),
            _ => list.is_empty(),
        };
        if !nothing {
            return Err(Refusal::new("it is no list").at_byte(list.start));
        }
        if list.end > list.start {
            edits.replace(list.start..list.end, String::new());
        }
        edits.insert_after(name.start, emit::item(item, column + 2));
        Ok(())
    }

    /// The map has no `key`, not even by a merge.
    fn check_unmerged(&self, steps: &[Step], map: &Node, key: &str) -> Result<(), Refusal> {
        match lookup(&self.document.value()?, steps).is_some_and(|value| value.get(key).is_some()) {
            true => Err(Refusal::new(format!("its `{key}` comes from a merge key: write it out"))
                .at_byte(map.start)),
            false => Ok(()),
        }
    }

    /// A list of `item` alone becomes the first entry of `map`, above comments that belong to the next.
    fn add_list(
        &self,
        steps: &[Step],
        map: &Node,
        key: &str,
        column: usize,
        item: &Value,
        edits: &mut Edits<'_>,
    ) -> Result<(), Refusal> {
        let (header, first) = (self.header_of(steps).unwrap_or_default(), first_key(map)?.start);
        if edits.starts().line_of(header) >= edits.starts().line_of(first) {
            return Err(begins_beside_its_key().at_byte(first));
        }
        let mut lines = vec![format!("{}{key}:", " ".repeat(column))];
        lines.extend(emit::item(item, column + 2));
        edits.insert_after(header, lines);
        Ok(())
    }

    /// Where the key stands whose value is the map at `steps`.
    fn header_of(&self, steps: &[Step]) -> Option<usize> {
        let (Step::Key(last), above) = steps.split_last()? else { return None };
        let above = self.document.at(above).ok()??;
        above.entry(last).map(|(key, _)| key.start)
    }

    /// Lets a Service's port lead to the sidecar.
    pub(super) fn move_port(
        &self,
        index: usize,
        edits: &mut Edits<'_>,
        expected: &mut [Value],
    ) -> Result<(), Refusal> {
        let mut steps = self.path.clone();
        steps.extend([Step::Key("spec"), Step::Key("ports"), Step::Index(index)]);
        let merged = || Refusal::new("its ports come from a merge key: write them out");
        let port = self.document.at(&steps)?.ok_or_else(merged)?;
        match port.entry("targetPort") {
            Some((_, target)) => {
                self.document.at(&[&steps[..], &[Step::Key("targetPort")]].concat())?;
                let json = port.is_flow() && first_key(port)?.is_quoted(edits.text());
                let name = if json { json!(NAME).to_string() } else { NAME.to_owned() };
                if !edits.is_one_line(target.start..target.end) {
                    return Err(Refusal::new("its `targetPort` goes over lines: write it on one")
                        .at_byte(target.start));
                }
                edits.replace(target.start..target.end, name);
            }
            None => {
                let (name, number) = port.entry("port").ok_or_else(merged)?;
                self.document.at(&[&steps[..], &[Step::Key("port")]].concat())?;
                if port.is_flow() {
                    edits.insert_flow(port.start, format!("\"targetPort\": \"{NAME}\""), true);
                } else {
                    let column = edits.starts().column_of(name.start);
                    let line = format!("{}targetPort: {NAME}", " ".repeat(column));
                    edits.insert_after(number.start, vec![line]);
                }
            }
        }
        value_at(expected, self.index, &steps)["targetPort"] = json!(NAME);
        Ok(())
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn first_key(map: &Node) -> Result<&Node, Refusal> {
    let What::Map { entries, .. } = &map.what else { return Err(Refusal::new("it is no map")) };
    entries
        .first()
        .map(|(key, _)| key)
        .ok_or_else(|| Refusal::new("it is empty").at_byte(map.start))
}

fn begins_beside_its_key() -> Refusal {
    Refusal::new("its pod's spec begins on the line of its key: give it lines of its own")
}

/// The column of a block map's keys, which stand on lines of their own.
fn block_column(map: &Node, edits: &Edits<'_>) -> Result<usize, Refusal> {
    let first = first_key(map)?;
    match stands_alone(edits.text(), first.start) {
        true => Ok(edits.starts().column_of(first.start)),
        false => Err(begins_beside_its_key().at_byte(first.start)),
    }
}

/// The column of a block list's dashes.
fn dash_column(list: &Node, edits: &Edits<'_>) -> Result<usize, Refusal> {
    let strange = || Refusal::new("its list begins in an unusual way: write one dash a line");
    let What::List { items, .. } = &list.what else { return Err(strange()) };
    let first = items.first().ok_or_else(strange)?.start;
    let above = list.start.min(first) - edits.starts().column_of(list.start.min(first));
    // Comments may stand between, and the dash may have a line to itself.
    let mut lines = edits.text()[above..first].lines();
    let dash = lines.find_map(|line| line.find('-').filter(|at| stands_alone(line, *at)));
    dash.ok_or_else(|| strange().at_byte(first))
}

fn lookup<'v>(value: &'v Value, steps: &[Step]) -> Option<&'v Value> {
    steps.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Index(index) => value.get(index),
    })
}

fn value_at<'v>(expected: &'v mut [Value], document: usize, steps: &[Step]) -> &'v mut Value {
    steps.iter().fold(&mut expected[document], |value, step| match step {
        Step::Key(key) => &mut value[*key],
        Step::Index(index) => &mut value[*index],
    })
}

/// Puts `item` first in the list `key` of `map`.
pub(super) fn prepend(map: &mut Value, key: &str, item: Value) {
    match &mut map[key] {
        Value::Array(items) => items.insert(0, item),
        other => *other = Value::Array(vec![item]),
    }
}
