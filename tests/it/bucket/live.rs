//! flowtap itself before each store: what passes is uploaded, and `flowtap verify` proves it.

use std::process::Command;

use serde_json::Value;

use super::{gcs_front, stores};
use crate::support::servers::{self, ACCESS_KEY, AZURE_ACCOUNT, AZURE_KEY, SECRET_KEY};
use crate::support::tap::Setup;
use crate::support::wire::{Upstream, json_post, json_response};

const REQUESTS: u64 = 25;

/// A store as it is configured: a URL, and options by name.
struct Store<'a> {
    url: &'a str,
    options: &'a [(&'a str, &'a str)],
}

impl Store<'_> {
    fn setting(&self) -> String {
        let options = self.options.iter().map(|(key, value)| format!(", {key}: \"{value}\""));
        format!("bucket: {{url: {}{}}}", self.url, options.collect::<String>())
    }

    /// The same by environment, as an operator would type it.
    fn verify(&self) -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
        command.args(["verify", "--json", self.url]);
        // What the environment names as the bucket is not what was asked for.
        command.env("FLOWTAP_BUCKET", "s3://zzz-another/one");
        for (key, value) in self.options {
            command.env(format!("FLOWTAP_BUCKET__{}", key.to_uppercase()), value);
        }
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {told}", self.url);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn holds_what_passes(&self) {
        let upstream = Upstream::answering(json_response(r#"{"answer":"Dry."}"#));
        let flowtap =
            Setup::before(upstream.port).top("sample: {rate: 1}").top(&self.setting()).start();
        let mut client = flowtap.client();
        for _ in 0..REQUESTS {
            client.send(json_post("/score", r#"{"question":"Dry?"}"#));
            assert_eq!(client.read_response().status(), 200);
        }
        flowtap.await_metric("flowtap_archive_objects_total", &["\"exchanges\""], 1.0);
        let printed = flowtap.stop().printed;
        assert!(!printed.contains("\"WARN\"") && !printed.contains(SECRET_KEY), "{printed}");

        let report = self.verify();
        let hours = report["checked"].as_array().unwrap();
        let sum = |field: &str| -> u64 {
            hours.iter().map(|hour| hour["ledger"][field].as_u64().unwrap_or(0)).sum()
        };
        assert_eq!((sum("seen"), sum("stored"), sum("pending")), (REQUESTS, REQUESTS, 0));
    }
}

#[tokio::test]
async fn what_passes_reaches_s3_and_the_ledger_proves_it() {
    let Some(server) = servers::seaweedfs() else { return };
    stores::make_s3_bucket(&server).await;
    let endpoint = server.url();
    let options = [
        ("endpoint", endpoint.as_str()),
        ("region", "us-east-1"),
        ("path_style", "true"),
        ("access_key_id", ACCESS_KEY),
        ("secret_access_key", SECRET_KEY),
        ("encryption", "s3"),
    ];
    Store { url: "s3://bucket/some/prefix", options: &options }.holds_what_passes();
}

#[test]
fn what_passes_reaches_azure_and_the_ledger_proves_it() {
    let Some(server) = servers::azurite() else { return };
    stores::make_azure_container(&server);
    let endpoint = format!("{}/{AZURE_ACCOUNT}", server.url());
    let options = [("endpoint", endpoint.as_str()), ("access_key", AZURE_KEY)];
    let url = format!("az://{AZURE_ACCOUNT}/container/some/prefix");
    Store { url: &url, options: &options }.holds_what_passes();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_reaches_gcs_and_the_ledger_proves_it() {
    let Some(server) = servers::fake_gcs() else { return };
    stores::make_gcs_bucket(&server);
    let front = gcs_front::start(server.address).await;
    let endpoint = front.url();
    let options = [("endpoint", endpoint.as_str()), ("anonymous", "true")];
    Store { url: "gs://bucket/some/prefix", options: &options }.holds_what_passes();
}
