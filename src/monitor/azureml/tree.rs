//! A document of which parts are taken one by one, so that what is left can be told.

use serde_json::{Map, Value};

/// The part that nobody has taken yet.
pub(super) struct Tree(Value);

impl Tree {
    pub(super) fn of(document: Value) -> Self {
        Self(document)
    }

    /// Whether a map stands at the path.
    pub(super) fn has_map(&self, path: &str) -> bool {
        self.at(path).is_some_and(Value::is_object)
    }

    fn at(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(&self.0, |value, key| value.get(key))
    }

    /// Takes a single value.
    pub(super) fn text(&mut self, path: &str) -> Option<String> {
        match self.at(path)? {
            Value::String(_) => match self.take(path)? {
                Value::String(text) => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// Takes a single value whose key has dots in it, of the map at `path`.
    pub(super) fn text_in(&mut self, path: &str, key: &str) -> Option<String> {
        let map = path.split('.').try_fold(&mut self.0, |value, key| value.get_mut(key))?;
        let map = map.as_object_mut()?;
        map.get(key)?.as_str()?;
        map.shift_remove(key)?.as_str().map(str::to_owned)
    }

    /// Takes a list of single values, or one that stands for such a list.
    pub(super) fn texts(&mut self, path: &str) -> Vec<String> {
        let flat = |list: &Vec<Value>| list.iter().all(Value::is_string);
        match self.at(path) {
            Some(Value::Array(list)) if flat(list) => match self.take(path) {
                Some(Value::Array(list)) => {
                    list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
                }
                _ => Vec::new(),
            },
            Some(Value::String(_)) => self.text(path).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Takes the entries of a map, in their order.
    pub(super) fn entries(&mut self, path: &str) -> Map<String, Value> {
        match self.at(path) {
            Some(Value::Object(_)) => match self.take(path) {
                Some(Value::Object(map)) => map,
                _ => Map::new(),
            },
            _ => Map::new(),
        }
    }

    /// Takes the items of a list.
    pub(super) fn items(&mut self, path: &str) -> Vec<Value> {
        match self.at(path) {
            Some(Value::Array(_)) => match self.take(path) {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    /// Takes whatever stands at the path, and forgets it.
    pub(super) fn drop(&mut self, path: &str) {
        let _taken = self.take(path);
    }

    fn take(&mut self, path: &str) -> Option<Value> {
        let (above, key) = path.rsplit_once('.').map_or(("", path), |(above, key)| (above, key));
        let parent = match above {
            "" => Some(&mut self.0),
            above => above.split('.').try_fold(&mut self.0, |value, key| value.get_mut(key)),
        };
        parent?.as_object_mut()?.shift_remove(key)
    }

    /// A note for every value that nobody took.
    pub(super) fn rest(self) -> Vec<String> {
        self.rest_below("")
    }

    /// The same, of a part that stood below `path`.
    pub(super) fn rest_below(self, path: &str) -> Vec<String> {
        let mut notes = Vec::new();
        leaves(&self.0, path, &mut notes);
        notes
    }
}

fn leaves(value: &Value, path: &str, notes: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(value, &path, notes);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                leaves(value, &format!("{path}[{index}]"), notes);
            }
        }
        Value::Null => {}
        value => {
            let told = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let told: String = told.chars().filter(|c| !c.is_control()).take(200).collect();
            notes.push(format!("`{path}: {told}` has no counterpart"));
        }
    }
}
