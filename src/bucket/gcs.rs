//! Google Cloud Storage, by the object_store crate. Credentials: a service account's JSON from the
//! settings, else the environment (`GOOGLE_APPLICATION_CREDENTIALS` and its like), else the instance's
//! metadata service, asked by the first operation; or none at all, for emulators.

use std::sync::Arc;
use std::time::Duration;

use object_store::StaticCredentialProvider;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};

use super::checked::Connector;
use super::remote::{self, Remote};
use super::{BucketError, BucketErrorKind, endpoint};
use crate::config::GcsBucket;

/// Opens the bucket, without asking it anything.
pub(super) fn open(
    settings: &GcsBucket,
    attempt_timeout: Duration,
    operation_timeout: Duration,
) -> Result<Remote, BucketError> {
    let plain = endpoint::is_plain(settings.endpoint.as_deref());
    let mut builder = credentials(settings)
        .with_bucket_name(&settings.name)
        .with_client_options(remote::client(attempt_timeout, plain))
        .with_http_connector(Connector)
        .with_retry(remote::retry(operation_timeout));
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    let store = builder.build().map_err(|_| unusable())?;
    Ok(Remote::new(Box::new(store), describe(settings)))
}

/// Settings leave the environment out of it, so that a stray variable changes nothing.
fn credentials(settings: &GcsBucket) -> GoogleCloudStorageBuilder {
    if settings.anonymous {
        // An empty credential keeps the builder from looking for a real one.
        let nobody = StaticCredentialProvider::new(GcpCredential { bearer: String::new() });
        return GoogleCloudStorageBuilder::new()
            .with_skip_signature(true)
            .with_credentials(Arc::new(nobody));
    }
    match &settings.service_account {
        Some(json) => GoogleCloudStorageBuilder::new().with_service_account_key(json.expose()),
        None => GoogleCloudStorageBuilder::from_env(),
    }
}

fn describe(settings: &GcsBucket) -> String {
    match settings.prefix.as_str() {
        "" => format!("gs://{}", settings.name),
        prefix => format!("gs://{}/{prefix}", settings.name),
    }
}

/// The builder's own texts may quote what they could not read.
fn unusable() -> BucketError {
    let message = "gcs: the endpoint, service account or environment cannot be used";
    BucketError::new(BucketErrorKind::Configuration, message)
}
