//! Secrets in places where nobody looks for them: behind escapes and encodings, in pieces of a stream, at the
//! edge of what was captured, in the protocol's own corners.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::contents;
use crate::streams::CHAT;
use crate::support::api;
use crate::support::tap::Setup;
use crate::support::wire::{Upstream, json_post, json_response};

/// An exchange with a secret in one place.
struct Case {
    place: &'static str,
    request: Vec<u8>,
    answer: Vec<u8>,
    /// What must not be found: the secret, and its encoded form where it has one.
    needles: Vec<String>,
    /// What must not be found all in one file: the pieces that it came in.
    pieces: Vec<String>,
}

/// How long the pieces are that a secret comes in.
const PIECE_BYTES: usize = 6;

/// Fills a list of cases, each with a secret of its own.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn secret(&self) -> String {
        // Letters and digits that no two places share.
        let number = self.0.len() as u64 + 1;
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut sign = || {
            state = state.rotate_left(7).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ number;
            char::from(
                b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
                    [(state >> 32) as usize % 56],
            )
        };
        let signs: String = (0..36).map(|_| sign()).collect();
        format!("sk-proj-{signs}7")
    }

    fn add(
        &mut self,
        place: &'static str,
        request: Vec<u8>,
        answer: Vec<u8>,
        needles: Vec<String>,
    ) {
        self.0.push(Case { place, request, answer, needles, pieces: Vec::new() });
    }

    /// In the text of a prompt, written as `text` says.
    fn prompt(&mut self, place: &'static str, text: impl Fn(&str) -> String) {
        let secret = self.secret();
        let body =
            json!({"model": "gpt-4", "messages": [{"role": "user", "content": text(&secret)}]});
        self.add(
            place,
            json_post(CHAT, &body.to_string()).into(),
            plain(),
            vec![secret[8..].to_owned()],
        );
    }

    /// In a prompt, encoded: neither the secret nor its code may be found.
    fn encoded(&mut self, place: &'static str, code: impl Fn(&str) -> String) {
        let secret = self.secret();
        let code = code(&secret);
        let body = json!({"model": "gpt-4", "messages": [{"role": "user", "content": format!("it is {code} here")}]});
        let needles = vec![secret[8..].to_owned(), code[12..code.len() - 4].to_owned()];
        self.add(place, json_post(CHAT, &body.to_string()).into(), plain(), needles);
    }

    /// As a request to `path` with this body as it stands.
    fn body(
        &mut self,
        place: &'static str,
        path: &str,
        media: &str,
        body: impl Fn(&str) -> String,
    ) {
        let secret = self.secret();
        let request = json_post(path, &body(&secret)).replace("application/json", media);
        self.add(place, request.into(), plain(), vec![secret[8..].to_owned()]);
    }

    /// As a request of these bytes.
    fn raw(&mut self, place: &'static str, request: impl Fn(&str) -> String) {
        let secret = self.secret();
        self.add(place, request(&secret).into(), plain(), vec![secret[8..].to_owned()]);
    }

    /// As the answer to `path` with this type and body.
    fn answer(&mut self, place: &'static str, answer: impl Fn(&str) -> String) {
        let secret = self.secret();
        self.add(
            place,
            json_post(CHAT, "{}").into(),
            answer(&secret).into(),
            vec![secret[8..].to_owned()],
        );
    }

    /// In pieces of a stream's events.
    fn stream(&mut self, place: &'static str, path: &str, event: impl Fn(&str) -> String) {
        let secret = self.secret();
        let pieces: Vec<_> = secret
            .as_bytes()
            .chunks(PIECE_BYTES)
            .map(|p| String::from_utf8_lossy(p).into_owned())
            .collect();
        let events: String =
            pieces.iter().map(|piece| format!("data: {}\n\n", event(piece))).collect();
        let body = format!("data: {}\n\n{events}data: [DONE]\n\n", event("it is "));
        let answer = json_response(&body).replace("application/json", "text/event-stream");
        self.add(
            place,
            json_post(path, "{\"question\":\"q\"}").into(),
            answer.into(),
            vec![secret],
        );
        if let Some(case) = self.0.last_mut() {
            case.pieces = pieces[2..pieces.len() - 1].to_vec();
        }
    }
}

fn plain() -> Vec<u8> {
    json_response("{\"choices\":[{\"message\":{\"content\":\"fine\"}}]}").into()
}

fn streams(cases: &mut Cases) {
    let delta = |delta: Value| json!({"choices": [{"index": 0, "delta": delta}]}).to_string();
    cases.stream("a chat's content", CHAT, |piece| delta(json!({"content": piece})));
    cases.stream("a chat's reasoning", CHAT, |piece| delta(json!({"reasoning_content": piece})));
    cases.stream("a call's arguments", CHAT, |piece| {
        delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}))
    });
    cases.stream("a call without an index", CHAT, |piece| {
        delta(json!({"tool_calls": [{"function": {"arguments": piece}}]}))
    });
    cases.stream("content in parts", CHAT, |piece| {
        delta(json!({"content": [{"type": "text", "text": piece}]}))
    });
    cases.stream("events that are strings", CHAT, |piece| format!("{piece:?}"));
    cases.stream("events that are lists", CHAT, |piece| format!("[{piece:?}]"));
    cases.stream("events that are no JSON", CHAT, str::to_owned);
    cases.stream("a completion", "/v1/completions", |piece| {
        json!({"choices": [{"text": piece}]}).to_string()
    });
    cases.stream("a flow's answer", "/score", |piece| json!({"answer": piece}).to_string());
    cases.stream("a flow's lists", "/score", |piece| format!("[{piece:?}]"));
    cases.stream("a message", "/v1/messages", |piece| {
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}).to_string()
    });
    cases.stream("a response", "/v1/responses", |piece| {
        json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": piece}).to_string()
    });
    cases.stream("events nobody knows", "/v1/messages", |piece| {
        json!({"type": "new", "new": piece}).to_string()
    });
}

fn encodings(cases: &mut Cases) {
    cases.encoded("base64", |secret| STANDARD.encode(format!("the key is {secret}")));
    cases.encoded("base64 of JSON, for URLs", |secret| {
        URL_SAFE_NO_PAD.encode(json!({"api_key": secret}).to_string())
    });
    cases.encoded("every byte a percent escape", |secret| {
        secret.bytes().map(|b| format!("%{b:02x}")).collect()
    });
    cases.prompt("a percent escape", |secret| {
        format!("https://h/?q={}", secret.replace('-', "%2D"))
    });
    cases.prompt("a name with a percent escape", |secret| {
        format!("https://h/?api%5Fkey={}", &secret[8..])
    });
    cases.prompt("escapes of JSON in text", |secret| {
        format!("{{\"a\":\"\\u0073\\u006b{}\"", &secret[2..])
    });
    cases.prompt("names of HTML", |secret| {
        format!("&quot;api_key&quot;:&quot;{}&quot;", &secret[8..])
    });
    cases.prompt("JSON in JSON in JSON", |secret| {
        json!({"a": json!({"b": json!({"password": &secret[8..]}).to_string()}).to_string()})
            .to_string()
    });
    cases.prompt("a key's escaped lines", |secret| {
        let key = format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n");
        json!(json!(key).to_string()).to_string()
    });
    cases.prompt("the end of a key", |secret| {
        format!("{}\n{}\n-----END PRIVATE KEY-----", &secret[8..], &secret[8..])
    });
    cases.prompt("Markdown", |secret| format!("**API key:** `{}`", &secret[8..]));
    cases.prompt("a table", |secret| format!("| api_key | {} |", &secret[8..]));
    cases.prompt("XML", |secret| format!("<apiKey>{}</apiKey>", &secret[8..]));
    cases.prompt("a block of YAML", |secret| format!("password: |\n  {}\n", &secret[8..]));
    cases.prompt("a sentence", |secret| format!("the password is {}, thanks", &secret[8..]));
    cases.prompt("a cookie in text", |secret| format!("Set-Cookie2: sid={}; Path=/", &secret[8..]));
    cases.body("escapes in JSON that is broken", CHAT, "application/json", |secret| {
        format!(
            "{{\"model\":\"gpt-4\",\"messages\":[{{\"content\":\"\\u0073\\u006b{}\"}}],,}}",
            &secret[2..]
        )
    });
    cases.body("a list of lines", CHAT, "application/json", |secret| {
        json!({"messages": [], "lines": ["-----BEGIN PRIVATE KEY-----", &secret[8..], "-----END PRIVATE KEY-----"]}).to_string()
    });
    cases.body("the name of a member", CHAT, "application/json", |secret| {
        json!({"messages": [], secret: {secret: 1}}).to_string()
    });
    cases.body("the model", CHAT, "application/json", |secret| {
        json!({"model": secret, "messages": []}).to_string()
    });
    cases.body("a form in parts", "/score", "multipart/form-data; boundary=b", |secret| {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n{}\r\n--b--\r\n",
            &secret[8..]
        )
    });
    cases.body("a form", "/score", "application/x-www-form-urlencoded", |secret| {
        format!("q=hi&password={}", &secret[8..])
    });
}

/// What nobody sees, and what settings say.
fn unseen(cases: &mut Cases) {
    cases.prompt("a character without width", |secret| {
        format!("{}\u{200b}{}", &secret[..27], &secret[27..])
    });
    cases.prompt("a terminal's codes", |secret| {
        format!("API_KEY\u{1b}[0m=\u{1b}[1;32m{}\u{1b}[0m", &secret[8..])
    });
    cases.prompt("a variable of Terraform", |secret| {
        format!(
            "variable \"db_password\" {{\n  type = string\n  default = \"{}\"\n}}",
            &secret[8..]
        )
    });
    cases.prompt("the id of a private key", |secret| format!("private_key_id: {}", &secret[8..]));
}

fn protocol(cases: &mut Cases) {
    let chunked = |line: &str, end: &str| {
        format!(
            "POST {CHAT} HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: x-secret\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{line}\r\n{{}}\r\n0\r\n{end}\r\n"
        )
    };
    cases.raw("a chunk's extension", |secret| chunked(&format!("2;token={secret}"), ""));
    cases.raw("a trailer", |secret| chunked("2", &format!("x-secret: {secret}\r\n")));
    cases.raw("userinfo of an absolute target", |secret| {
        format!("POST http://u:{secret}@a{CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    });
    cases.raw("the method", |secret| {
        format!("{} {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", &secret[8..])
    });
    let with = |path: &str, field: &str| {
        json_post(path, "{\"messages\":[]}").replacen("\r\n", &format!("\r\n{field}\r\n"), 1)
    };
    cases.raw("a deployment in the path", |secret| {
        with(&format!("/openai/deployments/{secret}/chat/completions"), "X-A: b")
    });
    cases.raw("the same, escaped", |secret| {
        with(
            &format!("/openai/deployments/{}/chat/completions", secret.replace('-', "%2d")),
            "X-A: b",
        )
    });
    cases.raw("a bot's path", |secret| with(&format!("/bot{secret}/chat/completions"), "X-A: b"));
    cases.raw("a matrix parameter", |secret| with(&format!("{CHAT};key={secret}"), "X-A: b"));
    cases.raw("the deployment's header", |secret| {
        with(CHAT, &format!("azureml-model-deployment: {secret}"))
    });
    cases.raw("proxy credentials", |secret| {
        with(CHAT, &format!("Proxy-Authorization: Basic {}", &secret[8..]))
    });
    cases.raw("a request's id", |secret| with(CHAT, &format!("x-request-id: {secret}")));
    cases.raw("an agent's name", |secret| with(CHAT, &format!("user-agent: {secret}")));
    cases.raw("baggage", |secret| with(CHAT, &format!("baggage: key={secret}")));
    cases.answer("cookies of the answer", |secret| {
        json_response("{}").replacen(
            "\r\n",
            &format!(
                "\r\nSet-Cookie2: s={}\r\nWWW-Authenticate: Bearer {}\r\n",
                &secret[8..],
                &secret[8..]
            ),
            1,
        )
    });
    cases.answer("the answer's trailer", |secret| {
        format!("HTTP/1.1 200 OK\r\nTrailer: x-s\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\nx-s: {secret}\r\n\r\n")
    });
    cases.answer("where it leads", |secret| {
        let at = &secret[8..];
        format!("HTTP/1.1 302 Found\r\nLocation: https://u:{at}@h/?sig={at}#access_token={at}\r\nContent-Length: 0\r\n\r\n")
    });
    cases.answer("a nonsensical answer", |secret| {
        format!("HTTP/1.1 200 OK\r\nX : {secret}\r\nContent-Length: {secret}\r\n\r\n")
    });
}

/// What no prefix tells: a name before it, or beside it, or what an upstream says of it.
fn told(cases: &mut Cases) {
    let texts: [(&str, &str); 12] = [
        ("another language", "Mein Passwort ist …."),
        ("another script", "密码：…"),
        ("an option", "tool --token … run"),
        ("a user's option", "curl -u joe:… https://h"),
        ("an image's file", "ENV API_KEY …"),
        ("SQL", "CREATE USER joe IDENTIFIED BY '…'"),
        ("an argument beside its name", "h.set(\"Authorization\", \"Bearer …\")"),
        ("an index", "os.environ['API_KEY'] = '…'"),
        ("a variable of a pod", "- name: DB_PASSWORD\n  value: …\n"),
        ("a form of a page", "<input type=\"password\" value=\"…\">"),
        ("a scheme with parameters", "Authorization: Digest username=\"joe\", response=\"…\""),
        ("a list in JSON in text", "it sent {\"X-API-KEY\": [\"…\"]} there"),
    ];
    for (place, text) in texts {
        cases.prompt(place, |secret| text.replace("…", &secret[8..]));
    }
    for name in ["azure_search_key", "hf_token", "api_key_2", "password_confirmation", "basic_auth"]
    {
        cases.body("a member's name", CHAT, "application/json", |secret| {
            json!({"messages": [], "extra": {name: &secret[8..]}}).to_string()
        });
    }
    cases.body("a header in a list", CHAT, "application/json", |secret| {
        json!({"messages": [], "headers": [{"name": "x-api-key", "value": &secret[8..]}]})
            .to_string()
    });
    for said in ["Incorrect API key provided: ….", "invalid subscription key '…' or address"] {
        cases.answer("what an upstream says", |secret| {
            let message = said.replace("…", &secret[8..]);
            json_response(&json!({"error": {"message": message}}).to_string())
        });
    }
    cases.raw("a user before a host in a path", |secret| {
        json_post(&format!("//joe:{}@h{CHAT}", &secret[8..]), "{\"messages\":[]}")
    });
    cases.raw("a session in a path", |secret| {
        json_post(&format!("{CHAT};jsessionid={}", &secret[8..]), "{\"messages\":[]}")
    });
}

/// What is cut: secret beside secret, so that any cut goes through one.
fn edges(cases: &mut Cases) {
    let many = |secret: &str| format!("{secret} ").repeat(3000);
    cases.body("the edge of a long prompt", CHAT, "application/json", |secret| {
        json!({"messages": [{"role": "user", "content": many(secret)}]}).to_string()
    });
    cases.answer("the edge of a long answer", |secret| {
        json_response(&json!({"choices": [{"message": {"content": many(secret)}}]}).to_string())
    });
    cases.body("the edge of a long text", "/score", "text/plain", many);
}

fn assert_clean(cases: &[Case], places: &[(String, String)]) {
    let mut leaks = Vec::new();
    for case in cases {
        for (place, text) in places {
            let whole = case.needles.iter().any(|needle| text.contains(needle));
            let pieces =
                !case.pieces.is_empty() && case.pieces.iter().all(|piece| text.contains(piece));
            // Half a secret, as a cut leaves it.
            let half = case.needles.iter().any(|needle| {
                text.contains(&needle[..18]) || text.contains(&needle[needle.len() - 18..])
            });
            if whole || pieces || half {
                leaks.push(format!("{} lies in {place}", case.place));
            }
        }
    }
    assert!(leaks.is_empty(), "{}", leaks.join("\n"));
}

/// Promise (security): nor where it stands behind an escape or an encoding, comes in the pieces of a stream,
/// or was cut, or is told by a name beside it alone. Figure: 82 places, 0 found, nor half of one.
#[test]
fn secrets_behind_encodings_in_pieces_and_at_edges_leave_no_trace() {
    let mut cases = Cases::default();
    [streams, encodings, unseen, protocol, told, edges].iter().for_each(|add| add(&mut cases));
    let Cases(cases) = cases;
    let answers: Vec<_> = cases.iter().map(|case| case.answer.clone()).collect();
    let turn = Arc::new(AtomicUsize::new(0));
    let turns = Arc::clone(&turn);
    let upstream = Upstream::start(move |peer| {
        if peer.read_request().is_some() {
            peer.send(&answers[turns.load(Ordering::SeqCst)]);
        }
    });
    let flowtap = Setup::before(upstream.port)
        .top("sample: {rate: 1}\nlog: trace\ncapture: {body_bytes_max: 64KiB}")
        .start();
    for (number, case) in cases.iter().enumerate() {
        turn.store(number, Ordering::SeqCst);
        let mut client = flowtap.client();
        client.send(&case.request);
        client.read_response();
    }
    flowtap.await_idle();
    let metrics = flowtap.metrics();
    let listed = api::await_answer(flowtap.admin, "/samples?limit=200", |answer| {
        answer["samples"].as_array().is_some_and(|samples| samples.len() > cases.len() * 3 / 4)
    });
    let stopped = flowtap.stop();
    let text = serde_json::to_string(&stopped.rows("exchanges")).expect("JSON");
    assert!(text.matches("[secret").count() > cases.len() / 2, "they came there: {text}");
    let mut places =
        vec![("metrics".to_owned(), metrics), ("a list of samples".to_owned(), listed.to_string())];
    places.push(("the log".to_owned(), stopped.printed.clone()));
    places.extend(contents(stopped.folder()));
    assert_clean(&cases, &places);
}
