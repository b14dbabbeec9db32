//! S3, and what speaks like it, by the AWS SDK. Credentials and region come from the whole AWS chain
//! (environment, profile, SSO, web identity, process, container, instance) unless the settings give
//! them, and are looked up by the first operation: an instance metadata service that hangs costs
//! that operation its time limit and nothing else.

use aws_config::BehaviorVersion;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::operation::put_object::PutObjectOutput;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ServerSideEncryption;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use md5::Digest;
use std::time::Duration;
use tokio::sync::OnceCell;

use super::{Boxed, Bucket, BucketError, BucketErrorKind, LISTED_MAX, Listed, OBJECT_BYTES_MAX};
use crate::config::{S3Bucket, S3Checksum, S3Encryption};

mod fault;

use fault::{ErrorInBody, Failed, failed, failed_stream};

/// Requests one operation makes at most: the first and one quick retry. The archive's own back-off
/// does the rest.
const ATTEMPTS_MAX: u32 = 2;

/// The retry comes after at most this long.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Connecting takes at most this long, or one attempt's limit if that is shorter.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// A body that moves less than a byte a second for this long is given up.
const STALL_GRACE: Duration = Duration::from_secs(10);

/// How often a conditional PUT is sent again when S3 says that another is in progress.
const CONFLICTS_MAX: usize = 3;

/// The region signed for where there is an endpoint of its own and nobody names a region.
const REGION_OF_OTHERS: &str = "us-east-1";

/// An S3 bucket.
pub(super) struct S3 {
    settings: S3Bucket,
    attempt_timeout: Duration,
    operation_timeout: Duration,
    client: OnceCell<Client>,
}

impl S3 {
    /// A bucket that is first asked for by the first operation.
    pub(super) fn new(
        settings: S3Bucket,
        attempt_timeout: Duration,
        operation_timeout: Duration,
    ) -> Self {
        Self { settings, attempt_timeout, operation_timeout, client: OnceCell::new() }
    }

    /// The client; a failed lookup is tried again by the next operation.
    async fn client(&self) -> Result<&Client, BucketError> {
        self.client.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Client, BucketError> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .timeout_config(self.timeouts())
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(ATTEMPTS_MAX)
                    .with_initial_backoff(RETRY_AFTER),
            )
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled().grace_period(STALL_GRACE).build(),
            );
        if let Some(region) = self.region().await {
            loader = loader.region(region);
        }
        if let Some((id, secret)) = &self.settings.credentials {
            let credentials =
                Credentials::new(id.clone(), secret.expose(), None, None, "flowtap settings");
            loader = loader.credentials_provider(credentials);
        }
        let shared = loader.load().await;
        if shared.region().is_none() {
            let message = "no region: neither the settings nor the AWS chain names one";
            return Err(BucketError::new(BucketErrorKind::Configuration, message));
        }
        Ok(Client::from_conf(self.configure(aws_sdk_s3::config::Builder::from(&shared))))
    }

    fn configure(&self, builder: aws_sdk_s3::config::Builder) -> aws_sdk_s3::Config {
        let (request, response) = match self.settings.checksum {
            S3Checksum::Always => (
                RequestChecksumCalculation::WhenSupported,
                ResponseChecksumValidation::WhenSupported,
            ),
            S3Checksum::WhenRequired => {
                (RequestChecksumCalculation::WhenRequired, ResponseChecksumValidation::WhenRequired)
            }
        };
        let mut builder = builder
            .force_path_style(self.settings.path_style)
            .request_checksum_calculation(request)
            .response_checksum_validation(response)
            .interceptor(ErrorInBody);
        if let Some(endpoint) = &self.settings.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        builder.build()
    }

    fn timeouts(&self) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(self.attempt_timeout.min(CONNECT_TIMEOUT_MAX))
            .operation_attempt_timeout(self.attempt_timeout)
            .operation_timeout(self.operation_timeout)
            .build()
    }

    /// `None` leaves it to the chain, which may ask the instance metadata service; with an endpoint
    /// of its own there is no such service to ask.
    async fn region(&self) -> Option<Region> {
        if let Some(region) = &self.settings.region {
            return Some(Region::new(region.clone()));
        }
        self.settings.endpoint.as_ref()?;
        RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else(Region::from_static(REGION_OF_OTHERS))
            .region()
            .await
    }

    async fn request(
        &self,
        key: &str,
        body: &Bytes,
    ) -> Result<PutObjectFluentBuilder, BucketError> {
        let put = self.client().await?.put_object().bucket(&self.settings.name).key(key);
        let put = put.body(ByteStream::from(body.clone())).content_length(body.len() as i64);
        let put = match self.settings.checksum {
            S3Checksum::Always => put.checksum_crc32_c(crc32c_header(body)),
            S3Checksum::WhenRequired => put.content_md5(STANDARD.encode(md5::Md5::digest(body))),
        };
        Ok(match &self.settings.encryption {
            S3Encryption::None => put,
            S3Encryption::S3 => put.server_side_encryption(ServerSideEncryption::Aes256),
            S3Encryption::Kms { key_id } => put
                .server_side_encryption(ServerSideEncryption::AwsKms)
                .set_ssekms_key_id(key_id.clone()),
        })
    }

    async fn claim(&self, key: &str, body: &Bytes) -> Result<bool, BucketError> {
        let mut conflicts = 0;
        loop {
            let put = self.request(key, body).await?.if_none_match("*");
            match put.send().await.map_err(|e| failed("put_if_absent", &e)) {
                Ok(output) => return confirm("put_if_absent", &output, body).map(|()| true),
                Err(Failed::Taken) => return Ok(false),
                Err(Failed::Conflict) if conflicts < CONFLICTS_MAX => conflicts += 1,
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(Duration::from_millis(50) * conflicts as u32).await;
        }
    }

    async fn read(&self, key: &str) -> Result<Bytes, BucketError> {
        let get = self.client().await?.get_object().bucket(&self.settings.name).key(key);
        let mut output = get.send().await.map_err(|e| failed("get", &e))?;
        let announced = output.content_length().and_then(|bytes| u64::try_from(bytes).ok());
        let mut body = BytesMut::new();
        while let Some(chunk) = output.body.next().await {
            let chunk = chunk.map_err(|e| failed_stream("get", &e))?;
            if (body.len() + chunk.len()) as u64 > OBJECT_BYTES_MAX {
                let message = format!("get: object has more than {OBJECT_BYTES_MAX} bytes");
                return Err(BucketError::new(BucketErrorKind::Configuration, message));
            }
            body.extend_from_slice(&chunk);
        }
        match announced {
            Some(bytes) if bytes != body.len() as u64 => {
                let message = format!("get: {} bytes came, {bytes} were announced", body.len());
                Err(BucketError::new(BucketErrorKind::Integrity, message))
            }
            _ => Ok(body.freeze()),
        }
    }

    async fn common(&self, prefix: &str) -> Result<Vec<String>, BucketError> {
        let list = self.client().await?.list_objects_v2().bucket(&self.settings.name);
        let mut pages = list.prefix(prefix).delimiter("/").into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| failed("folders", &e))?;
            let names = page.common_prefixes.unwrap_or_default().into_iter();
            found.extend(names.filter_map(|common| {
                let folder = common.prefix?;
                Some(folder.strip_prefix(prefix)?.trim_end_matches('/').to_owned())
            }));
            if found.len() > LISTED_MAX {
                let message = format!("more than {LISTED_MAX} folders: ask for a narrower prefix");
                return Err(BucketError::new(BucketErrorKind::Other, message));
            }
        }
        Ok(found)
    }

    async fn pages(&self, prefix: &str) -> Result<Vec<Listed>, BucketError> {
        let list = self.client().await?.list_objects_v2().bucket(&self.settings.name);
        let mut pages = list.prefix(prefix).into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            for object in page.map_err(|e| failed("list", &e))?.contents.unwrap_or_default() {
                let bytes = object.size().and_then(|bytes| u64::try_from(bytes).ok());
                if let (Some(name), Some(bytes)) = (object.key, bytes) {
                    found.push(Listed { name, bytes });
                }
            }
            if found.len() > LISTED_MAX {
                let message = format!("more than {LISTED_MAX} objects: list a narrower prefix");
                return Err(BucketError::new(BucketErrorKind::Other, message));
            }
        }
        Ok(found)
    }
}

impl Bucket for S3 {
    fn put<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, ()> {
        Box::pin(async move {
            let put = self.request(name, &body).await?;
            let output = put.send().await.map_err(|e| failed("put", &e))?;
            confirm("put", &output, &body)
        })
    }

    fn put_if_absent<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, bool> {
        Box::pin(async move { self.claim(name, &body).await })
    }

    fn get<'a>(&'a self, name: &'a str) -> Boxed<'a, Bytes> {
        Box::pin(self.read(name))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<Listed>> {
        Box::pin(self.pages(prefix))
    }

    fn folders<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<String>> {
        Box::pin(self.common(prefix))
    }

    fn delete<'a>(&'a self, name: &'a str) -> Boxed<'a, ()> {
        Box::pin(async move {
            let delete = self.client().await?.delete_object().bucket(&self.settings.name);
            match delete.key(name).send().await.map_err(|e| failed("delete", &e)) {
                Ok(_) => Ok(()),
                Err(error) => match BucketError::from(error) {
                    absent if absent.kind == BucketErrorKind::NotFound => Ok(()),
                    other => Err(other),
                },
            }
        })
    }

    fn describe(&self) -> String {
        match self.settings.prefix.as_str() {
            "" => format!("s3://{}", self.settings.name),
            prefix => format!("s3://{}/{prefix}", self.settings.name),
        }
    }
}

/// The value of `x-amz-checksum-crc32c`: the CRC, big-endian, base64.
fn crc32c_header(body: &[u8]) -> String {
    STANDARD.encode(crc32c::crc32c(body).to_be_bytes())
}

/// A PUT counts only with an ETag, and with the same checksum where the store tells one. Where it tells
/// none, an ETag that looks like the MD5 has to be that. Where something is encrypted, it need not be.
fn confirm(operation: &str, output: &PutObjectOutput, body: &[u8]) -> Result<(), BucketError> {
    let fault = match (output.e_tag(), output.checksum_crc32_c()) {
        (None | Some("" | "\"\""), _) => "the answer has no ETag",
        (_, Some(told)) if told != crc32c_header(body) => "the store tells another checksum",
        (Some(tag), None) if output.server_side_encryption().is_none() && is_another(tag, body) => {
            "the ETag is the MD5 of something else"
        }
        _ => return Ok(()),
    };
    Err(BucketError::new(BucketErrorKind::Integrity, format!("{operation}: {fault}")))
}

/// True for the MD5 of something else than `body`; what has another form is no MD5.
fn is_another(tag: &str, body: &[u8]) -> bool {
    let tag = tag.trim_matches('"');
    let looks = tag.len() == 32 && tag.bytes().all(|digit| digit.is_ascii_hexdigit());
    let hex =
        || md5::Md5::digest(body).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    looks && !tag.eq_ignore_ascii_case(&hex())
}
