//! The corpus: each manifest, injected, is as recorded, and comes back to the byte.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

mod layouts;

fn settings() -> Settings {
    Settings {
        image: "flowtap:test".to_owned(),
        set: vec![("redact.detect".into(), "email,secret".into())],
    }
}

fn corpus(kind: &str) -> Vec<(String, String)> {
    let folder = Path::new("tests/fixtures/manifests").join(kind);
    let paths =
        fs::read_dir(&folder).expect("the corpus").map(|entry| entry.expect("a file").path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    found.sort();
    assert!(found.len() > 8, "{folder:?}");
    let name = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
    found.iter().map(|path| (name(path), fs::read_to_string(path).expect("text"))).collect()
}

#[track_caller]
fn same_as_file(path: &str, text: &str) {
    let path = Path::new("tests/fixtures/manifests").join(path);
    if std::env::var_os("FLOWTAP_BLESS").is_some() {
        return fs::write(&path, text).expect("written");
    }
    let recorded = fs::read_to_string(&path).unwrap_or_default();
    assert!(recorded == text, "{} differs; FLOWTAP_BLESS=1 records:\n{text}", path.display());
}

#[track_caller]
fn injected(name: &str, text: &str) -> Injected {
    inject(text, &settings()).unwrap_or_else(|refusals| {
        panic!(
            "{name}: {}",
            refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        )
    })
}

/// The same manifest as other editors save it.
fn variants(text: &str) -> Vec<String> {
    let windows = text.replace('\n', "\r\n");
    let unended = |text: &str| text.trim_end_matches(['\n', '\r', '.']).to_owned();
    vec![
        text.to_owned(),
        unended(text),
        windows.clone(),
        unended(&windows),
        format!("\u{feff}{text}"),
        format!("{text}\n\n# the end"),
    ]
}

#[test]
fn the_corpus_is_injected_as_recorded() {
    for (name, text) in corpus("good") {
        let Injected { text, notes } = injected(&name, &text);
        same_as_file(&format!("injected/{name}.yaml"), &text);
        same_as_file(&format!("injected/{name}.txt"), &format!("{}\n", notes.join("\n")));
    }
}

#[test]
fn what_is_injected_comes_back_to_the_byte_and_a_second_time_changes_nothing() {
    for (name, text) in corpus("good") {
        for text in variants(&text) {
            let once = injected(&name, &text).text;
            assert_eq!(uninject(&once).expect("restores"), text, "{name}: {once:?}");
            assert_eq!(uninject(&text).expect("restores"), text, "{name}: nothing to take out");
            let twice = injected(&name, &once);
            assert_eq!(twice.text, once, "{name}");
            let other = Settings { image: "flowtap:next".to_owned(), set: Vec::new() };
            let upgraded = inject(&once, &other).expect("injects").text;
            assert_eq!(uninject(&upgraded).expect("restores"), text, "{name}");
            assert!(!upgraded.contains("flowtap:test"), "{name}: the image is the new one");
        }
    }
}

/// The objects of a text, those of lists included.
fn objects(text: &str) -> Vec<Value> {
    let parsed = yaml::parse(text.trim_start_matches('\u{feff}')).expect("parses");
    let values = parsed.documents.iter().map(|document| document.value().expect("a value"));
    values
        .flat_map(|value| match value["items"].as_array() {
            Some(items) => items.clone(),
            None => vec![value],
        })
        .collect()
}

/// The pod's port that a Service's port leads to, as Kubernetes finds it.
fn pod_port(spec: &Value, target: &Value) -> Option<u64> {
    let lists = ["containers", "initContainers"].map(|list| spec[list].as_array());
    let containers = lists.into_iter().flatten().flatten();
    let mut ports = containers.flat_map(|one| one["ports"].as_array().into_iter().flatten());
    match target {
        Value::String(name) => ports.find(|port| port["name"] == **name)?["containerPort"].as_u64(),
        number => number.as_u64(),
    }
}

/// What each port of each Service leads to in each workload that it selects; the workload's sidecar
/// with it.
fn routes(text: &str) -> Vec<(String, Option<u64>, Value)> {
    let objects = objects(text);
    let mut routes = Vec::new();
    for service in objects.iter().filter(|object| object["kind"] == "Service") {
        for object in &objects {
            let kind = object["kind"].as_str().unwrap_or_default();
            let Some(path) = plan::template_path(kind) else { continue };
            let template = plan::at(object, path);
            if !plan::selects(service, object, template) {
                continue;
            }
            let tcp = |port: &&Value| port["protocol"] != "UDP";
            for target in port::service_ports(service).filter(tcp).map(port::target_of) {
                let name =
                    format!("{} of {}", service["metadata"]["name"], object["metadata"]["name"]);
                let first = template["spec"]["initContainers"][0].clone();
                routes.push((name, pod_port(&template["spec"], target), first));
            }
        }
    }
    routes
}

#[test]
fn a_services_traffic_goes_to_the_sidecar_and_from_there_to_the_port_that_it_went_to() {
    let mut moved = 0;
    for (name, text) in corpus("good") {
        let before = routes(&text);
        let after = routes(&injected(&name, &text).text);
        assert_eq!(before.len(), after.len(), "{name}");
        for ((service, was, _), (_, is, sidecar)) in before.iter().zip(&after) {
            let variable = |wanted: &str| {
                let list = sidecar["env"].as_array().into_iter().flatten();
                let value = list.clone().find(|one| one["name"] == wanted)?["value"].as_str()?;
                value.rsplit(':').next()?.parse::<u64>().ok()
            };
            let ours = (sidecar["name"] == NAME).then(|| variable("FLOWTAP_TAPS__0__UPSTREAM"));
            if was.is_some() && ours.flatten() == *was {
                let listen = variable("FLOWTAP_TAPS__0__LISTEN");
                assert!(is.is_some() && *is == listen && is != was, "{name}: {service}: {is:?}");
                moved += 1;
            } else {
                assert_eq!(is, was, "{name}: {service}");
            }
        }
    }
    assert!(moved > 12, "{moved}");
}

/// Where PyYAML refuses them, and so the check against Kubernetes' schemas.
#[test]
fn tabs_stand_where_yaml_lets_them() {
    let text = "apiVersion: v1\t# a\nkind:\tPod\nmetadata:\n  name: a\t\nspec:\t# of it\n  containers:\t\n  \
                - {name: a,\timage: b, ports: [\t{containerPort: 80}]}\t# one\n\t\n";
    let once = injected("tabs", text).text;
    assert!(once.contains("- name: flowtap") && once.contains("kind:\tPod"), "{once}");
    assert_eq!(uninject(&once).expect("restores"), text);
}

#[test]
fn no_edited_text_looks_like_json_to_who_reads_it() {
    for (name, text) in corpus("good") {
        let once = injected(&name, &text).text;
        let edited = once != text;
        assert!(!edited || !once.trim_start().starts_with('{'), "{name}: {once}");
    }
}

#[test]
fn line_ends_are_those_of_the_lines_beside() {
    for (name, text) in corpus("good") {
        if !text.contains('\n') {
            continue; // one line, and so nothing to go by
        }
        let windows = injected(&name, &text.replace('\n', "\r\n")).text;
        assert_eq!(windows.matches('\n').count(), windows.matches("\r\n").count(), "{name}");
    }
}

#[test]
fn what_cannot_be_edited_safely_is_refused_with_its_place() {
    for (name, text) in corpus("refused") {
        let refusals = match inject(&text, &settings()) {
            Ok(injected) => panic!("{name} is injected:\n{}", injected.text),
            Err(refusals) => refusals,
        };
        assert!(refusals.iter().all(|refusal| refusal.line > 0), "{name}: {refusals:?}");
        let told: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        same_as_file(&format!("refused/{name}.txt"), &format!("{}\n", told.join("\n")));
    }
}

#[test]
fn cut_and_scrambled_manifests_are_injected_whole_or_refused() {
    let (mut done, mut refused) = (0, 0);
    for (name, text) in corpus("good") {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for at in 0..lines.len() {
            let mut without = lines.clone();
            without.remove(at);
            for changed in [without.concat(), lines[..at].concat(), lines[at..].concat()] {
                match inject(&changed, &settings()) {
                    Ok(injected) => {
                        done += 1;
                        // What is left of marks that stood in a text counts as taken out.
                        let before = uninject(&changed).expect("restores");
                        let after = uninject(&injected.text).expect("restores");
                        assert_eq!(after, before, "{name} {at}");
                    }
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(done > 500 && refused > 50, "{done} {refused}");
}
