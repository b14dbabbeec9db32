//! What could not be understood of a body: a closed set of labels, never any content.

/// Why a reading is incomplete. The first fault of the response, else of the request, is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// `Content-Encoding` is unknown, or the bytes are not what it says.
    Encoding,
    /// More than one layer of `Content-Encoding`.
    EncodingNested,
    /// Decoding would pass the cap on size or ratio.
    Bomb,
    /// Bytes that mattered were not captured, or never came.
    Truncated,
    /// Not JSON where JSON was said or begun.
    Json,
    /// JSON nested too deep or of too many values.
    JsonLimits,
    /// A line or an event of a stream was too long, and was skipped.
    SseLine,
    /// Understood as far as the format goes, but not what the dialect expects.
    Shape,
    /// A configured column is no valid JSONPath.
    Column,
}

impl Fault {
    /// Every fault, in the order of declaration.
    pub const ALL: &[Self] = &[
        Self::Encoding,
        Self::EncodingNested,
        Self::Bomb,
        Self::Truncated,
        Self::Json,
        Self::JsonLimits,
        Self::SseLine,
        Self::Shape,
        Self::Column,
    ];

    /// The name used in records and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Encoding => "encoding",
            Self::EncodingNested => "encoding_nested",
            Self::Bomb => "bomb",
            Self::Truncated => "truncated",
            Self::Json => "json",
            Self::JsonLimits => "json_limits",
            Self::SseLine => "sse_line",
            Self::Shape => "shape",
            Self::Column => "column",
        }
    }
}
