//! The object_store crate takes any 200 for a success, and an error in its body for an empty listing.
//! This client looks at the answers to PUTs and listings before the crate does, and bounds them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use http::Method;
use http_body_util::{BodyExt, Limited};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};

use super::answer;

/// The most bytes of an answer that is no object: a page of 5,000 names has some megabytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Makes clients that look at answers.
#[derive(Debug)]
pub(super) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Checked(client)))
    }
}

#[derive(Debug)]
struct Checked(HttpClient);

/// What `async_trait` makes of an async method.
type Called<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Checked {
    fn call<'life0, 'async_trait>(&'life0 self, request: HttpRequest) -> Called<'async_trait>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        // Objects may hold anything, and so may the parts of a batch's answer.
        let is_ours = request.method() == Method::PUT || is_listing(&request);
        Box::pin(async move {
            let response = self.0.execute(request).await?;
            if is_ours && response.status().is_success() {
                check(response).await
            } else {
                Ok(response)
            }
        })
    }
}

/// Why a 2xx is no success.
#[derive(Debug)]
struct NoSuccess;

impl fmt::Display for NoSuccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an error in the body of a success, or a body without end")
    }
}

impl std::error::Error for NoSuccess {}

fn is_listing(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    request.method() == Method::GET
        && query.split('&').any(|pair| matches!(pair, "comp=list" | "list-type=2"))
}

async fn check(response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (parts, body) = response.into_parts();
    let collected = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let bytes = collected.map_err(broken)?.to_bytes();
    if answer::holds_error(&bytes) {
        return Err(HttpError::new(HttpErrorKind::Decode, NoSuccess));
    }
    Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(bytes)))
}

fn broken(error: Box<dyn std::error::Error + Send + Sync>) -> HttpError {
    match error.downcast::<HttpError>() {
        Ok(error) => *error,
        Err(_) => HttpError::new(HttpErrorKind::Decode, NoSuccess),
    }
}
