//! Whole records, out of the bucket's objects.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::View;
use crate::bucket::{BucketError, LineError, Lines};
use crate::domain::{Step, TracePart, tree};
use crate::store::Found;

/// Lines of one object, by number.
type Wanted<'a> = BTreeMap<u64, &'a Found>;

/// Why there is no record.
pub(super) enum Missing {
    /// The bucket does not give the object.
    Object(BucketError),
    /// The object does not hold the line.
    Line,
}

impl Missing {
    fn label(&self) -> &'static str {
        match self {
            Self::Object(error) => error.kind.label(),
            Self::Line => "line",
        }
    }
}

/// One record. Blocks until the bucket has answered, which the bucket bounds.
pub(super) fn read(view: &View, found: &Found) -> Result<Value, Missing> {
    let mut texts = texts(view, std::slice::from_ref(found))?;
    let text = texts.remove(&(found.object.clone(), found.line)).ok_or(Missing::Line)?;
    serde_json::from_slice(&text).map_err(|_| Missing::Line)
}

/// A record, else null and why there is none.
pub(super) fn told(record: Result<Value, Missing>) -> (Value, Option<&'static str>) {
    match record {
        Ok(record) => (record, None),
        Err(missing) => (Value::Null, Some(missing.label())),
    }
}

/// The lines at these places, as they are. Each object is fetched once; places that its object does
/// not hold are left out.
pub(super) fn texts(
    view: &View,
    places: &[Found],
) -> Result<HashMap<(String, u64), Vec<u8>>, Missing> {
    let mut objects: BTreeMap<&str, Wanted<'_>> = BTreeMap::new();
    for found in places {
        objects.entry(&found.object).or_default().insert(found.line, found);
    }
    let mut texts = HashMap::new();
    for (object, wanted) in objects {
        let body = Handle::current().block_on(view.bucket.get(object)).map_err(Missing::Object)?;
        pick(&body, object, &wanted, &mut texts);
    }
    Ok(texts)
}

/// Takes the wanted lines out of an object.
fn pick(
    body: &[u8],
    object: &str,
    wanted: &Wanted<'_>,
    texts: &mut HashMap<(String, u64), Vec<u8>>,
) {
    let Some((last, _)) = wanted.last_key_value() else { return };
    let mut lines = Lines::of(body);
    while lines.number() < *last {
        match lines.next() {
            Ok(Some(line)) => {
                let line = line.to_vec();
                let number = lines.number();
                if wanted.contains_key(&number) {
                    texts.insert((object.to_owned(), number), line);
                }
            }
            Err(LineError::TooLong) => {}
            Ok(None) | Err(LineError::Damaged) => return,
        }
    }
}

/// The spans at these places as a tree, told step by step: each after the one that it is a part of, with
/// its `depth` below the outermost. Parts that cannot be had are left out.
pub(super) fn steps(view: &View, parts: &[Found]) -> Vec<Value> {
    let texts = texts(view, parts).unwrap_or_default();
    let read = texts.values().filter_map(|text| serde_json::from_slice::<TracePart>(text).ok());
    let mut told = Vec::new();
    tree(read).roots.iter().for_each(|root| tell(root, 0, &mut told));
    told
}

/// A step and all within it. The tree bounds how deep that goes.
fn tell(step: &Step, depth: usize, told: &mut Vec<Value>) {
    let mut span = serde_json::to_value(&step.span).unwrap_or_default();
    span["depth"] = json!(depth);
    span["orphan"] = json!(step.orphan);
    span["tokens"] = json!(step.tokens);
    told.push(span);
    step.children.iter().for_each(|child| tell(child, depth + 1, told));
}
