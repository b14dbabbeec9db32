//! The admin listener as browsers and programs meet it: the page, signing in, and who is kept out.
#![allow(clippy::expect_used, clippy::panic)]

mod page;
mod saving;

use serde_json::{Value, json};

use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::{Message, Peer};

const TOKEN: &str = "a-token-that-nobody-guesses";

fn open() -> Flowtap {
    Setup::before(1).start()
}

fn guarded() -> Flowtap {
    Setup::before(1).environment("FLOWTAP_ADMIN__TOKEN", TOKEN).start()
}

/// One request on a connection of its own; `head` is its first line and headers but `Host`.
fn ask(flowtap: &Flowtap, head: &str, body: &str) -> Message {
    let host = format!("Host: 127.0.0.1:{}\r\n", flowtap.admin);
    let host = if head.contains("Host:") { "" } else { &host };
    let mut client = Peer::connect(flowtap.admin);
    let length = body.len();
    client.send(format!(
        "{head}\r\n{host}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ));
    client.read_response()
}

fn get(flowtap: &Flowtap, path: &str) -> Message {
    ask(flowtap, &format!("GET {path} HTTP/1.1"), "")
}

fn sign_in(flowtap: &Flowtap, token: &str, next: &str, origin: &str) -> Message {
    let body = format!("token={token}&next={next}");
    ask(flowtap, &format!("POST /login HTTP/1.1\r\nOrigin: {origin}"), &body)
}

/// The cookies that an answer sets, without their attributes.
fn cookies(answer: &Message) -> String {
    let is_set = |line: &&str| line.to_lowercase().starts_with("set-cookie:");
    let set = answer.head.lines().filter(is_set).map(|line| &line[11..]);
    set.filter_map(|cookie| cookie.split(';').next()).map(str::trim).collect::<Vec<_>>().join("; ")
}

#[test]
fn every_view_is_the_page_and_says_what_it_may_load() {
    let flowtap = open();
    for view in ["/", "/tokens", "/samples", "/samples/01JKX?last=7d", "/health"] {
        let page = get(&flowtap, view);
        assert_eq!(page.status(), 200, "{view}");
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        let policy = page.header("content-security-policy").expect("a policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "frame-ancestors 'none'",
            "trusted-types 'none'",
        ] {
            assert!(policy.contains(part), "{part} in {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(page.header("cache-control"), Some("no-store"));
        assert!(!page.text().contains("<script>"), "no script stands in the page itself");
    }
    assert_eq!(get(&flowtap, "/nowhere").status(), 404);
    assert_eq!(get(&flowtap, "/assets/gone.js").status(), 404);
}

/// Promise (security): the admin side answers no other host and changes nothing for another page.
#[test]
fn other_hosts_and_changes_from_other_pages_are_refused() {
    let flowtap = open();
    for path in ["/", "/api/v1/overview", "/login"] {
        let other = ask(&flowtap, &format!("GET {path} HTTP/1.1\r\nHost: evil.test"), "");
        assert_eq!(other.status(), 421, "{path}");
    }
    let flowtap = guarded();
    for origin in ["http://evil.test", "null", "http://127.0.0.1:1"] {
        assert_eq!(sign_in(&flowtap, TOKEN, "/", origin).status(), 403, "{origin}");
    }
    let program = ask(&flowtap, "POST /login HTTP/1.1", &format!("token={TOKEN}"));
    assert_eq!(program.status(), 303, "no page of any site says nothing of where it comes from");
}

/// Promise (security): data needs the token or a session that began with it.
#[test]
fn data_needs_the_token_or_a_session_that_began_with_it() {
    let flowtap = guarded();
    let path = "/api/v1/openapi.json";
    assert_eq!(get(&flowtap, path).status(), 401);
    assert_eq!(get(&flowtap, "/metrics").status(), 200, "scrapers need none");
    assert_eq!(get(&flowtap, "/").status(), 200, "the page itself holds no data");
    let bearer = format!("GET {path} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}");
    assert_eq!(ask(&flowtap, &bearer, "").status(), 200);

    let own = format!("http://127.0.0.1:{}", flowtap.admin);
    let wrong = sign_in(&flowtap, "wrong", "/", &own);
    assert_eq!((wrong.status(), cookies(&wrong).as_str()), (401, ""));
    assert!(wrong.text().contains("That is not the token."));
    let right = sign_in(&flowtap, TOKEN, "%2Fsamples%3Flast%3D7d", &own);
    assert_eq!(right.status(), 303);
    assert_eq!(right.header("location"), Some("/samples?last=7d"));
    let session = right.header("set-cookie").expect("a cookie").to_owned();
    assert!(session.contains("HttpOnly") && session.contains("SameSite=Strict"), "{session}");
    assert!(!right.head.contains(TOKEN), "the token is in no cookie: {}", right.head);

    let with =
        |cookie: &str| ask(&flowtap, &format!("GET {path} HTTP/1.1\r\nCookie: {cookie}"), "");
    assert_eq!(with(&cookies(&right)).status(), 200);
    assert_eq!(with("flowtap_signed_in=1").status(), 401);
    assert_eq!(with(&cookies(&right).replace("session=", "session=9")).status(), 401);

    let away = sign_in(&flowtap, TOKEN, "%2F%2Fevil.test", &own);
    assert_eq!(away.header("location"), Some("/"), "it leads to no other host");
    let out = ask(&flowtap, &format!("POST /logout HTTP/1.1\r\nOrigin: {own}"), "");
    assert_eq!((out.status(), out.header("location")), (303, Some("/login")));
    assert!(out.head.contains("Max-Age=0"), "{}", out.head);
}

/// Promise (security): who sends a body byte by byte keeps no connection.
#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let flowtap = guarded();
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let posts = ["/login", "/api/v1/configuration/monitors"].map(|path| {
        let mut slow = Peer::connect(flowtap.admin);
        slow.send(format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{bearer}\r\nContent-Length: 100\r\n\r\ntoken"
        ));
        slow
    });
    for mut slow in posts {
        let answer = slow.read_response();
        assert_eq!(answer.status(), 408, "{}", answer.text());
    }
}

/// Promise (operations): health checks and scrapes are answered while a crowd keeps connections to the admin
/// address. Figure: 200 connections with half a head and 80 with half a body, 20 checks, 20 answered.
#[test]
fn a_crowd_that_only_keeps_connections_keeps_no_check_out() {
    let flowtap = guarded();
    let half = |text: &str| {
        let mut peer = Peer::connect(flowtap.admin);
        peer.send(text);
        peer
    };
    let crowd: Vec<_> = (0..280)
        .map(|number| match number % 7 {
            0 | 1 => half("POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nt"),
            _ => half("GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "),
        })
        .collect();
    for _ in 0..10 {
        assert_eq!(get(&flowtap, "/livez").status(), 200);
        assert_eq!(get(&flowtap, "/metrics").status(), 200);
    }
    drop(crowd);
}

#[test]
fn monitors_are_checked_as_they_are_written_and_nothing_else_is_read() {
    let flowtap = Setup::before(1)
        .top("monitors: [{name: daily, schedule: '15 10 * * *', signals: {operations: {error_rate_max: 0.01}, generation_quality: {average: {fluency: 4}}}}]")
        .start();
    let path = "/api/v1/configuration/monitors";
    let shown: Value = serde_json::from_str(&get(&flowtap, path).text()).expect("JSON");
    let yaml = shown["yaml"].as_str().expect("text");
    assert!(yaml.contains("- name: daily") && !yaml.contains("listen"), "{yaml}");
    let check = |text: &str| -> Value {
        let answer = ask(&flowtap, &format!("POST {path} HTTP/1.1"), text);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        serde_json::from_str(&answer.text()).expect("JSON")
    };
    assert_eq!(check(yaml), json!({"monitors": ["daily"], "faults": []}), "what is shown is sound");
    let wrong =
        check("monitors:\n  - name: daily\n    shedule: \"15 10 * * *\"\n    window: soon\n");
    let faults = wrong["faults"].as_array().expect("faults");
    assert!(faults.len() >= 2, "all faults at once: {wrong}");
    let misspelt = faults.iter().find(|fault| fault["nearest"] == "schedule");
    let place = misspelt.map(|fault| (&fault["line"], &fault["column"]));
    assert_eq!(place, Some((&json!(3), &json!(5))), "{wrong}");
    // Neither the other keys, which name files, nor the environment.
    for text in [
        "admin: {token_file: /etc/hostname}",
        "monitors: [{name: \"${HOME}\", schedule: '15 10 * * *', signals: {operations: {}}}]",
        "monitors: [",
    ] {
        let told = check(text);
        assert!(told["faults"].as_array().is_some_and(|faults| !faults.is_empty()), "{told}");
        let home = std::env::var("HOME").unwrap_or_default();
        assert!(!told.to_string().contains(&home), "{told}");
    }
    let long = ask(&flowtap, &format!("POST {path} HTTP/1.1"), &"#".repeat(70_000));
    assert_eq!(long.status(), 413);
    let bytes = ask(&flowtap, &format!("PUT {path} HTTP/1.1"), "");
    assert_eq!(bytes.status(), 405);
    let forged = ask(&flowtap, &format!("POST {path} HTTP/1.1\r\nOrigin: http://evil.test"), "");
    assert_eq!(forged.status(), 403);
}
