//! Names that say "credential": JSON keys and headers. And what a credential looks like.

use memchr::memmem;
use serde_json::Value;

use crate::domain::Node;

/// Names of credentials, without `-`, `_`, `.` and blanks, in lower case.
const NAMES: &[&str] = &[
    "token",
    "pwd",
    "pw",
    "pass",
    "passwd",
    "passcode",
    "passphrase",
    "cookie",
    "cookies",
    "setcookie",
    "credential",
    "credentials",
    "sas",
    "jwt",
    "bearer",
    "auth",
    "xfunctionskey",
    "functionskey",
    "sessionid",
    "jsessionid",
    "pem",
    "kubeconfig",
    "connectionstrings",
];

/// Ends of names of credentials: `openai_api_key`, `x-ms-client-secret`, `db_password`.
const ENDS: &[&str] = &[
    "apikey",
    "apikeys",
    "password",
    "passwords",
    "passwort",
    "kennwort",
    "contrasena",
    "secret",
    "secrets",
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "authtoken",
    "sessiontoken",
    "securitytoken",
    "bearertoken",
    "apitoken",
    "sastoken",
    "csrftoken",
    "authorizationtoken",
    "accesskey",
    "secretkey",
    "accountkey",
    "privatekey",
    "privatekeyid",
    "masterkey",
    "subscriptionkey",
    "signingkey",
    "encryptionkey",
    "sharedkey",
    "authkey",
    "authorization",
    "connectionstring",
    "secretaccesskey",
];

/// Names whose value is a credential only if it looks like one.
const LABELS: &[&str] = &[
    "sig",
    "signature",
    "code",
    "pincode",
    "pat",
    "otp",
    "sid",
    "sso",
    "csrf",
    "xsrf",
    "authentication",
];

/// Ends of such names: `azure_search_key`, `hf_token`, `basic_auth`, `DB_PASS`.
const LABEL_ENDS: &[&str] = &["key", "token", "auth", "pass", "pwd"];

/// Parts of such names: `password_confirmation`, `secret_id`.
const LABEL_PARTS: &[&str] = &["password", "apikey", "secret", "credential", "authorization"];

/// Longer names are sentences.
const NAME_BYTES_MAX: usize = 64;

/// True for the name of a credential, whatever its case and separators.
pub(super) fn is_name(name: &str) -> bool {
    let (buffer, len) = plain(name);
    let plain = unnumbered(&buffer[..len]);
    NAMES.iter().any(|known| known.as_bytes() == plain)
        || ENDS.iter().any(|end| plain.ends_with(end.as_bytes()))
}

/// True for a name that may label a credential. What has a placeholder in it is none.
pub(super) fn is_label(name: &str) -> bool {
    if name.contains('[') {
        return false;
    }
    let (buffer, len) = plain(name);
    let plain = unnumbered(&buffer[..len]);
    LABELS.iter().any(|known| known.as_bytes() == plain)
        || LABEL_ENDS.iter().any(|end| plain.ends_with(end.as_bytes()))
        || LABEL_PARTS.iter().any(|part| memmem::find(plain, part.as_bytes()).is_some())
}

/// Without a number at its end: `api_key_2`.
fn unnumbered(name: &[u8]) -> &[u8] {
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    &name[..name.len() - digits]
}

/// Names of the two members of an element that say a name and its value, as lists of headers and of
/// variables have them.
const PAIRS: &[(&str, &str)] = &[("name", "value"), ("key", "value"), ("header", "value")];

/// True for an element of which [`value_of_pair`] would find a value.
pub(super) fn is_pair(element: Node<'_, '_>) -> bool {
    let text = |member: &str| element.member(member).and_then(|value| value.text());
    let named = |(name, value): &(&str, &str)| {
        text(name).is_some_and(is_name) && text(value).is_some_and(|value| !value.is_empty())
    };
    let mut items = element.items();
    let listed = match (items.next(), items.next(), items.next()) {
        (Some(name), Some(value), None) => {
            name.text().is_some_and(is_name) && value.text().is_some_and(is_opaque_word)
        }
        _ => false,
    };
    listed || PAIRS.iter().any(named)
}

/// The value of an element that says `{"name": "api_key", "value": …}` or `["api_key", …]`.
pub(super) fn value_of_pair(element: &mut Value) -> Option<&mut String> {
    let is_pair = |name: Option<&Value>| name.and_then(Value::as_str).is_some_and(is_name);
    let value = match element {
        Value::Object(members) => {
            let (_, value) = PAIRS.iter().find(|(name, _)| is_pair(members.get(*name)))?;
            members.get_mut(*value)?
        }
        // A list of two words is one of names, more often than not.
        Value::Array(items) if items.len() == 2 && is_pair(items.first()) => {
            items.get_mut(1).filter(|value| value.as_str().is_some_and(is_opaque_word))?
        }
        _ => return None,
    };
    match value {
        Value::String(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// True for a header that carries credentials: never kept, even where the allow-list names it.
pub(super) fn is_header(name: &str) -> bool {
    let (buffer, len) = plain(name);
    let plain = String::from_utf8_lossy(&buffer[..len]);
    let parts = [
        "authorization",
        "cookie",
        "apikey",
        "secret",
        "password",
        "credential",
        "assertion",
        "secwebsocketprotocol",
    ];
    is_name(name)
        || plain.ends_with("token")
        || plain.ends_with("auth")
        || parts.iter().any(|part| plain.contains(part))
}

/// True for a header whose value is a credential if it looks like one: `x-search-key`. A UUID under such a name
/// is what tells requests apart: `idempotency-key`.
pub(super) fn is_in_header(name: &str, value: &str) -> bool {
    is_label(name) && is_opaque_word(value) && !is_uuid(value)
}

fn is_uuid(text: &str) -> bool {
    let is_sign = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == 36 && text.bytes().enumerate().all(is_sign)
}

/// True for text that is no word: it has a digit, capitals inside, or is longer than words are.
pub(super) fn is_opaque(text: &str) -> bool {
    let text = text.trim_end_matches(['.', ',', ':', ')']);
    let has = |of: fn(&u8) -> bool| text.as_bytes().iter().any(of);
    let capitals = text.bytes().skip(1).any(|byte| byte.is_ascii_uppercase());
    has(u8::is_ascii_digit)
        || (capitals && has(u8::is_ascii_lowercase))
        || has(|byte| matches!(byte, b'+' | b'=' | b'_' | b'~' | b'!' | b'#' | b'$' | b'%' | b'^'))
        || text.len() > 20
}

/// True for one long opaque word. JSON and placeholders are none.
pub(super) fn is_opaque_word(text: &str) -> bool {
    text.len() >= 16
        && !text.contains(|c: char| c.is_whitespace() || matches!(c, '{' | '[' | '"'))
        && text.bytes().any(|b| b.is_ascii_digit())
}

/// Without separators, in lower case, and how many bytes that is; none for what is no name.
fn plain(name: &str) -> ([u8; NAME_BYTES_MAX], usize) {
    let (mut plain, mut len) = ([0; NAME_BYTES_MAX], 0);
    if name.len() <= NAME_BYTES_MAX {
        for byte in name.bytes().filter(|b| !matches!(b, b'-' | b'_' | b'.' | b' ')) {
            plain[len] = byte.to_ascii_lowercase();
            len += 1;
        }
    }
    (plain, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_every_spelling() {
        for name in [
            "api_key",
            "API-Key",
            "apiKey",
            "AZURE_OPENAI_API_KEY",
            "password",
            "db.password",
            "Authorization",
            "proxy-authorization",
            "token",
            "access_token",
            "refreshToken",
            "clientSecret",
            "SECRET",
            "aws_secret_access_key",
            "Ocp-Apim-Subscription-Key",
            "x-functions-key",
            "api_key_2",
            "password1",
            "webhook_secret",
            "cookies",
            "Passwort",
            "authorization_token",
        ] {
            assert!(is_name(name), "{name}");
        }
        for name in ["key", "azure_search_key", "HF_TOKEN", "basic_auth", "DB_PASS", "secret_id"] {
            assert!(is_label(name) && !is_name(name), "{name}");
        }
        for name in ["[secret]", "postal_code", "question", "tokens"] {
            assert!(!is_label(name), "{name}");
        }
        for name in [
            "max_tokens",
            "prompt_tokens",
            "tokens",
            "key",
            "keyboard",
            "author",
            "question",
            "passage",
            "secretary",
            "tokenizer",
            "completion_tokens_details",
            "monkey",
        ] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn headers_with_credentials_are_known() {
        for name in [
            "authorization",
            "cookie",
            "set-cookie",
            "x-api-key",
            "api-key",
            "x-goog-api-key",
            "x-amz-security-token",
            "x-forwarded-authorization",
            "x-vault-token",
            "x-session-cookie",
        ] {
            assert!(is_header(name), "{name}");
        }
        for name in ["content-type", "user-agent", "x-ratelimit-remaining-tokens", "x-request-id"] {
            assert!(!is_header(name), "{name}");
        }
    }
}
