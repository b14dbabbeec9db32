//! Annotations as keys of the configuration, and those as variables of the container.
//!
//! `flowtap.io/deployment: blue` is the tap's key `deployment`; a dot leads deeper
//! (`flowtap.io/timeouts.response: 5m`). `flowtap.io/tap.models.upstream: URL` is a key of a second tap,
//! named `models`. Keys outside of taps go by their own path (`flowtap.io/sample.rate: "0.5"`,
//! `flowtap.io/bucket: s3://name`). Five are the sidecar's own: `inject`, `port`, `image`,
//! `memory`, `env-from`.

use std::collections::BTreeMap;

use super::Refusal;
use crate::config::{self, Overrides};

/// Annotations that are no keys of the configuration.
const OWN: &[&str] = &["inject", "port", "image", "memory", "env-from"];

/// What annotations and options set.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    /// The pod's port that the sidecar stands before: a number or a name.
    pub(super) port: Option<String>,
    pub(super) image: Option<String>,
    pub(super) memory: Option<String>,
    /// A Secret whose entries become variables.
    pub(super) secret: Option<String>,
    pub(super) environment: BTreeMap<String, String>,
}

impl Keys {
    /// The first tap's upstream, where one was given.
    pub(super) fn upstream(&self) -> Option<&str> {
        let found = ["FLOWTAP_TAPS__0__UPSTREAM", "FLOWTAP_TAPS__0__UPSTREAM__URL"]
            .into_iter()
            .find_map(|name| self.environment.get(name));
        found.map(String::as_str)
    }

    pub(super) fn set_default(&mut self, name: &str, value: String) {
        self.environment.entry(name.to_owned()).or_insert(value);
    }

    /// The port of the address that the variable `name` holds.
    pub(super) fn port_of(&self, name: &str) -> Option<u16> {
        self.environment.get(name)?.rsplit(':').next()?.parse().ok()
    }

    /// Reads the configuration as the sidecar will: every fault at once. Files and secrets are not here,
    /// so what names a file is left out.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let here = |name: &str| !name.ends_with("_FILE") && !name.contains("__TLS");
        let mut environment: Vec<(String, String)> = self.environment.clone().into_iter().collect();
        environment.retain(|(name, _)| here(name));
        match config::load(None, &Overrides::default(), &environment) {
            Ok(_) => Ok(()),
            Err(faults) => {
                Err(Refusal::new(format!("its annotations set what flowtap refuses:\n{faults}")))
            }
        }
    }
}

/// Reads annotations (names without their prefix) over `defaults` (`KEY`, value).
pub(super) fn read(
    annotations: &BTreeMap<String, String>,
    defaults: &[(String, String)],
) -> Result<Keys, Refusal> {
    let mut keys = Keys::default();
    let mut taps: Vec<String> = Vec::new();
    let given = annotations.iter().map(|(key, value)| (key.as_str(), value));
    for (key, value) in defaults.iter().map(|(key, value)| (key.as_str(), value)).chain(given) {
        match key {
            "inject" => {}
            "port" => keys.port = Some(value.clone()),
            "image" => keys.image = Some(value.clone()),
            "memory" => keys.memory = Some(value.clone()),
            "env-from" => keys.secret = Some(value.clone()),
            key => {
                let variable = variable(key, &mut taps)?;
                keys.environment.insert(variable, value.clone());
            }
        }
    }
    for (index, name) in taps.into_iter().enumerate() {
        keys.environment.insert(format!("FLOWTAP_TAPS__{}__NAME", index + 1), name);
    }
    Ok(keys)
}

/// The variable of a key; taps besides the first are numbered as they come.
fn variable(key: &str, taps: &mut Vec<String>) -> Result<String, Refusal> {
    let spelt = |path: &str| path.replace('.', "__").to_ascii_uppercase();
    if let Some((tap, key)) = key.strip_prefix("tap.").and_then(|rest| rest.split_once('.')) {
        if !is_key(&format!("taps[].{key}")) {
            return Err(unknown(&format!("tap.{tap}.{key}")));
        }
        let known = taps.iter().position(|name| name == tap);
        let index = known.unwrap_or_else(|| {
            taps.push(tap.to_owned());
            taps.len() - 1
        });
        return Ok(format!("FLOWTAP_TAPS__{}__{}", index + 1, spelt(key)));
    }
    if is_key(&format!("taps[].{key}")) {
        Ok(format!("FLOWTAP_TAPS__0__{}", spelt(key)))
    } else if is_key(key) && !key.contains("[]") && key != "taps" {
        Ok(format!("FLOWTAP_{}", spelt(key)))
    } else {
        Err(unknown(key))
    }
}

fn is_key(path: &str) -> bool {
    config::key_paths().iter().any(|known| known == path)
}

fn unknown(key: &str) -> Refusal {
    let of_tap = |path: &str| path.strip_prefix("taps[].").unwrap_or(path).to_owned();
    let known = config::key_paths()
        .iter()
        .map(|path| of_tap(path))
        .chain(OWN.iter().map(|k| (*k).to_owned()))
        .collect::<Vec<_>>();
    let nearest = known
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
    let hint =
        nearest.map_or_else(String::new, |near| format!("; did you mean `flowtap.io/{near}`?"));
    Refusal::new(format!("flowtap.io/{key} is no key of a tap or of flowtap{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(pairs: &[(&str, &str)]) -> Result<Keys, Refusal> {
        let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        read(&map, &[("sample.rate".to_owned(), "0.5".to_owned())])
    }

    #[test]
    fn every_key_of_a_tap_and_of_the_file_can_be_set() {
        for path in config::key_paths() {
            let key = path.strip_prefix("taps[].").unwrap_or(&path);
            // Lists of maps besides `taps` are a hub's, and an annotation's name has no brackets.
            if path == "taps" || key.contains("[]") {
                continue;
            }
            let keys = read_all(&[(key, "x")]).expect("a key");
            let variable = format!(
                "FLOWTAP_{}",
                path.replace("[]", "__0")
                    .replace('.', "__")
                    .replace("____", "__")
                    .to_ascii_uppercase()
            );
            let shadowed = config::key_paths().contains(&format!("taps[].{path}"));
            assert!(shadowed || keys.environment.contains_key(&variable), "{path}: {keys:?}");
        }
    }

    #[test]
    fn annotations_go_before_options_and_unknown_ones_are_named() {
        let keys = read_all(&[
            ("sample.rate", "1"),
            ("tap.models.upstream", "http://m"),
            ("tap.models.listen", "127.0.0.1:1"),
            ("port", "http"),
        ])
        .expect("keys");
        let expected = [
            ("FLOWTAP_SAMPLE__RATE", "1"),
            ("FLOWTAP_TAPS__1__LISTEN", "127.0.0.1:1"),
            ("FLOWTAP_TAPS__1__NAME", "models"),
            ("FLOWTAP_TAPS__1__UPSTREAM", "http://m"),
        ];
        let environment: Vec<_> =
            keys.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(environment, expected);
        assert_eq!(keys.port.as_deref(), Some("http"));
        let refusal = read_all(&[("deploymnt", "blue")]).expect_err("unknown");
        assert!(refusal.message.contains("flowtap.io/deployment"), "{refusal:?}");
    }
}
