//! How an exchange ended, and why an observation was dropped: closed sets, each with its label.

use serde::{Deserialize, Serialize};

macro_rules! labelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $label)] $variant),+ }

        impl $name {
            /// Every member, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name used in records, metrics and logs.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }
        }
    };
}
pub(super) use labelled;

labelled! {
    /// How an exchange ended, as the client saw it.
    Outcome {
        /// Complete, below 400, and with an answer where one was due.
        Ok = "ok",
        /// 2xx, but without any answer in it.
        Empty = "empty",
        /// The upstream said 4xx, or we refused a malformed request.
        ClientError = "client_error",
        /// The upstream said 5xx, Azure's 424 (which stands for a failed model), or an error in mid-stream.
        UpstreamError = "upstream_error",
        /// No connection to the upstream, or it closed before it answered.
        ConnectError = "connect_error",
        /// A time limit passed.
        Timeout = "timeout",
        /// The client went away before the end.
        ClientAbort = "client_abort",
        /// The upstream cut its answer short.
        UpstreamAbort = "upstream_abort",
    }
}

labelled! {
    /// Where an observation was dropped.
    DropStage {
        /// Between the proxy and the pipeline.
        Intake = "intake",
        /// While the exchange was understood, counted or redacted.
        Pipeline = "pipeline",
        /// Counting tokens (the record goes on without them).
        Tokens = "tokens",
        /// Writing to the local disk.
        Spool = "spool",
        /// On the way to the bucket.
        Archive = "archive",
        /// Not looked at, to spare the host.
        Capture = "capture",
    }
}

labelled! {
    /// Why an observation was dropped.
    DropReason {
        /// A bounded queue was full.
        Full = "full",
        /// The code panicked; the panic was contained.
        Panic = "panic",
        /// The disk was full.
        DiskFull = "disk_full",
        /// The byte quota of the spool was reached.
        Quota = "quota",
        /// Any other disk error.
        Disk = "disk",
        /// A stored record could not be read back.
        Corrupt = "corrupt",
        /// A record was larger than a segment may be.
        TooLarge = "too_large",
        /// The process was told to stop before the work was done.
        Shutdown = "shutdown",
        /// The process ended without a shutdown; found out by the next one.
        Crash = "crash",
        /// The process came near the memory it may take.
        Memory = "memory",
        /// Looking took too much time beside the traffic.
        Overhead = "overhead",
    }
}

labelled! {
    /// What became of a call that names the request it is made for.
    JoinFate {
        /// It was joined to its flow's exchange.
        Joined = "joined",
        /// It ended after its flow had been settled.
        Late = "late",
        /// No flow of its name came in time.
        Orphan = "orphan",
        /// It was pushed out by the table's bounds, or lost.
        Evicted = "evicted",
    }
}

labelled! {
    /// What became of a span that was told to us.
    ToldFate {
        /// It was joined to its exchange in time.
        Joined = "joined",
        /// Its exchange had been settled: it adds to the stored trace alone.
        Late = "late",
        /// It had been told before.
        Repeated = "repeated",
        /// No exchange that it belongs to came in time.
        Orphan = "orphan",
        /// It was pushed out by the table's bounds.
        Evicted = "evicted",
    }
}

labelled! {
    /// How spans are sent to us.
    Protocol {
        /// As Azure ML's data collector takes them.
        Azureml = "azureml",
        /// OTLP over gRPC.
        OtlpGrpc = "otlp_grpc",
        /// OTLP over HTTP, protobuf or JSON.
        OtlpHttp = "otlp_http",
    }
}

labelled! {
    /// How a post to a collector's endpoint was answered.
    Posted {
        /// All of it was taken.
        Accepted = "accepted",
        /// Some spans were refused.
        Partial = "partial",
        /// It is not what the protocol says.
        Malformed = "malformed",
        /// It is larger than allowed, packed or unpacked.
        TooLarge = "too_large",
        /// Its token is missing or wrong.
        Unauthorized = "unauthorized",
        /// There is more than can be taken now.
        Busy = "busy",
        /// It took too long to arrive.
        Timeout = "timeout",
        /// The endpoint has no such path, method or media type.
        Unknown = "unknown",
    }
}

labelled! {
    /// What became of a pod that the admission webhook was asked about.
    Injection {
        /// It got a sidecar.
        Injected = "injected",
        /// It stays as it is: it did not ask, or has one.
        Left = "left",
        /// It asked, and cannot get one.
        Refused = "refused",
        /// It was no review.
        Malformed = "malformed",
    }
}

/// The class of a status code: `1xx` to `5xx`, or `none` where there was no answer.
pub fn status_class(status: Option<u16>) -> &'static str {
    match status.map(|code| code / 100) {
        Some(1) => "1xx",
        Some(2) => "2xx",
        Some(3) => "3xx",
        Some(4) => "4xx",
        Some(5) => "5xx",
        _ => "none",
    }
}
