//! What is saved counts, what is faulty does not, and who is late is told.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt as _;

use super::super::tests::config_of;
use super::*;

const CONFIGURED: &str = "monitors: [{name: daily, schedule: '15 10 * * *', signals: {operations: {error_rate_max: 0.01}}}]";

fn text(name: &str, error_rate_max: f64) -> String {
    format!(
        "# why it is so\nmonitors:\n  - name: {name}\n    schedule: '15 10 * * *'\n    signals: {{operations: {{error_rate_max: {error_rate_max}}}}}\n"
    )
}

fn config(folder: &Path, more: &str) -> Config {
    let dir = folder.join("saved");
    config_of(&format!("admin: {{monitors_dir: '{}'{more}}}\n{CONFIGURED}", dir.display()))
}

fn limits(roster: &Roster) -> Vec<(String, Option<f64>)> {
    let of = |monitor: &Monitor| {
        let limit = monitor.operations.as_ref().and_then(|limits| limits.error_rate_max);
        (monitor.name.to_string(), limit)
    };
    roster.in_force().borrow().iter().map(of).collect()
}

fn version_of(roster: &Roster, name: &str) -> Known {
    Known::Version(roster.entry(name).unwrap().version)
}

#[test]
fn what_is_saved_takes_the_place_of_the_configured_until_it_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "");
    let roster = Roster::open(&config);
    let mut followed = roster.in_force();
    assert_eq!(limits(&roster), [("daily".to_owned(), Some(0.01))]);
    let known = version_of(&roster, "daily");
    let (entry, new) = roster.save("daily", &text("daily", 0.05), &known).unwrap();
    assert!(!new && entry.saved && entry.configured.is_some());
    assert_eq!(entry.yaml, text("daily", 0.05), "as it was typed, with its comments");
    assert!(followed.has_changed().unwrap(), "whoever watches is told");
    followed.mark_unchanged();
    assert!(roster.save("hourly", &text("hourly", 0.5), &Known::Absent).unwrap().1);
    let both = [("daily".to_owned(), Some(0.05)), ("hourly".to_owned(), Some(0.5))];
    assert_eq!(limits(&roster), both);
    assert_eq!(limits(&Roster::open(&config)), both, "and by the next process");

    let dir = folder.path().join("saved");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&dir.join("daily.yaml"))), (0o700, 0o600));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2, "nothing else is left there");

    let known = version_of(&roster, "daily");
    let back = roster.revert("daily", &known).unwrap().unwrap();
    assert!(!back.saved && back.faults.is_empty());
    assert!(roster.revert("hourly", &version_of(&roster, "hourly")).unwrap().is_none());
    assert_eq!(limits(&roster), [("daily".to_owned(), Some(0.01))]);
    assert_eq!(limits(&Roster::open(&config)), limits(&roster));
    let known = version_of(&roster, "daily");
    assert!(matches!(roster.revert("daily", &known), Err(Unsaved::Configured(_))));
    assert!(matches!(roster.revert("hourly", &Known::Any), Err(Unsaved::Unknown(_))));
}

#[test]
fn of_two_who_change_one_monitor_the_second_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let roster = Roster::open(&config(folder.path(), ""));
    let read = version_of(&roster, "daily");
    roster.save("daily", &text("daily", 0.05), &read).unwrap();
    let late = roster.save("daily", &text("daily", 0.5), &read);
    assert!(matches!(late, Err(Unsaved::Changed)));
    assert!(matches!(roster.revert("daily", &read), Err(Unsaved::Changed)));
    let taken = roster.save("daily", &text("daily", 0.5), &Known::Absent);
    assert!(matches!(taken, Err(Unsaved::Changed)), "there is one of this name");
    assert!(matches!(roster.save("new", &text("new", 0.5), &Known::Any), Err(Unsaved::Changed)));
    assert_eq!(limits(&roster), [("daily".to_owned(), Some(0.05))]);
}

#[test]
fn what_breaks_the_rules_of_the_configuration_is_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let roster = Roster::open(&config(folder.path(), ""));
    let faults = |name: &str, text: &str| match roster.save(name, text, &Known::Absent) {
        Err(Unsaved::Faulty(faults)) => faults.to_string(),
        other => panic!("{other:?}"),
    };
    let two = faults("a", "monitors:\n  - name: a\n    shedule: x\n    window: P0D\n");
    assert!(two.contains("monitors:3:5") && two.contains("did you mean `schedule`"), "{two}");
    assert!(two.contains("monitors:4:"), "all at once: {two}");
    assert!(faults("a", &text("b", 0.5)).contains("the monitor is called `b`"));
    assert!(faults("a", "").contains("there is no monitor"));
    let outside = faults("..", &text("..", 0.5));
    assert!(outside.contains("letters, digits"), "{outside}");
    assert!(
        faults("a", &text("a", 0.5).replace("daily", "${HOME}").replace("10", "${HOME}"))
            .contains("HOME")
    );
    assert!(!folder.path().join("saved").exists(), "nothing was written");
}

#[test]
fn a_saved_file_that_went_bad_is_set_aside_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "");
    let dir = folder.path().join("saved");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("daily.yaml"), "monitors: [{name: daily}]").unwrap();
    std::fs::write(dir.join("beside.yaml"), [0xff, 0xfe]).unwrap();
    std::fs::write(dir.join(".half.new"), "monitors: [").unwrap();
    let roster = Roster::open(&config);
    assert_eq!(limits(&roster), [("daily".to_owned(), Some(0.01))], "what is configured counts");
    let faulty: Vec<_> = roster.entries().into_iter().map(|e| (e.name, e.faults.len())).collect();
    assert_eq!(faulty, [(Arc::from("daily"), 2), (Arc::from("beside"), 1)]);
    assert!(roster.doubt(Some("daily")).is_some() && roster.doubt(Some("other")).is_none());
    let known = version_of(&roster, "beside");
    assert!(roster.revert("beside", &known).unwrap().is_none(), "it can be taken away");
    let known = version_of(&roster, "daily");
    roster.save("daily", &text("daily", 0.05), &known).unwrap();
    assert!(roster.doubt(None).is_none());
}

#[test]
fn where_nothing_can_be_saved_it_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let told = |more: &str| Roster::open(&config(folder.path(), more)).read_only();
    assert_eq!(told(""), None);
    assert!(told(", read_only: true").unwrap().contains("admin.read_only"));
    let open = ", listen: '0.0.0.0:9464'";
    assert!(told(open).unwrap().contains("without a token"));
    assert_eq!(told(", listen: '0.0.0.0:9464', token: t"), None);
    std::fs::write(folder.path().join("saved"), "in the way").unwrap();
    let roster = Roster::open(&config(folder.path(), ""));
    assert!(roster.read_only().unwrap().contains("cannot be read"));
    let refused = roster.save("a", &text("a", 0.5), &Known::Absent);
    assert!(matches!(refused, Err(Unsaved::ReadOnly(_))));
}
