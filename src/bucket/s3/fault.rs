//! What S3's answers and the SDK's errors mean. Messages hold the status, S3's error code and the
//! system's error at most: never S3's text, which quotes keys and signatures.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStreamError;

use super::super::answer::{self, chain};
use super::super::{BucketError, BucketErrorKind};

/// Fails an operation whose answer is a success with an error in its body.
#[derive(Debug)]
pub(super) struct ErrorInBody;

impl Intercept for ErrorInBody {
    fn name(&self) -> &'static str {
        "ErrorInBody"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _settings: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        // A body that is still a stream is an object, which may well speak of errors.
        let body = response.body().bytes().unwrap_or_default();
        if response.status().is_success() && answer::holds_error(body) {
            return Err("an error in the body of a success".into());
        }
        Ok(())
    }
}

/// Why a request failed, with the two answers that only a conditional PUT can use.
#[derive(Debug)]
pub(super) enum Failed {
    /// 412: the name is taken.
    Taken,
    /// 409: another conditional PUT is in progress.
    Conflict,
    /// Anything else.
    Error(BucketError),
}

impl From<Failed> for BucketError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Taken => Self::new(BucketErrorKind::AlreadyExists, "the name is taken"),
            Failed::Conflict => Self::new(BucketErrorKind::Throttled, "conflicting writers"),
            Failed::Error(error) => error,
        }
    }
}

/// Reads an SDK error.
pub(super) fn failed<E>(operation: &str, error: &SdkError<E, HttpResponse>) -> Failed
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let (kind, what) = match error {
        SdkError::ServiceError(reply) => {
            let status = reply.raw().status().as_u16();
            let code = reply.err().code().map(answer::code).unwrap_or_default();
            match (status, code.as_str()) {
                (412, _) | (_, "PreconditionFailed") => return Failed::Taken,
                (409, _) => return Failed::Conflict,
                _ => {}
            }
            (answer::kind(operation, status, &code), format!("status {status} {code}"))
        }
        SdkError::TimeoutError(_) => (BucketErrorKind::Timeout, "no answer in time".to_owned()),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            (BucketErrorKind::Timeout, "no connection in time".to_owned())
        }
        SdkError::ResponseError(reply) => {
            let status = reply.raw().status().as_u16();
            (BucketErrorKind::Unavailable, format!("status {status} with an unusable answer"))
        }
        other => kind_of_chain(other),
    };
    Failed::Error(BucketError::new(kind, format!("{operation}: {what}")))
}

/// Reads an error that came amid a body.
pub(super) fn failed_stream(operation: &str, error: &ByteStreamError) -> BucketError {
    let texts: Vec<String> = chain(error).map(ToString::to_string).collect();
    let kind = if texts.iter().any(|text| text.contains("checksum mismatch")) {
        BucketErrorKind::Integrity
    } else if texts.iter().any(|text| text.contains("minimum throughput")) {
        BucketErrorKind::Timeout
    } else {
        BucketErrorKind::Unavailable
    };
    BucketError::new(kind, format!("{operation}: the object's body broke off or is damaged"))
}

/// Errors without an answer: credentials, names, connections.
fn kind_of_chain(error: &(dyn Error + 'static)) -> (BucketErrorKind, String) {
    if let Some(found) = chain(error).find_map(|e| e.downcast_ref::<CredentialsError>()) {
        return kind_of_credentials(found);
    }
    answer::connection(error)
}

/// The texts of these errors may quote a credential process's output, so they stay out.
fn kind_of_credentials(error: &CredentialsError) -> (BucketErrorKind, String) {
    let (kind, what) = match error {
        CredentialsError::CredentialsNotLoaded(_) => {
            (BucketErrorKind::Configuration, "no credentials in the settings or the AWS chain")
        }
        CredentialsError::InvalidConfiguration(_) => {
            (BucketErrorKind::Configuration, "the AWS credentials are configured wrongly")
        }
        CredentialsError::ProviderTimedOut(_) => {
            (BucketErrorKind::Timeout, "the lookup of credentials took too long")
        }
        _ => (BucketErrorKind::Unavailable, "the lookup of credentials failed"),
    };
    (kind, what.to_owned())
}
