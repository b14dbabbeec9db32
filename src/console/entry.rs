//! Who may come in: by a `Host` that is ours, and, where a token is set, by the token itself
//! (programs) or by the cookie of a session that began with it (the page).
//!
//! A session is no state of ours: its cookie holds when it ends, signed with a key made of the token.
//! It outlives a restart, holds at every replica with the same token, and ends when the token changes.

use std::net::IpAddr;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::header::{
    AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderValue, LOCATION, ORIGIN, SET_COOKIE,
};
use axum::http::{HeaderName, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hmac::{Hmac, Mac};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;

use super::api::Problem;
use super::{Desk, assets};
use crate::config::{Admin, Secret};

/// How long a session lasts.
const SESSION: SignedDuration = SignedDuration::from_hours(12);
/// The cookie that holds it, which no script can read.
const COOKIE_NAME: &str = "flowtap_session";
/// A cookie that scripts can read: whether there is anything to sign out of. It opens nothing.
const SIGNED_IN: &str = "flowtap_signed_in";
/// A form is not longer.
const FORM_BYTES_MAX: usize = 8 * 1024;
/// What a wrong token costs the one who tried it.
const WRONG_TOKEN_DELAY: std::time::Duration = std::time::Duration::from_secs(1);
/// A body is here by then.
const BODY_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);
const LOGIN: &str = include_str!("login.html");

/// All of a body. Who sends it byte by byte holds a connection that others need, so it has an end.
pub async fn read(body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    match tokio::time::timeout(BODY_WITHIN, axum::body::to_bytes(body, bytes_max)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => {
            let why = format!("the body is longer than {bytes_max} bytes, or was cut off");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, why))
        }
        Err(_) => {
            let why = format!("the body did not come within {} s", BODY_WITHIN.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, why))
        }
    }
}

/// Signing in and out.
pub fn routes() -> Router<Desk> {
    Router::new().route("/login", get(form).post(sign_in)).route("/logout", post(sign_out))
}

/// Lets pass what names a `Host` of ours, against DNS rebinding, and what changes nothing or comes
/// from our own page, against forged requests.
pub async fn known(State(desk): State<Desk>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !is_host_allowed(&desk.shown.settings, request.uri(), headers) {
        return refused(StatusCode::MISDIRECTED_REQUEST, "this Host is not on admin.hosts");
    }
    if !is_from_here(request.method(), headers) {
        return refused(StatusCode::FORBIDDEN, "another site may not change anything here");
    }
    next.run(request).await
}

/// Lets pass who has the token, or a session.
pub async fn admitted(State(desk): State<Desk>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let Some(token) = &desk.shown.settings.token else { return next.run(request).await };
    if is_bearer(token, headers) || is_session(token, headers, Timestamp::now()) {
        return next.run(request).await;
    }
    refused(StatusCode::UNAUTHORIZED, "the token or a session is needed")
}

/// Where the form leads after signing in.
#[derive(serde::Deserialize)]
struct Asked {
    #[serde(default)]
    next: String,
}

async fn form(State(desk): State<Desk>, Query(asked): Query<Asked>) -> Response {
    match desk.shown.settings.token {
        Some(_) => assets::document(login(&asked.next, "")),
        None => see_other("/"),
    }
}

async fn sign_in(State(desk): State<Desk>, body: Body) -> Response {
    let Some(token) = &desk.shown.settings.token else { return see_other("/") };
    let body = match read(body, FORM_BYTES_MAX).await {
        Ok(body) => body,
        Err(problem) => return problem.into_response(),
    };
    let field = |name: &str| {
        let mut fields = url::form_urlencoded::parse(&body);
        fields.find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let next = field("next");
    if !is_token(token, field("token").trim().as_bytes()) {
        tokio::time::sleep(WRONG_TOKEN_DELAY).await;
        let told = "<p role=\"alert\">That is not the token.</p>";
        return (StatusCode::UNAUTHORIZED, assets::document(login(&next, told))).into_response();
    }
    let mut response = see_other(if is_own_path(&next) { &next } else { "/" });
    let seconds = SESSION.as_secs();
    let session =
        session(token, Timestamp::now().saturating_add(SESSION).unwrap_or(Timestamp::MAX));
    set_cookies(&mut response, &session, "1", seconds);
    response
}

async fn sign_out() -> Response {
    let mut response = see_other("/login");
    set_cookies(&mut response, "", "", 0);
    response
}

fn set_cookies(response: &mut Response, session: &str, signed_in: &str, seconds: i64) {
    let always = format!("Path=/; SameSite=Strict; Max-Age={seconds}");
    for cookie in [
        format!("{COOKIE_NAME}={session}; HttpOnly; {always}"),
        format!("{SIGNED_IN}={signed_in}; {always}"),
    ] {
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }
}

fn login(next: &str, told: &str) -> String {
    let next = if is_own_path(next) { next } else { "/" };
    let next = next.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    LOGIN.replace("<!-- told -->", told).replace("<!-- next -->", &next)
}

fn see_other(path: &str) -> Response {
    let path = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(LOCATION, path)]).into_response()
}

/// A path on this listener: a browser takes `//host` and `/\host` for another one.
fn is_own_path(path: &str) -> bool {
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    path.starts_with('/') && !path.starts_with("//") && plain
}

/// Whether the one `Host` names us, and so does the target where it names anybody.
fn is_host_allowed(settings: &Admin, target: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    if target.authority().is_some_and(|named| !named.as_str().eq_ignore_ascii_case(host)) {
        return false;
    }
    let Some(name) = name_of(host) else { return false };
    let listed = settings.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
    listed || name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// The name or the address of a `Host`, without its port; `None` where it is not one.
fn name_of(host: &str) -> Option<&str> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port = rest.strip_prefix(':').unwrap_or(rest);
    let sound = rest.is_empty() || (rest != port && port.parse::<u16>().is_ok());
    sound.then_some(name)
}

/// Whether a request that may change something comes from our own page, or from no page at all: a
/// browser always says where a change comes from.
fn is_from_here(method: &Method, headers: &HeaderMap) -> bool {
    if method.is_safe() {
        return true;
    }
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let site = text(HeaderName::from_static("sec-fetch-site"));
    let own = text(HOST).unwrap_or_default();
    let origin = text(ORIGIN).is_none_or(|origin| {
        let place = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
        place.is_some_and(|place| place.eq_ignore_ascii_case(own))
    });
    origin && site.is_none_or(|site| matches!(site, "same-origin" | "none"))
}

fn refused(status: StatusCode, why: &str) -> Response {
    Problem::new(status, why).into_response()
}

fn is_bearer(token: &Secret, headers: &HeaderMap) -> bool {
    let value = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let named = value.and_then(|value| value.split_at_checked(b"Bearer ".len()));
    // RFC 9110, 11.1: the scheme's case means nothing.
    named.is_some_and(|(scheme, given)| {
        scheme.eq_ignore_ascii_case(b"Bearer ") && is_token(token, given)
    })
}

/// Compares the signatures of both, so that time tells neither content nor length.
fn is_token(token: &Secret, given: &[u8]) -> bool {
    let (Some(right), Some(tried)) =
        (signed(token, token.expose().as_bytes()), signed(token, given))
    else {
        return false;
    };
    right.verify_slice(&tried.finalize().into_bytes()).is_ok()
}

/// The cookie of a session that ends at `until`.
fn session(token: &Secret, until: Timestamp) -> String {
    let until = until.as_second();
    let mac = signed(token, format!("flowtap session until {until}").as_bytes());
    let mac = mac.map(|mac| mac.finalize().into_bytes()).unwrap_or_default();
    let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{until}.{hex}")
}

fn is_session(token: &Secret, headers: &HeaderMap, now: Timestamp) -> bool {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = all.flat_map(|value| value.split(';')).map(str::trim);
    let ours = |cookie: &str| {
        let value = cookie.strip_prefix(COOKIE_NAME)?.strip_prefix('=')?;
        let until: i64 = value.split('.').next()?.parse().ok()?;
        let until = Timestamp::from_second(until).ok().filter(|until| *until > now)?;
        // Signed once more, both sides, for the time that comparing takes.
        let right = signed(token, session(token, until).as_bytes())?;
        let tried = signed(token, value.as_bytes())?.finalize().into_bytes();
        right.verify_slice(&tried).ok()
    };
    cookies.any(|cookie| ours(cookie).is_some())
}

fn signed(token: &Secret, text: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(token.expose().as_bytes()).ok()?;
    mac.update(text);
    Some(mac)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::PathBuf;

    use super::*;

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().expect("a header")))
            .collect()
    }

    fn admin() -> Admin {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Admin {
            listen,
            token: Some(Secret::new("t0ken")),
            hosts: vec!["flowtap.svc".into()],
            read_only: false,
            monitors_dir: PathBuf::from("saved-monitors"),
        }
    }

    #[test]
    fn only_addresses_localhost_and_listed_hosts_reach_the_page() {
        for (host, allowed) in [
            ("127.0.0.1:9464", true),
            ("[::1]:9464", true),
            ("localhost", true),
            ("flowtap.svc:80", true),
            ("evil.test", false),
            ("127.0.0.1.evil.test", false),
            ("[::1].evil.test", false),
            ("[::1", false),
            ("localhost:evil.test", false),
            ("localhost:99999999", false),
            ("", false),
        ] {
            let target = Uri::from_static("/api/v1/overview");
            let headers = headers(&[(HOST, host)]);
            assert_eq!(is_host_allowed(&admin(), &target, &headers), allowed, "{host}");
        }
    }

    #[test]
    fn a_target_that_names_another_host_and_a_second_host_are_not_ours() {
        let ours = headers(&[(HOST, "localhost:80")]);
        let allowed =
            |target, headers| is_host_allowed(&admin(), &Uri::from_static(target), headers);
        assert!(allowed("http://localhost:80/", &ours));
        assert!(!allowed("http://evil.test/", &ours));
        let mut two = ours.clone();
        two.append(HOST, HeaderValue::from_static("evil.test"));
        assert!(!allowed("/", &two));
        assert!(!allowed("/", &HeaderMap::new()));
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = Secret::new("t0ken");
        for (value, right) in [
            ("Bearer t0ken", true),
            ("bearer t0ken", true),
            ("bearer", false),
            ("Bearer t0kem", false),
            ("Bearer t0ken2", false),
            ("Bearer ", false),
            ("Basic t0ken", false),
        ] {
            assert_eq!(is_bearer(&token, &headers(&[(AUTHORIZATION, value)])), right, "{value}");
        }
        assert!(!is_bearer(&token, &HeaderMap::new()));
    }

    #[test]
    fn a_session_holds_until_its_end_under_its_token() {
        let (token, now) = (Secret::new("t0ken"), Timestamp::from_second(1_000).expect("a time"));
        let until = Timestamp::from_second(2_000).expect("a time");
        let cookie = format!("a=b; {COOKIE_NAME}={}", session(&token, until));
        let held = |token: &Secret, cookie: &str, now| {
            is_session(token, &headers(&[(COOKIE, cookie)]), now)
        };
        assert!(held(&token, &cookie, now));
        assert!(!held(&token, &cookie, until), "it has ended");
        assert!(!held(&Secret::new("another"), &cookie, now));
        assert!(!held(&token, &cookie.replace("2000.", "3000."), now), "its end is signed");
        assert!(!held(&token, &format!("{COOKIE_NAME}=2000."), now));
        assert!(!held(&token, "flowtap_signed_in=1", now), "this one opens nothing");
    }

    #[test]
    fn changes_come_from_our_own_origin() {
        let site = HeaderName::from_static("sec-fetch-site");
        for (origin, site_value, same) in [
            ("http://127.0.0.1:9464", "same-origin", true),
            ("https://127.0.0.1:9464", "same-origin", true),
            ("http://127.0.0.1:9464", "cross-site", false),
            ("http://127.0.0.1:8000", "same-origin", false),
            ("http://127.0.0.1:9464.evil.test", "same-origin", false),
            ("null", "same-origin", false),
        ] {
            let fields =
                headers(&[(HOST, "127.0.0.1:9464"), (ORIGIN, origin), (site.clone(), site_value)]);
            assert_eq!(is_from_here(&Method::POST, &fields), same, "{origin} {site_value}");
        }
        let program = headers(&[(HOST, "127.0.0.1:9464")]);
        assert!(is_from_here(&Method::POST, &program), "a program, which no site can make do this");
        let reading = headers(&[(HOST, "127.0.0.1:9464"), (site, "cross-site")]);
        assert!(is_from_here(&Method::GET, &reading));
    }

    #[test]
    fn signing_in_leads_to_a_place_of_ours() {
        for (next, ours) in [
            ("/samples?from=2026-11-23T00:00:00Z", true),
            ("//evil.test", false),
            ("/\\evil.test", false),
            ("https://evil.test", false),
            ("/a\r\nSet-Cookie: b", false),
            ("", false),
        ] {
            assert_eq!(is_own_path(next), ours, "{next}");
        }
        let page = login("/samples?a=\"><script>", "");
        assert!(page.contains("value=\"/samples?a=&quot;>&lt;script>\""), "{page}");
    }
}
