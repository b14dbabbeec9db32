//! Names that say "credential": JSON keys and headers. And what a credential looks like.

/// Names of credentials, without `-`, `_`, `.` and blanks, in lower case.
const NAMES: &[&str] = &[
    "secret",
    "token",
    "pwd",
    "pass",
    "passwd",
    "passcode",
    "passphrase",
    "cookie",
    "setcookie",
    "credential",
    "credentials",
    "sas",
    "jwt",
    "bearer",
    "auth",
    "xfunctionskey",
    "functionskey",
    "xcsrftoken",
    "sessionid",
];

/// Ends of names of credentials: `openai_api_key`, `x-ms-client-secret`, `db_password`.
const ENDS: &[&str] = &[
    "apikey",
    "password",
    "clientsecret",
    "appsecret",
    "webhooksecret",
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "authtoken",
    "sessiontoken",
    "securitytoken",
    "bearertoken",
    "apitoken",
    "sastoken",
    "accesskey",
    "secretkey",
    "accountkey",
    "privatekey",
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
const LABELS: &[&str] = &["key", "sig", "signature", "code"];

/// Longer names are sentences.
const NAME_BYTES_MAX: usize = 64;

/// True for the name of a credential, whatever its case and separators.
pub(super) fn is_name(name: &str) -> bool {
    let (buffer, len) = plain(name);
    let plain = &buffer[..len];
    NAMES.iter().any(|known| known.as_bytes() == plain)
        || ENDS.iter().any(|end| plain.ends_with(end.as_bytes()))
}

/// True for a name that may label a credential.
pub(super) fn is_label(name: &str) -> bool {
    let (buffer, len) = plain(name);
    LABELS.iter().any(|known| known.as_bytes() == &buffer[..len])
}

/// True for a header that carries credentials: never kept, even where the allow-list names it.
pub(super) fn is_header(name: &str) -> bool {
    let (buffer, len) = plain(name);
    let plain = String::from_utf8_lossy(&buffer[..len]);
    let parts = ["authorization", "cookie", "apikey", "secret", "password", "credential"];
    is_name(name) || plain.ends_with("token") || parts.iter().any(|part| plain.contains(part))
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

/// True for one long opaque word.
pub(super) fn is_opaque_word(text: &str) -> bool {
    text.len() >= 16
        && !text.contains(char::is_whitespace)
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
        ] {
            assert!(is_name(name), "{name}");
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
