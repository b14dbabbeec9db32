//! From the client's target to the upstream's: swapping the base URL is all that a client does.

use std::borrow::Cow;

use http::header::{HOST, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Uri, uri};

use crate::config::{HostSent, Upstream};

/// How a tap's requests are addressed upstream.
#[derive(Clone, Debug)]
pub struct Route {
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    sent: HostSent,
    path_prefix: String,
}

impl Route {
    /// The route to `upstream`, which gets the `Host` that `sent` says; `None` if its parts make no URL,
    /// which the configuration excludes.
    pub fn to(upstream: &Upstream, sent: HostSent) -> Option<Self> {
        Some(Self {
            scheme: if upstream.secure { Scheme::HTTPS } else { Scheme::HTTP },
            authority: upstream.authority.parse().ok()?,
            host: HeaderValue::from_str(&upstream.authority).ok()?,
            sent,
            path_prefix: upstream.path_prefix.clone(),
        })
    }

    /// The `Host` for a request whose head has `headers` and `target` (in absolute form with HTTP/2):
    /// the upstream's as it knows itself, which is what the client would have sent without us, or the
    /// client's.
    pub fn host(&self, headers: &HeaderMap, target: &Uri) -> HeaderValue {
        let named = || HeaderValue::from_str(target.authority()?.as_str()).ok();
        let given = match self.sent {
            HostSent::Client => headers.get(HOST).cloned().or_else(named),
            HostSent::Upstream => None,
        };
        given.filter(|given| !given.is_empty()).unwrap_or_else(|| self.host.clone())
    }

    /// The same for a client that sent `given`, which is not empty.
    pub fn host_bytes<'a>(&'a self, given: &'a [u8]) -> &'a [u8] {
        match self.sent {
            HostSent::Upstream => self.host.as_bytes(),
            HostSent::Client => given,
        }
    }

    /// The target in origin form, as HTTP/1.1 sends it; see [`Self::target`].
    pub fn origin_form(&self, target: &Uri) -> Option<Uri> {
        let Some(given) = target.path_and_query() else {
            return Some(Uri::from(PathAndQuery::from_static("/")));
        };
        let path_and_query = match self.target(given.as_str()) {
            Cow::Borrowed(_) => given.clone(),
            Cow::Owned(prefixed) => prefixed.parse().ok()?,
        };
        Some(Uri::from(path_and_query))
    }

    /// What a target with path and query becomes.
    ///
    /// The upstream's path prefix is put before the path unless the path starts with it already, so
    /// that both a base URL (`https://host/v1`) and a full scoring URL (`https://host/score`) may be
    /// configured, and clients may send either.
    pub fn target<'t>(&self, given: &'t str) -> Cow<'t, str> {
        let path = given.split_once('?').map_or(given, |(path, _)| path);
        if self.path_prefix.is_empty() || self.is_prefixed(path) {
            return Cow::Borrowed(given);
        }
        let rest = given.strip_prefix('/');
        let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with('?')).unwrap_or(given);
        Cow::Owned(format!("{}{rest}", self.path_prefix))
    }

    /// The target in absolute form, from which HTTP/2 takes `:scheme` and `:authority`; the latter is
    /// `host`.
    pub fn absolute_form(&self, origin_form: Uri, host: Option<&HeaderValue>) -> Option<Uri> {
        let mut parts = uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        let named = || Authority::try_from(host?.as_bytes()).ok();
        let given = (self.sent == HostSent::Client).then(named).flatten();
        parts.authority = Some(given.unwrap_or_else(|| self.authority.clone()));
        parts.path_and_query = origin_form.into_parts().path_and_query;
        Uri::from_parts(parts).ok()
    }

    fn is_prefixed(&self, path: &str) -> bool {
        let rest = path.strip_prefix(self.path_prefix.as_str());
        path == "*"
            || rest.is_some_and(|rest| {
                self.path_prefix.is_empty() || rest.is_empty() || rest.starts_with('/')
            })
    }

    /// A route to `up` below `prefix`.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn for_test(prefix: &str) -> Self {
        Self {
            scheme: Scheme::HTTPS,
            authority: Authority::from_static("up"),
            host: HeaderValue::from_static("up"),
            sent: HostSent::Upstream,
            path_prefix: prefix.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(prefix: &str, target: &str) -> String {
        let route = Route::for_test(prefix);
        let target = target.parse().expect("a valid target");
        route.origin_form(&target).expect("a valid route").to_string()
    }

    fn hosts(sent: HostSent, given: Option<&str>, target: &str) -> (String, String) {
        let route = Route { sent, ..Route::for_test("") };
        let mut headers = HeaderMap::new();
        given.map(|host| headers.insert(HOST, HeaderValue::from_str(host).expect("a value")));
        let target: Uri = target.parse().expect("a target");
        let host = route.host(&headers, &target);
        let absolute = route.absolute_form(Uri::from_static("/score"), Some(&host)).expect("a URL");
        (host.to_str().expect("text").to_owned(), absolute.to_string())
    }

    #[test]
    fn the_host_is_the_upstreams_or_the_clients() {
        let both = |host: &str| (host.to_owned(), format!("https://{host}/score"));
        for (given, target) in [(Some("shop.example:8443"), "/"), (None, "/")] {
            assert_eq!(hosts(HostSent::Upstream, given, target), both("up"));
        }
        assert_eq!(
            hosts(HostSent::Client, Some("shop.example:8443"), "/"),
            both("shop.example:8443")
        );
        assert_eq!(hosts(HostSent::Client, None, "http://by.http2/"), both("by.http2"));
        assert_eq!(hosts(HostSent::Client, None, "/"), both("up"), "HTTP/1.0 need not name one");
        assert_eq!(hosts(HostSent::Client, Some(""), "/"), both("up"));
        let route = Route { sent: HostSent::Client, ..Route::for_test("") };
        assert_eq!(route.host_bytes(b"shop"), b"shop");
        assert_eq!(Route::for_test("").host_bytes(b"shop"), b"up");
    }

    #[test]
    fn base_urls_and_full_urls_both_lead_there() {
        assert_eq!(routed("", "/score?a=%20b"), "/score?a=%20b");
        assert_eq!(routed("/score", "/score"), "/score");
        assert_eq!(routed("/score", "/"), "/score");
        assert_eq!(routed("/score", "/?x=1"), "/score?x=1");
        assert_eq!(routed("/v1", "/chat/completions"), "/v1/chat/completions");
        assert_eq!(routed("/v1", "/v1/chat/completions"), "/v1/chat/completions");
        assert_eq!(routed("/v1", "/v1beta/x"), "/v1/v1beta/x");
        assert_eq!(routed("", "http://a/t//../x%2f"), "/t//../x%2f");
        assert_eq!(routed("/v1", "*"), "*");
    }
}
