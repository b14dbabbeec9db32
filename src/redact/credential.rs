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
    let plain = plain(name);
    NAMES.contains(&plain.as_str()) || ENDS.iter().any(|end| plain.ends_with(end))
}

/// True for a name that may label a credential.
pub(super) fn is_label(name: &str) -> bool {
    LABELS.contains(&plain(name).as_str())
}

/// True for a header that carries credentials: never kept, even where the allow-list names it.
pub(super) fn is_header(name: &str) -> bool {
    let plain = plain(name);
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

fn plain(name: &str) -> String {
    if name.len() > NAME_BYTES_MAX {
        return String::new();
    }
    name.chars()
        .filter(|c| !matches!(c, '-' | '_' | '.' | ' '))
        .map(|c| c.to_ascii_lowercase())
        .collect()
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
