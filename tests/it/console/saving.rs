//! Monitors that are saved on the page: by whom, over what, and what becomes of them.

use std::process::Command;

use serde_json::{Value, json};

use super::{TOKEN, ask, get};
use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::Message;

const PATH: &str = "/api/v1/configuration/monitors";
const DAILY: &str = "monitors: [{name: daily, schedule: '15 10 * * *', signals: {operations: {error_rate_max: 0.01}}}]";

fn text(name: &str, error_rate_max: f64) -> String {
    format!("# mine\n{}", DAILY.replace("daily", name).replace("0.01", &error_rate_max.to_string()))
}

/// Asks for one monitor; `more` is headers.
fn one(flowtap: &Flowtap, method: &str, name: &str, more: &str, body: &str) -> Message {
    ask(flowtap, &format!("{method} {PATH}/{name} HTTP/1.1{more}"), body)
}

fn read(flowtap: &Flowtap, name: &str) -> (Value, String) {
    let answer = one(flowtap, "GET", name, "", "");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let tag = answer.header("etag").expect("a version").to_owned();
    (value(&answer), tag)
}

fn value(answer: &Message) -> Value {
    serde_json::from_str(&answer.text()).expect("JSON")
}

fn plan(flowtap: &Flowtap, name: &str) -> Result<f64, String> {
    let config = flowtap.folder().join("flowtap.yaml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    let planned = command.args(["monitor", "plan", name, "--config"]).arg(config).output();
    let planned = planned.expect("it runs");
    match planned.status.success() {
        true => {
            let plan: Value = serde_json::from_slice(&planned.stdout).expect("a plan");
            Ok(plan["operations"]["error_rate_max"].as_f64().expect("a limit"))
        }
        false => Err(String::from_utf8_lossy(&planned.stderr).into_owned()),
    }
}

/// Promise (console): what is saved on the page counts everywhere, outlives the process, and of two who
/// edit one monitor nobody's text is lost unseen.
#[test]
fn a_saved_monitor_counts_until_it_is_taken_back_whatever_happens() {
    let flowtap = Setup::before(1).top(DAILY).start();
    let (configured, first) = read(&flowtap, "daily");
    assert_eq!((&configured["saved"], &configured["faults"]), (&json!(false), &json!([])));
    assert_eq!(plan(&flowtap, "daily"), Ok(0.01));

    let unconditional = one(&flowtap, "PUT", "daily", "", &text("daily", 0.05));
    assert_eq!(unconditional.status(), 428, "{}", unconditional.text());
    let matching = format!("\r\nIf-Match: {first}");
    let saved = one(&flowtap, "PUT", "daily", &matching, &text("daily", 0.05));
    assert_eq!(saved.status(), 200, "{}", saved.text());
    let late = one(&flowtap, "PUT", "daily", &matching, &text("daily", 0.5));
    assert_eq!(late.status(), 412, "{}", late.text());
    let new = "\r\nIf-None-Match: *";
    let made = one(&flowtap, "PUT", "hourly", new, &text("hourly", 0.2));
    assert_eq!(made.status(), 201, "{}", made.text());
    assert_eq!(one(&flowtap, "PUT", "hourly", new, &text("hourly", 0.3)).status(), 412);

    let (daily, version) = read(&flowtap, "daily");
    assert_eq!((&daily["yaml"], &daily["saved"]), (&json!(text("daily", 0.05)), &json!(true)));
    assert_eq!(daily["configured"], configured["yaml"]);
    assert!(daily["next"].as_str().is_some_and(|next| next.contains("T10:15:00Z")), "{daily}");
    assert_eq!((plan(&flowtap, "daily"), plan(&flowtap, "hourly")), (Ok(0.05), Ok(0.2)));

    let flowtap = flowtap.kill_and_restart();
    assert_eq!(read(&flowtap, "daily"), (daily, version.clone()), "a crash takes nothing away");
    let reverted = one(&flowtap, "DELETE", "daily", &format!("\r\nIf-Match: {version}"), "");
    assert_eq!((reverted.status(), &value(&reverted)["saved"]), (200, &json!(false)));
    assert_eq!(one(&flowtap, "DELETE", "hourly", "\r\nIf-Match: *", "").status(), 204);
    assert_eq!(one(&flowtap, "GET", "hourly", "", "").status(), 404);
    let configured = one(&flowtap, "DELETE", "daily", "\r\nIf-Match: *", "");
    assert_eq!(configured.status(), 409, "{}", configured.text());
    assert_eq!(plan(&flowtap, "daily"), Ok(0.01));
}

#[test]
fn a_faulty_monitor_is_not_saved_and_every_fault_is_told() {
    let flowtap = Setup::before(1).start();
    let wrong = "monitors:\n  - name: a\n    shedule: x\n    window: soon\n";
    let answer = one(&flowtap, "PUT", "a", "\r\nIf-None-Match: *", wrong);
    assert_eq!(answer.status(), 422, "{}", answer.text());
    let told = value(&answer);
    let lines: Vec<_> =
        told["faults"].as_array().expect("faults").iter().map(|f| &f["line"]).collect();
    assert!(lines.contains(&&json!(3)) && lines.contains(&&json!(4)), "{told}");
    let other = one(&flowtap, "PUT", "a", "\r\nIf-None-Match: *", &text("b", 0.5));
    assert_eq!(other.status(), 422, "{}", other.text());
    for name in ["..", "%2e%2e%2fa", "a.b", "a%00"] {
        let answer = one(&flowtap, "PUT", name, "\r\nIf-None-Match: *", &text("a", 0.5));
        assert!(matches!(answer.status(), 400 | 404 | 422), "{name}: {}", answer.text());
    }
    let long = one(&flowtap, "PUT", "a", "\r\nIf-None-Match: *", &"#".repeat(70_000));
    assert_eq!(long.status(), 413);
    assert!(!flowtap.folder().join("saved-monitors").exists(), "nothing was written");

    let saved = flowtap.folder().join("saved-monitors");
    std::fs::create_dir(&saved).expect("a folder");
    std::fs::write(saved.join("a.yaml"), wrong).expect("written");
    assert!(plan(&flowtap, "a").is_err_and(|told| told.contains("did you mean `schedule`")));
    let flowtap = flowtap.kill_and_restart();
    let (set_aside, _) = read(&flowtap, "a");
    assert_eq!(
        (set_aside["faults"].as_array().map(Vec::len), &set_aside["next"]),
        (Some(4), &Value::Null)
    );
    assert!(flowtap.printed().contains("a saved monitor is set aside"));
}

/// Promise (security): only who has the token, and no other site, saves a monitor; nobody where nothing
/// may be changed.
#[test]
fn only_who_may_change_something_saves_a_monitor() {
    let flowtap = Setup::before(1).environment("FLOWTAP_ADMIN__TOKEN", TOKEN).start();
    let new = "\r\nIf-None-Match: *";
    let save =
        |more: &str| one(&flowtap, "PUT", "a", &format!("{new}{more}"), &text("a", 0.5)).status();
    assert_eq!(save(""), 401);
    let bearer = format!("\r\nAuthorization: Bearer {TOKEN}");
    for origin in ["Origin: http://evil.test", "Origin: null", "Sec-Fetch-Site: cross-site"] {
        assert_eq!(save(&format!("{bearer}\r\n{origin}")), 403, "{origin}");
        let delete = format!("\r\nIf-Match: *{bearer}\r\n{origin}");
        assert_eq!(one(&flowtap, "DELETE", "a", &delete, "").status(), 403, "{origin}");
    }
    assert_eq!(save(&bearer), 201);

    let read_only = Setup::before(1).environment("FLOWTAP_ADMIN__READ_ONLY", "true").start();
    let answer = one(&read_only, "PUT", "a", new, &text("a", 0.5));
    assert_eq!(answer.status(), 403);
    assert!(answer.text().contains("admin.read_only"), "{}", answer.text());
    let all = value(&get(&read_only, PATH));
    assert_eq!(all["saving"]["allowed"], false);

    let open = Setup::before(1).environment("FLOWTAP_ADMIN__LISTEN", "0.0.0.0:0").start();
    let answer = one(&open, "PUT", "a", new, &text("a", 0.5));
    assert_eq!(answer.status(), 403, "who can reach it could change it: {}", answer.text());
}
