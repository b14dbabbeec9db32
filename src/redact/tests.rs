//! What is found, what is left alone, and that it is the same the second time.

use proptest::prelude::*;

use super::*;
use crate::drain::worked_ns;

pub(super) const ALL: &[RedactKind] = &[
    RedactKind::Email,
    RedactKind::Phone,
    RedactKind::CreditCard,
    RedactKind::Iban,
    RedactKind::Ip,
    RedactKind::Secret,
];

pub(super) fn redactor(mode: RedactMode) -> Redactor {
    let key = Some(Secret::new("a key of the test"));
    let headers = ["content-type", "X-Note", "authorization", "x-api-key", "cookie", "referer"];
    Redactor::new(&Redact { detect: ALL.to_vec(), mode, key }, &headers.map(str::to_owned))
}

fn masked(text: &str) -> String {
    redactor(RedactMode::Mask).text(text).into_owned()
}

#[test]
fn personal_data_is_masked() {
    let cases = [
        ("write to joe.doe+x@mail.example.co.uk.", "write to [email]."),
        ("<müller@bücher.example>, a_b@x.io!", "<[email]>, [email]!"),
        ("user=joe%40example.com&x=1", "user=[email]&x=1"),
        ("call +1 (555) 123-4567 now", "call [phone] now"),
        ("+14155552671", "[phone]"),
        ("tel. +49 30 901820, fax 030-901821999", "tel. [phone], fax [phone]"),
        ("(212) 555-0187 or 212.555.0187", "[phone] or [phone]"),
        ("ring 01 23 45 67 89", "ring [phone]"),
        ("card 4111 1111 1111 1111 123 exp 12/27", "card [credit_card] 123 exp 12/27"),
        ("4111-1111-1111-1111", "[credit_card]"),
        ("amex 3782 822463 10005.", "amex [credit_card]."),
        ("pay 5555555555554444;", "pay [credit_card];"),
        ("IBAN DE89 3704 0044 0532 0130 00 please", "IBAN [iban] please"),
        ("gb29nwbk60161331926819", "[iban]"),
        ("from 203.0.113.7:443, 203.0.113.8.", "from [ip]:443, [ip]."),
        ("at 2001:db8::8a2e:370:7334, [fe80::1]", "at [ip], [[ip]]"),
        ("::ffff:203.0.113.9", "[ip]"),
        ("ip:203.0.113.7:443 node:2001:db8::1 x=203.0.113.7", "ip:[ip]:443 node:[ip] x=[ip]"),
    ];
    for (text, expected) in cases {
        assert_eq!(masked(text), expected, "{text}");
    }
}

#[test]
fn credentials_in_text_are_masked() {
    let cases = [
        ("api_key=abcd1234efgh", "api_key=[secret]"),
        ("{\"password\": \"it's a pass\"}", "{\"password\": \"[secret]\"}"),
        (r#"{\"client_secret\":\"zzz\"}"#, r#"{\"client_secret\":\"[secret]\"}"#),
        (r#"{"password": "a\"b", "x": 1"#, r#"{"password": "[secret]", "x": 1"#),
        ("password=hunter2&x=1", "password=[secret]&x=1"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer [secret]"),
        ("authorization: Basic dXNlcjpwYXNz", "authorization: Basic [secret]"),
        ("curl -H 'Cookie: sid=1; theme=dark' x", "curl -H 'Cookie: [secret]' x"),
        ("https://joe:pa@ss@host/x", "https://[secret]@host/x"),
        ("amqp://user:p4ss@[::1]:5672", "amqp://[secret]@[::1]:5672"),
        ("https://x.blob/a?se=2&sig=aB%2Fc12345678", "https://x.blob/a?se=2&sig=[secret]"),
        ("GET /f?code=abcdef== HTTP", "GET /f?code=[secret] HTTP"),
        ("key: 0123456789abcdef0123456789abcdef", "key: [secret]"),
        ("my key is 0123456789abcdef0123456789abcdef.", "my key is [secret]."),
        ("Server=x;Password=a1b2;", "Server=x;Password=[secret];"),
        (
            "export AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG+bPx",
            "export AWS_SECRET_ACCESS_KEY=[secret]",
        ),
        ("AccountName=a;AccountKey=aaBB11==;E=x", "AccountName=a;AccountKey=[secret];E=x"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- end", "[secret] end"),
        ("cut -----BEGIN PRIVATE KEY-----\nMIIabc", "cut [secret]"),
        ("//joe:pa55@host/x", "//[secret]@host/x"),
        ("my client secret is 65qmg52se4ije41i ok", "my client secret is [secret] ok"),
        (
            "Mein Passwort ist hunter2, contraseña: abc123",
            "Mein Passwort ist [secret], contraseña: [secret]",
        ),
        ("mot de passe : Lu26VY, 密码：qEuURnUC3w", "mot de passe : [secret], 密码：[secret]"),
        ("Incorrect API key provided: Zx9Qw7Er. You", "Incorrect API key provided: [secret] You"),
        (
            "invalid subscription key 'Zx9Qw7Er5Ty3Ui1Op0' or",
            "invalid subscription key '[secret]' or",
        ),
        ("ENV API_KEY Md3hgBeKSnL1U3rRFsl", "ENV API_KEY [secret]"),
        (
            "tool --token ff2Y54cn --api-key=Gqvkk67o run",
            "tool --token [secret] --api-key=[secret] run",
        ),
        ("curl -u admin:ZNvkK2IF8r27 https://h", "curl -u admin:[secret] https://h"),
        ("os.environ['API_KEY'] = 'DtF9 y'", "os.environ['API_KEY'] = '[secret]'"),
        (
            "h.set(\"Authorization\", \"Bearer ab12cd34\")",
            "h.set(\"Authorization\", \"Bearer [secret]\")",
        ),
        ("- name: DB_PASSWORD\n  value: 1fqFlqat\n", "- name: DB_PASSWORD\n  value: [secret]\n"),
        (
            "x [{\"name\": \"token\", \"value\": \"ePk5\"}]",
            "x [{\"name\": \"token\", \"value\": \"[secret]\"}]",
        ),
        ("a {\"X-API-KEY\": [\"4XPK\"]}", "a {\"X-API-KEY\": [\"[secret]\"]}"),
        (
            "<input type=\"password\" value=\"xpA65\">",
            "<input type=\"password\" value=\"[secret]\">",
        ),
        ("CREATE USER x WITH PASSWORD 'OFOk1'", "CREATE USER x WITH PASSWORD '[secret]'"),
        ("Authorization: SharedKey acc:uHP2MfGDhpn=", "Authorization: SharedKey [secret]"),
    ];
    for (text, expected) in cases {
        assert_eq!(masked(text), expected, "{text}");
    }
}

#[test]
fn credentials_are_masked_behind_what_nobody_sees_and_in_variables() {
    let cases = [
        ("it is sk-abcdef\u{200b}ghij1234klmn56\u{200b}78 so", "it is [secret] so"),
        ("API_KEY\x1b[0m=\x1b[32mab12cd34ef\x1b[0m.", "API_KEY=[secret]"),
        (r"API_KEY\u001b[0m=\u001b[32mab12cd34ef\x1b[0m,", "API_KEY=[secret],"),
        ("pass\u{ad}word: hun\u{200d}ter2x", "password: [secret]"),
        (
            "variable \"db_password\" {\n  type = string\n  default = \"plain words\"\n}",
            "variable \"db_password\" {\n  type = string\n  default = \"[secret]\"\n}",
        ),
        (
            "variable \"it\" {\n  sensitive = true\n  default   = \"ab\"\n}",
            "variable \"it\" {\n  sensitive = true\n  default   = \"[secret]\"\n}",
        ),
        (
            "variable \"it\" {\n  default = \"ab\"\n  sensitive = true\n}",
            "variable \"it\" {\n  default = \"[secret]\"\n  sensitive = true\n}",
        ),
        (
            "variable \"api_tokens\" {\n  default = [\"ab\", \"cd\"]\n}",
            "variable \"api_tokens\" {\n  default = [secret]\n}",
        ),
        ("the password for prod is Zx9Qw7Er5Ty3Ui1Op0.", "the password for prod is [secret]"),
        ("password (Zx9Qw7Er5Ty3Ui1Op0) or", "password ([secret]) or"),
        ("Password:\nZx9Qw7Er5Ty3Ui1Op0\n", "Password:\n[secret]\n"),
        ("use Zx9Qw7Er5Ty3Ui1Op0 as the password", "use [secret] as the password"),
        ("la password è Zx9Qw7, hasło: Zx9Qw7Er", "la password è [secret], hasło: [secret]"),
        ("api_key -> Zx9Qw7Er5Ty3, ok", "api_key -> [secret], ok"),
        ("new ApiKeyCredential(\"Zx9Qw7Er5Ty3Ui1Op0\")", "new ApiKeyCredential(\"[secret]\")"),
        (
            "<wsse:Password Type=\"x\">Zx9Qw7</wsse:Password>",
            "<wsse:Password Type=\"x\">[secret]</wsse:Password>",
        ),
        ("sshpass -p Zx9Qw7 ssh joe@h", "sshpass -p [secret] ssh joe@h"),
        ("mysql -u root -pZx9Qw7Er db", "mysql -u root -p[secret] db"),
        ("machine h login joe password Zx9Qw7", "machine h login joe password [secret]"),
        ("APP_KEY=base64:Zx9Qw7Er5Ty3Ui1Op0==", "APP_KEY=base64:[secret]"),
        ("joe:$apr1$ab12cd34$Zx9Qw7Er5Ty3Ui1Op0Zx9Q", "joe:[secret]"),
        (
            "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nAB\n---- END SSH2 ENCRYPTED PRIVATE KEY ----.",
            "[secret].",
        ),
        ("private_key_id: c0ffee11c0ffee22", "private_key_id: [secret]"),
        (r#"{\"private_key_id\":\"ab1\",\"a\":1"#, r#"{\"private_key_id\":\"[secret]\",\"a\":1"#),
    ];
    for (text, expected) in cases {
        assert_eq!(masked(text), expected, "{text}");
    }
}

/// Ordinary text that looks a little like something.
const HARMLESS: &[&str] = &[
    "The quick brown fox asked: what is the password policy? It must be long.",
    "Password: must contain a digit. Token limits and key ideas: the secret is patience.",
    "Basic understanding of bearer shares, authorization: required; key: importance.",
    "550e8400-e29b-41d4-a716-446655440000",
    "2026-11-23T22:47:50.123456Z",
    "22:47:50",
    "2024-01-02 03:04:05",
    "1732400000",
    "1732400000123",
    "1732400000123456",
    "1732400000123456789",
    "05.12.2024 10:30",
    "v1.2.3.4, version 10.0.0.1, Chrome/120.0.0.0 Safari/537.36",
    "flowtap 0.1.0 (rust 1.95.0)",
    "$1,299.99 or 1.299,99 €, -12.5 %, 1 000 000",
    "127.0.0.1:8080 and [::1]:9464 and 0.0.0.0",
    "let x = std::vec::Vec::new(); a::b::c; fade::bed",
    "if (a[0] == b && c::d) { return 1.0e-5; }",
    "docker run -u 1000:1000 --token-limit 4096 --user nobody:nogroup x",
    "the private key file is in /home/joe/.ssh/id_ed25519_2024_work, the key point is patience",
    "What is the best password manager of 2024? The API key, token and secret of success",
    "{\"required\": [\"password\", \"email\"], \"name\": \"token\", \"type\": \"string\"}",
    "api_key = os.environ[\"OPENAI_API_KEY\"]",
    "client(api_key=api_key, token=token)",
    "password = getpass.getpass()",
    "Authorization: Bearer ${TOKEN}",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "task-oriented risk-management desk-research ask-me-anything-session",
    "@media (min-width: 100px) @todo a@b",
    "chatcmpl-9xYzAbCdEf0123456789",
    "call_abc123",
    "resp_68af4030592c81938ec0a5fbab4a3e9f",
    "gpt-4o-2024-08-06",
    "0.4111111111111111",
    "https://example.com/a/b?page=2&size=50#top",
    "git@github",
    "max_tokens: 4096, prompt_tokens=12",
    "12 345 678 901 234 567",
    "DE12 is a code and GB29 too",
    "#ff00aa 0x1f 1e100 00:1A:2B:3C:4D:5E",
    "\u{feff}a family \u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} says \u{201c}hi\u{201d} \u{2014} \u{4f60}\u{597d}, soft\u{ad}ware",
    "\x1b[1;31merror\x1b[0m: the password field is required",
    r"printf '\033[0;32mok\e[0m\n' \u200b\u2029",
    "variable \"region\" {\n  type = string\n  default = \"eu-west-1\"\n}",
    "a variable \"token\" has no default; the default = none",
    "price per token (claude-3-5-sonnet-20241022), gpt-4o-mini-2024-07-18 for the token budget",
    "password-less-auth-v2-design-2024, a password - the longest one - and its reset flow (2024)",
    "login with password authentication; login and password credentials of 2024",
    "ssh -p 2222 joe@h; docker run -p 8080:8080 nginx; mysql -p db; mkdir -p /tmp/a1b2",
    "getSecret(\"prod\"), tokenize(\"Hello World\"), set_password(new_password), key(\"user_id\")",
    "<token type=\"word\">hello</token> BEGIN TRANSACTION; END of the PRIVATE KEY chapter",
    "it costs $5$ and $6; export LANG=C -> ok, key -> value, token \u{2192} word",
    "variable \"secret_count\" {\n  default = []\n}",
    "key_id: 7, private key id, key-id is a column",
];

#[test]
fn ordinary_text_is_left_alone_byte_for_byte() {
    for mode in [RedactMode::Mask, RedactMode::Hash] {
        for text in HARMLESS {
            assert!(
                matches!(redactor(mode).text(text), Cow::Borrowed(_)),
                "{text} -> {}",
                masked(text)
            );
        }
    }
}

#[test]
fn a_hash_is_keyed_and_the_same_for_the_same_thing() {
    let hashed = |text: &str| redactor(RedactMode::Hash).text(text).into_owned();
    assert_eq!(hashed("Joe@Example.com"), hashed("joe@example.com"));
    assert_eq!(hashed("4111 1111 1111 1111"), hashed("4111111111111111"));
    assert_ne!(hashed("joe@example.com"), hashed("jim@example.com"));
    let one = hashed("joe@example.com");
    assert!(one.starts_with("[email:") && one.len() == "[email:0123456789abcdef]".len(), "{one}");
    let other =
        Redact { detect: ALL.to_vec(), mode: RedactMode::Hash, key: Some(Secret::new("k2")) };
    assert_ne!(Redactor::new(&other, &[]).text("joe@example.com"), one, "another key");
    let keyless = Redact { key: None, ..other };
    assert_eq!(Redactor::new(&keyless, &[]).text("joe@example.com"), "[email]", "never unkeyed");
}

#[test]
fn a_placeholder_that_a_client_wrote_hides_nothing() {
    let hashed = redactor(RedactMode::Hash).text("[phone:4111111111111111]").into_owned();
    assert!(!hashed.contains("4111111111111111"), "{hashed}");
    assert!(!masked("[phone:4111111111111111]").contains("4111"));
}

#[test]
fn off_counts_and_keeps() {
    let mut counts = Counts::default();
    let text = "joe@example.com and 203.0.113.7";
    assert!(matches!(redactor(RedactMode::Off).scan(text, &mut counts), Cow::Borrowed(_)));
    assert_eq!(counts.into_named(), BTreeMap::from([("email".into(), 1), ("ip".into(), 1)]));
}

#[test]
fn only_the_kinds_asked_for_are_found() {
    let settings =
        Redact { detect: vec![RedactKind::CreditCard], mode: RedactMode::Mask, key: None };
    let text = Redactor::new(&settings, &[]).text("joe@example.com 4111111111111111").into_owned();
    assert_eq!(text, "joe@example.com [credit_card]");
    assert_eq!(Redactor::for_logs().text("a@b.io password=x1y2z3"), "a@b.io password=[secret]");
}

#[test]
fn overlaps_leave_no_rest() {
    assert_eq!(masked("https://joe:pw@mail.example.com/"), "https://[secret]/");
    assert_eq!(masked("password=joe@example.com!"), "password=[secret]");
    assert_eq!(masked("joe@example.com,4111111111111111"), "[email],[credit_card]");
}

#[test]
fn hostile_text_costs_linear_time() {
    let units = [
        "@",
        "a@",
        "a@b.c",
        "sk-",
        "://",
        "4",
        "4 ",
        "+1",
        "::",
        "1.",
        "DE89",
        "eyJa.",
        "key=",
        "password:",
        "-----BEGIN PRIVATE KEY",
        "\"",
        "\\\"",
        "[secret]",
        "%40",
        "0-",
        "bearer ",
        "cookie:a=",
        "?sig=",
    ];
    for unit in units {
        let cost_ns = |bytes: usize| {
            let text = unit.repeat(bytes / unit.len());
            let costs = (0..2).map(|_| {
                let before = worked_ns();
                masked(&text);
                worked_ns() - before
            });
            costs.min().unwrap_or(0)
        };
        let (small, large) = (cost_ns(4_000), cost_ns(64_000));
        // Sixteen times as much; a quadratic one would cost 256 times. The kernel counts in ticks.
        let most = 64 * small.max(4_000_000);
        assert!(large <= most, "{unit}: {small} ns, then {large} ns");
    }
}

/// Text in which things that are found stand close to each other.
fn mixed() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "joe@example.com",
        "4111 1111 1111 1111",
        "+1 555 123 4567",
        "203.0.113.7",
        "2001:db8::1",
        "DE89370400440532013000",
        "sk-abcdefghijklmnop1234",
        "password=",
        "key: ",
        "\"",
        "://",
        "@",
        "Bearer ",
        "[email]",
        "[secret:0123456789abcdef]",
        " ",
        ":",
        ".",
        "-",
        "a",
        "1",
        "é",
        "=",
        "&",
        "-----BEGIN PRIVATE KEY-----",
    ]);
    prop::collection::vec(parts, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn masking_twice_is_masking_once(text in prop_oneof![mixed(), any::<String>()]) {
        let once = masked(&text);
        prop_assert_eq!(masked(&once), once);
    }

    #[test]
    fn json_is_the_same_the_second_time(texts in prop::collection::vec(mixed(), 4)) {
        let redactor = redactor(RedactMode::Mask);
        let walk = |value| json::Walk::new(&redactor, &mut Counts::default()).value(value);
        let inner = serde_json::json!({texts[0].clone(): texts[1], "password": texts[2]}).to_string();
        let once = walk(serde_json::json!({texts[2].clone(): [texts[3], inner], "token": texts[0]}));
        prop_assert_eq!(walk(once.clone()), once);
    }

    #[test]
    fn arbitrary_text_never_panics_and_stays_valid(text in "[ -~\\n@.:+0-9a-fé\u{200b}]{0,200}") {
        for mode in [RedactMode::Mask, RedactMode::Hash, RedactMode::Off] {
            let redactor = redactor(mode);
            let redacted = redactor.text(&text);
            if let Cow::Borrowed(same) = &redacted {
                prop_assert_eq!(*same, text.as_str());
            }
        }
    }
}
