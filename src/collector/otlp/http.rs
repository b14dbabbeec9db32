//! OTLP over HTTP: `POST /v1/traces`, protobuf or JSON, plain or gzip. Failures are a `google.rpc.Status`
//! in the form that the request came in.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use serde_json::json;

use super::super::azureml::add_hints;
use super::super::post::{Post, Refusal};
use super::super::{Desk, Taken};
use crate::domain::{Posted, Protocol};

const PATH: &str = "/v1/traces";

/// The two forms of OTLP over HTTP.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Protobuf,
    Json,
}

/// Answers one post, and says how.
pub(in crate::collector) async fn answer(
    desk: &Desk,
    request: Request<Incoming>,
) -> (Posted, Response<Full<Bytes>>) {
    let form = Form::of(request.headers());
    match take(desk, request, form).await {
        Ok(taken) => {
            let posted = if taken.refused == 0 { Posted::Accepted } else { Posted::Partial };
            (posted, form.unwrap_or(Form::Json).response(&super::response(taken)))
        }
        Err(refusal) => (refusal.posted(), refused(&refusal, form.unwrap_or(Form::Json))),
    }
}

async fn take(
    desk: &Desk,
    request: Request<Incoming>,
    form: Option<Form>,
) -> Result<Taken, Refusal> {
    let refused = match (request.uri().path(), request.method(), form) {
        (PATH, &Method::POST, Some(_)) => None,
        (PATH, &Method::POST, None) => Some(Refusal::Media(
            "the media type is neither application/x-protobuf nor application/json".to_owned(),
        )),
        (PATH, _, _) => Some(Refusal::Method),
        _ => Some(Refusal::Path(PATH)),
    };
    let post = Post::read(desk, request, refused).await?;
    let body = post.unpacked(desk.body_bytes_max)?;
    let told = form.unwrap_or(Form::Json).read(&body)?;
    desk.take(Protocol::OtlpHttp, super::spans(told)).ok_or(Refusal::Busy)
}

impl Form {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let media = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        match media.split(';').next()?.trim().to_ascii_lowercase().as_str() {
            "application/x-protobuf" => Some(Self::Protobuf),
            "application/json" => Some(Self::Json),
            _ => None,
        }
    }

    fn read(self, body: &Bytes) -> Result<ExportTraceServiceRequest, Refusal> {
        match self {
            Self::Protobuf => ExportTraceServiceRequest::decode(body.clone())
                .map_err(|error| Refusal::Malformed(format!("no valid protobuf: {error}"))),
            // The parser's own words may hold what it stumbled over.
            Self::Json => serde_json::from_slice(body).map_err(|error| {
                let place = (error.line(), error.column());
                Refusal::Malformed(format!(
                    "no valid OTLP in JSON, line {} column {}",
                    place.0, place.1
                ))
            }),
        }
    }

    fn response(self, response: &ExportTraceServiceResponse) -> Response<Full<Bytes>> {
        let body = match (self, &response.partial_success) {
            (Self::Protobuf, _) => response.encode_to_vec(),
            (Self::Json, None) => b"{}".to_vec(),
            (Self::Json, Some(_)) => serde_json::to_vec(response).unwrap_or_default(),
        };
        self.answer(StatusCode::OK, body)
    }

    fn answer(self, status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
        let media = match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
        response
    }
}

/// The spans that `body` holds, in both forms: to be fuzzed.
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::collector) fn spans_in(body: &Bytes) -> Vec<crate::dialect::span::RawSpan> {
    let told = [Form::Protobuf, Form::Json].into_iter().filter_map(|form| form.read(body).ok());
    told.flat_map(super::spans).filter_map(Result::ok).collect()
}

fn refused(refusal: &Refusal, form: Form) -> Response<Full<Bytes>> {
    let (code, message) = (super::grpc::code(refusal) as i32, refusal.to_string());
    let body = match form {
        Form::Protobuf => {
            tonic_types::Status { code, message, details: Vec::new() }.encode_to_vec()
        }
        Form::Json => json!({"code": code, "message": message}).to_string().into_bytes(),
    };
    let mut response = form.answer(refusal.status(), body);
    add_hints(refusal, response.headers_mut());
    response
}
