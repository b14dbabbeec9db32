//! Azure Blob Storage, by the object_store crate. Credentials: the account's key or a shared access
//! signature from the settings, else what the environment holds (`AZURE_STORAGE_*`, a client secret,
//! workload identity), else the managed identity, asked for by the first operation.

use std::time::Duration;

use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use super::checked::Connector;
use super::remote::{self, Remote};
use super::{BucketError, BucketErrorKind, endpoint};
use crate::config::AzureBucket;

/// Opens the container, without asking it anything.
pub(super) fn open(
    settings: &AzureBucket,
    attempt_timeout: Duration,
    operation_timeout: Duration,
) -> Result<Remote, BucketError> {
    let plain = endpoint::is_plain(settings.endpoint.as_deref());
    let mut builder = credentials(settings)
        .with_account(&settings.account)
        .with_container_name(&settings.container)
        .with_client_options(remote::client(attempt_timeout, plain))
        .with_http_connector(Connector)
        .with_retry(remote::retry(operation_timeout));
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    let store = builder.build().map_err(|_| unusable())?;
    Ok(Remote::new(Box::new(store), describe(settings)))
}

/// Settings leave the environment out of it, so that a stray variable changes nothing.
fn credentials(settings: &AzureBucket) -> MicrosoftAzureBuilder {
    match (&settings.access_key, &settings.sas) {
        (Some(key), _) => MicrosoftAzureBuilder::new().with_access_key(key.expose()),
        (None, Some(sas)) => {
            MicrosoftAzureBuilder::new().with_config(AzureConfigKey::SasKey, sas.expose())
        }
        (None, None) => MicrosoftAzureBuilder::from_env(),
    }
}

fn describe(settings: &AzureBucket) -> String {
    let url = format!("az://{}/{}", settings.account, settings.container);
    if settings.prefix.is_empty() { url } else { format!("{url}/{}", settings.prefix) }
}

/// The builder's own texts may quote what they could not read.
fn unusable() -> BucketError {
    let message = "azure: the account, endpoint, key, signature or environment cannot be used";
    BucketError::new(BucketErrorKind::Configuration, message)
}
