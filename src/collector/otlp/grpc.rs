//! OTLP over gRPC: `TraceService/Export`, plain or gzip. The body is read within our own bounds first;
//! tonic does framing, unpacking and trailers.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::super::Desk;
use super::super::post::{Post, Refusal};
use crate::domain::{Posted, Protocol};

/// When a sender that was turned away may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Where a status has its details.
const DETAILS: &str = "grpc-status-details-bin";

/// The service for the requests of one connection.
#[derive(Clone)]
pub(in crate::collector) struct Service {
    desk: Desk,
    inner: TraceServiceServer<Exporter>,
}

struct Exporter {
    desk: Desk,
}

impl Service {
    pub(in crate::collector) fn new(desk: Desk) -> Self {
        let inner = TraceServiceServer::new(Exporter { desk: desk.clone() })
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(desk.body_bytes_max);
        Self { desk, inner }
    }

    pub(in crate::collector) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (posted, response) = self.answered(request).await;
        self.desk.metrics.posted(Protocol::OtlpGrpc, posted);
        response
    }

    async fn answered(&self, request: Request<Incoming>) -> (Posted, Response<Body>) {
        let post = match Post::read(&self.desk, request, None).await {
            Ok(post) => post,
            Err(refusal) => return (refusal.posted(), status(&refusal).into_http()),
        };
        let request = Request::from_parts(post.head.clone(), Full::new(post.body.clone()));
        // The service cannot fail, but by its answers.
        let Ok(response) = self.inner.clone().call(request).await;
        let code =
            response.headers().get("grpc-status").map(|code| Code::from_bytes(code.as_ref()));
        match code {
            None | Some(Code::Ok) => match response.extensions().get::<Posted>() {
                Some(posted) => (*posted, response),
                None => (Posted::Accepted, response),
            },
            // What tonic says of bytes that are no message, and of those that are too many.
            Some(Code::Internal) => refused(Refusal::Malformed("no valid OTLP message".to_owned())),
            Some(Code::OutOfRange) => refused(Refusal::TooLarge(self.desk.body_bytes_max)),
            // Ours say when to try again.
            Some(Code::ResourceExhausted) => match response.headers().contains_key(DETAILS) {
                true => (Posted::Busy, response),
                false => refused(Refusal::TooLarge(self.desk.body_bytes_max)),
            },
            Some(_) => (Posted::Unknown, response),
        }
    }
}

fn refused(refusal: Refusal) -> (Posted, Response<Body>) {
    (refusal.posted(), status(&refusal).into_http())
}

#[tonic::async_trait]
impl TraceService for Exporter {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let spans = super::spans(request.into_inner());
        let taken = self.desk.take(Protocol::OtlpGrpc, spans);
        let taken = taken.ok_or_else(|| status(&Refusal::Busy))?;
        let posted = if taken.refused == 0 { Posted::Accepted } else { Posted::Partial };
        let mut response = tonic::Response::new(super::response(taken));
        response.extensions_mut().insert(posted);
        Ok(response)
    }
}

/// A refusal as gRPC says it; what may be tried again says when.
fn status(refusal: &Refusal) -> Status {
    let details = match refusal {
        Refusal::Busy => ErrorDetails::with_retry_info(Some(RETRY_AFTER)),
        _ => return Status::new(code(refusal), refusal.to_string()),
    };
    Status::with_error_details(code(refusal), refusal.to_string(), details)
}

/// The code of a refusal, by the table of gRPC over HTTP.
pub(super) fn code(refusal: &Refusal) -> Code {
    match refusal {
        Refusal::Unauthorized => Code::Unauthenticated,
        Refusal::TooLarge(_) | Refusal::Busy => Code::ResourceExhausted,
        Refusal::Timeout => Code::DeadlineExceeded,
        Refusal::Malformed(_) | Refusal::Media(_) => Code::InvalidArgument,
        Refusal::Path(_) | Refusal::Method => Code::Unimplemented,
    }
}
