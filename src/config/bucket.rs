//! `bucket`: where samples, rollups and ledger go.

use std::path::Path;

use super::fault::{Complaint, Report};
use super::kind::Kind::{Bool, BucketUrl as Url, Choice, Endpoint, Secret, SecretFile, Text, Time};
use super::kind::show_time;
use super::map::Map;
use super::node::Origin;
use super::place::{self, BucketUrl};
use super::show::Shown;
use super::table::Default::{Is, Required, Unset};
use super::table::Key;
use super::{
    AzureBucket, Bucket, BucketStore, GcsBucket, S3Bucket, S3Checksum, S3Encryption,
    Secret as SecretText,
};

const HOUR_MS: u64 = 3_600_000;
const AWS: &str = "the AWS chain: environment, profile, web identity, container, machine";
const AZURE: &str = "the environment: `AZURE_*`, workload or managed identity";
const GOOGLE: &str = "the environment: `GOOGLE_APPLICATION_CREDENTIALS`, workload identity";

/// The keys of `bucket`.
pub(super) static KEYS: &[Key] = &[
    Key::new(
        "url",
        Url,
        Required,
        "The bucket's URL, where `bucket` is a map. `file://./path` is relative.",
        "s3://name/prefix",
    ),
    Key::new(
        "attempt_timeout",
        Time(1, HOUR_MS),
        Is("30s"),
        "For one attempt of one operation.",
        "30s",
    ),
    Key::new(
        "operation_timeout",
        Time(1, HOUR_MS),
        Is("2m"),
        "For one operation with all its attempts.",
        "2m",
    ),
    Key::new(
        "endpoint",
        Endpoint,
        Unset("the cloud's own"),
        "s3, az, gs: another endpoint.",
        "http://127.0.0.1:9000",
    ),
    Key::new("region", Text, Unset("the AWS chain"), "s3: the region.", "eu-central-1"),
    Key::new(
        "path_style",
        Bool,
        Is("false"),
        "s3: `http://endpoint/name/key` instead of `http://name.endpoint/key`. Most \
         S3-compatible stores want it.",
        "true",
    ),
    Key::new(
        "access_key_id",
        Text,
        Unset(AWS),
        "s3: the access key's id. Needs `secret_access_key`.",
        "AKIAEXAMPLE",
    ),
    Key::new(
        "secret_access_key",
        Secret,
        Unset(AWS),
        "s3: the secret access key. Needs `access_key_id`.",
        "${AWS_SECRET}",
    ),
    Key::new(
        "secret_access_key_file",
        SecretFile,
        Unset(AWS),
        "s3: the file that holds `secret_access_key`.",
        "/run/secrets/s3",
    ),
    Key::new(
        "encryption",
        Choice(&["none", "s3", "kms"]),
        Is("none"),
        "s3: server-side encryption; `none` leaves it to the bucket, `s3` is SSE-S3, `kms` \
         SSE-KMS.",
        "kms",
    ),
    Key::new(
        "kms_key_id",
        Text,
        Unset("the bucket's own key"),
        "s3: the id or ARN of the key of `kms`.",
        "arn:aws:kms:eu-central-1:111122223333:key/example",
    ),
    Key::new(
        "checksum",
        Choice(&["always", "when_required"]),
        Is("always"),
        "s3: when a PUT carries a checksum (CRC32C); `when_required` is for S3-compatible stores \
         that refuse it.",
        "when_required",
    ),
    Key::new("access_key", Secret, Unset(AZURE), "az: the account's key.", "${AZURE_KEY}"),
    Key::new(
        "access_key_file",
        SecretFile,
        Unset(AZURE),
        "az: the file that holds `access_key`.",
        "/run/secrets/azure",
    ),
    Key::new("sas", Secret, Unset(AZURE), "az: a shared access signature.", "${AZURE_SAS}"),
    Key::new(
        "sas_file",
        SecretFile,
        Unset(AZURE),
        "az: the file that holds `sas`.",
        "/run/secrets/azure-sas",
    ),
    Key::new(
        "service_account",
        Secret,
        Unset(GOOGLE),
        "gs: a service account's JSON.",
        "${GOOGLE_JSON}",
    ),
    Key::new(
        "service_account_file",
        SecretFile,
        Unset(GOOGLE),
        "gs: the file that holds `service_account`.",
        "/run/secrets/google.json",
    ),
    Key::new(
        "anonymous",
        Bool,
        Is("false"),
        "gs: sends no credentials at all. For emulators.",
        "true",
    ),
];

/// The options that mean something to one kind of bucket only.
const OPTIONS: &[(&str, &[&str])] = &[
    ("s3", S3_OPTIONS),
    ("az", &["endpoint", "access_key", "access_key_file", "sas", "sas_file"]),
    ("gs", &["endpoint", "service_account", "service_account_file", "anonymous"]),
];

const S3_OPTIONS: &[&str] = &[
    "endpoint",
    "region",
    "path_style",
    "access_key_id",
    "secret_access_key",
    "secret_access_key_file",
    "encryption",
    "kms_key_id",
    "checksum",
];

/// Builds the bucket; without one, a folder below `data_dir`. `None` after a fault.
pub(super) fn build(map: Option<&Map>, data_dir: &Path, report: &mut Report) -> Option<Bucket> {
    let Some(map) = map else { return Some(default(data_dir)) };
    let url = map.text("url").and_then(|url| place::bucket(url).ok());
    let secrets = Secrets::of(map, report);
    in_order(map, report);
    let url = url?;
    strangers(map, scheme(&url), report);
    let store = match url {
        BucketUrl::Local { path } => BucketStore::Local { path },
        BucketUrl::S3 { name, prefix } => BucketStore::S3(s3(map, name, prefix, secrets, report)),
        BucketUrl::Azure { account, container, prefix } => {
            exclusive(map, ["access_key", "sas"], report);
            BucketStore::Azure(AzureBucket {
                account,
                container,
                prefix,
                endpoint: map.text("endpoint").map(str::to_owned),
                access_key: secrets.azure_key,
                sas: secrets.azure_sas,
            })
        }
        BucketUrl::Gcs { name, prefix } => {
            exclusive(map, ["service_account", "anonymous"], report);
            BucketStore::Gcs(GcsBucket {
                name,
                prefix,
                endpoint: map.text("endpoint").map(str::to_owned),
                service_account: secrets.google,
                anonymous: map.bool("anonymous"),
            })
        }
    };
    let (attempt, operation) = (map.time("attempt_timeout"), map.time("operation_timeout"));
    Some(Bucket { store, attempt_timeout: attempt, operation_timeout: operation })
}

fn default(data_dir: &Path) -> Bucket {
    let time = |name| {
        let key = KEYS.iter().find(|key| key.name == name);
        let checked = key.and_then(|key| match key.default {
            Is(text) => key.kind.check(text).ok(),
            _ => None,
        });
        match checked {
            Some(super::kind::Checked::Time(time)) => time,
            _ => std::time::Duration::ZERO,
        }
    };
    Bucket {
        store: BucketStore::Local { path: data_dir.join("bucket") },
        attempt_timeout: time("attempt_timeout"),
        operation_timeout: time("operation_timeout"),
    }
}

impl Bucket {
    /// The same settings, with the secrets that their files hold now.
    pub fn with_secrets_of_now(&self) -> Self {
        let mut settings = self.clone();
        let secrets: [Option<&mut SecretText>; 2] = match &mut settings.store {
            BucketStore::Local { .. } => [None, None],
            BucketStore::S3(s3) => [s3.credentials.as_mut().map(|(_, secret)| secret), None],
            BucketStore::Azure(azure) => [azure.access_key.as_mut(), azure.sas.as_mut()],
            BucketStore::Gcs(gcs) => [gcs.service_account.as_mut(), None],
        };
        secrets.into_iter().flatten().for_each(|secret| *secret = secret.of_now());
        settings
    }
}

struct Secrets {
    s3: Option<SecretText>,
    azure_key: Option<SecretText>,
    azure_sas: Option<SecretText>,
    google: Option<SecretText>,
}

impl Secrets {
    fn of(map: &Map, report: &mut Report) -> Self {
        Self {
            s3: map.secret("secret_access_key", report),
            azure_key: map.secret("access_key", report),
            azure_sas: map.secret("sas", report),
            google: map.secret("service_account", report),
        }
    }
}

fn scheme(url: &BucketUrl) -> &'static str {
    match url {
        BucketUrl::Local { .. } => "file",
        BucketUrl::S3 { .. } => "s3",
        BucketUrl::Azure { .. } => "az",
        BucketUrl::Gcs { .. } => "gs",
    }
}

/// Reports options of another kind of bucket.
fn strangers(map: &Map, scheme: &str, report: &mut Report) {
    let own = OPTIONS.iter().find(|(of, _)| *of == scheme).map_or(&[][..], |(_, names)| *names);
    for key in KEYS.iter().filter(|key| map.given(key.name) && !own.contains(&key.name)) {
        let of: Vec<&str> = OPTIONS
            .iter()
            .filter(|(_, names)| names.contains(&key.name))
            .map(|(scheme, _)| *scheme)
            .collect();
        if of.is_empty() {
            continue;
        }
        let message = format!(
            "`{}` is for {} buckets; this is {scheme}",
            map.path_of(key.name),
            of.join(", ")
        );
        let complaint = Complaint::new(message).allowed(match own {
            [] => "no options but timeouts".to_owned(),
            own => own.join(", "),
        });
        report.fault(map.origin(key.name), complaint);
    }
}

fn s3(map: &Map, name: String, prefix: String, secrets: Secrets, report: &mut Report) -> S3Bucket {
    let secret = match map.given("secret_access_key_file") {
        true => "secret_access_key_file",
        false => "secret_access_key",
    };
    let id = "access_key_id";
    for (has, lacks) in [(id, secret), (secret, id)] {
        if map.given(has) && !map.given(lacks) {
            needs(map, has, lacks, report);
        }
    }
    let kms = map.text("encryption") == Some("kms");
    if map.given("kms_key_id") && !kms && map.sound(&["encryption"]) {
        let message = format!("`{}` is for `encryption: kms`", map.path_of("kms_key_id"));
        let complaint = Complaint::new(message).allowed("`encryption: kms`, or no `kms_key_id`");
        report.fault(map.origin("kms_key_id"), complaint);
    }
    let text = |name| map.text(name).map(str::to_owned);
    S3Bucket {
        name,
        prefix,
        region: text("region"),
        endpoint: text("endpoint"),
        path_style: map.bool("path_style"),
        credentials: text(id).zip(secrets.s3),
        encryption: match map.text("encryption") {
            Some("s3") => S3Encryption::S3,
            Some("kms") => S3Encryption::Kms { key_id: text("kms_key_id") },
            _ => S3Encryption::None,
        },
        checksum: match map.text("checksum") {
            Some("when_required") => S3Checksum::WhenRequired,
            _ => S3Checksum::Always,
        },
    }
}

fn needs(map: &Map, has: &str, lacks: &str, report: &mut Report) {
    let message = format!("`{}` needs `{}`", map.path_of(has), map.path_of(lacks));
    let complaint = Complaint::new(message).allowed("both or neither");
    report.fault(map.origin(has), complaint);
}

/// Reports two ways to sign in, of which one would win silently.
fn exclusive(map: &Map, names: [&str; 2], report: &mut Report) {
    let given = names.map(|name| {
        let in_file = format!("{name}_file");
        let in_file = KEYS.iter().find(|key| key.name == in_file && map.given(key.name));
        in_file.map_or(name, |key| key.name)
    });
    let [first, second] = given;
    if map.given(first) && map.given(second) {
        let message =
            format!("`{}` and `{}` are both given", map.path_of(first), map.path_of(second));
        let place: &Origin = map.origin(second);
        report.fault(place, Complaint::new(message).allowed("one of the two"));
    }
}

fn in_order(map: &Map, report: &mut Report) {
    let (attempt, operation) = ("attempt_timeout", "operation_timeout");
    let ordered = map.time(attempt) <= map.time(operation);
    if ordered || !map.sound(&[attempt, operation]) {
        return;
    }
    let message = format!(
        "`{}` ({}) is longer than `{}` ({})",
        map.path_of(attempt),
        show_time(map.time(attempt)),
        map.path_of(operation),
        show_time(map.time(operation))
    );
    let place = if map.given(attempt) { attempt } else { operation };
    let complaint = Complaint::new(message).allowed("an operation has at least one attempt");
    report.fault(map.origin(place), complaint);
}

/// `bucket` as YAML.
pub(super) fn show(bucket: &Bucket) -> Vec<(&'static str, Shown)> {
    let mut shown = match &bucket.store {
        BucketStore::Local { path } => vec![("url", Shown::text(file_url(path)))],
        BucketStore::S3(s3) => show_s3(s3),
        BucketStore::Azure(azure) => vec![
            ("url", url("az", &format!("{}/{}", azure.account, azure.container), &azure.prefix)),
            ("endpoint", Shown::optional(azure.endpoint.as_ref())),
            ("access_key", Shown::secret(azure.access_key.as_ref())),
            ("sas", Shown::secret(azure.sas.as_ref())),
        ],
        BucketStore::Gcs(gcs) => vec![
            ("url", url("gs", &gcs.name, &gcs.prefix)),
            ("endpoint", Shown::optional(gcs.endpoint.as_ref())),
            ("service_account", Shown::secret(gcs.service_account.as_ref())),
            ("anonymous", if gcs.anonymous { Shown::text(true) } else { Shown::Unset }),
        ],
    };
    shown.push(("attempt_timeout", Shown::text(show_time(bucket.attempt_timeout))));
    shown.push(("operation_timeout", Shown::text(show_time(bucket.operation_timeout))));
    shown
}

fn show_s3(s3: &S3Bucket) -> Vec<(&'static str, Shown)> {
    let (encryption, kms_key_id) = match &s3.encryption {
        S3Encryption::None => ("none", None),
        S3Encryption::S3 => ("s3", None),
        S3Encryption::Kms { key_id } => ("kms", key_id.as_ref()),
    };
    let checksum = match s3.checksum {
        S3Checksum::Always => "always",
        S3Checksum::WhenRequired => "when_required",
    };
    vec![
        ("url", url("s3", &s3.name, &s3.prefix)),
        ("endpoint", Shown::optional(s3.endpoint.as_ref())),
        ("region", Shown::optional(s3.region.as_ref())),
        ("path_style", Shown::text(s3.path_style)),
        ("access_key_id", Shown::optional(s3.credentials.as_ref().map(|(id, _)| id))),
        ("secret_access_key", Shown::secret(s3.credentials.as_ref().map(|(_, secret)| secret))),
        ("encryption", Shown::text(encryption)),
        ("kms_key_id", Shown::optional(kms_key_id)),
        ("checksum", Shown::text(checksum)),
    ]
}

fn url(scheme: &str, name: &str, prefix: &str) -> Shown {
    let slash = if prefix.is_empty() { "" } else { "/" };
    Shown::text(format!("{scheme}://{name}{slash}{prefix}"))
}

/// A folder as a URL that this room reads back as the same folder.
fn file_url(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.starts_with('/') || text.starts_with("./") || text.starts_with("../");
    if plain { format!("file://{text}") } else { format!("file://./{text}") }
}
