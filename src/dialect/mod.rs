//! Wire formats: bytes in, nouns out. [`read`] finds out which dialect an exchange speaks and what
//! was asked, answered and spent. It is pure, it never fails, and it never panics on what strangers
//! send: what cannot be understood becomes [`Reading::fault`], one of [`Fault`]'s labels.
//!
//! It runs on the pipeline's thread, off the request path. Everything it holds is bounded: by the
//! captured bytes, by [`decode::OUTPUT_BYTES_MAX`], by [`json::NODES_MAX`] and [`json::DEPTH_MAX`],
//! and by [`sse::Limits`]. Costs are linear in the bytes.
//!
//! A dialect is a file of this room: it folds a stream into the object that the same call without
//! streaming would have given, and then reads that object, so that both forms share one reader.

use serde_json::Value;

use crate::config::Tap;
use crate::domain::{Countable, Dialect, Exchange, Fields, Operation, Outcome, Reading};

mod anthropic;
mod columns;
pub mod decode;
mod detect;
mod fault;
mod feedback;
mod figures;
mod fold;
mod generic;
pub mod json;
mod openai;
mod promptflow;
mod session;
mod side;
mod skim;
pub mod span;
pub mod sse;
mod standing;
mod template;
mod texts;
mod usage;

#[cfg(test)]
mod tests;

pub use fault::Fault;
pub use feedback::{Feedback, read_feedback};
pub use texts::{Outlines, outlines};

use detect::Glance;
use fold::Folded;
use side::Side;
use usage::Tally;

/// The status that the model's container gave, where Azure ML's front door replaced it: any answer
/// but 200 reaches the client as 424, with the original in `ms-azureml-model-error-statuscode`.
pub fn model_status(exchange: &Exchange) -> Option<u16> {
    let original = exchange.response_headers.get("ms-azureml-model-error-statuscode")?;
    original.to_str().ok()?.trim().parse().ok().filter(|status| (100..600).contains(status))
}

/// Understands one exchange of `tap`, as far as it can be understood.
pub fn read(exchange: &Exchange, tap: &Tap) -> Reading {
    read_whole(exchange, tap, detect::at_a_glance(exchange, tap), Bodies::Told)
}

/// As [`read`], for an exchange of which no text will be kept: names, figures and faults are the
/// same, and so is what is to be counted where the upstream did not report it all; bodies are left out,
/// but for feedback's.
pub fn read_figures(exchange: &Exchange, tap: &Tap) -> Reading {
    let glance = detect::at_a_glance(exchange, tap);
    let figures = match glance {
        Glance::Known(dialect, operation) => figures::read(exchange, tap, dialect, operation),
        _ => None,
    };
    figures.unwrap_or_else(|| read_whole(exchange, tap, glance, Bodies::LeftOut))
}

/// As [`read_figures`], for an exchange that is surely kept: unless its texts may be kept where they stand
/// (see [`outlines`]), it is read as a whole at once.
pub fn read_kept(exchange: &Exchange, tap: &Tap) -> Reading {
    if texts::may_stand(exchange) {
        let glance = detect::at_a_glance(exchange, tap);
        if let Glance::Known(dialect, operation) = glance
            && let Some(figures) = outlined(exchange, tap, dialect, operation)
        {
            return figures;
        }
    }
    read(exchange, tap)
}

/// The figures, by outlines of both bodies where they have any: those are kept for the texts.
fn outlined(
    exchange: &Exchange,
    tap: &Tap,
    dialect: Dialect,
    operation: Operation,
) -> Option<Reading> {
    let Some(outlines) = outlines(exchange, operation, None) else {
        return figures::read(exchange, tap, dialect, operation);
    };
    let figures = figures::read_outlined(exchange, tap, dialect, operation, &outlines)?;
    Some(Reading { outlines: Some(outlines.into_both()), ..figures })
}

/// Whether a reading holds the bodies: a copy of each that is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bodies {
    Told,
    LeftOut,
}

fn read_whole(exchange: &Exchange, tap: &Tap, glance: Glance, bodies: Bodies) -> Reading {
    if let Glance::Other(dialect) = glance {
        return metadata(Reading::new(dialect, Operation::Other), exchange, tap);
    }
    let request = Side::of_request(&exchange.request, &exchange.request_headers);
    let response = Side::of_response(&exchange.response, &exchange.response_headers);
    let (dialect, operation) = match glance {
        Glance::Known(dialect, operation) => (dialect, operation),
        _ => detect::by_shape(exchange, tap, &request, &response),
    };
    let reading = metadata(Reading::new(dialect, operation), exchange, tap);
    if operation == Operation::Other {
        return reading;
    }
    understand(View { exchange, tap, request, response }, reading, bodies)
}

/// What the heads tell, whatever the bodies hold.
fn metadata(mut reading: Reading, exchange: &Exchange, tap: &Tap) -> Reading {
    reading.provider = detect::provider(reading.dialect, exchange, tap);
    reading.session = session::in_headers(&exchange.request_headers);
    reading.stream = says_stream(&exchange.response_headers);
    reading
}

fn says_stream(headers: &Fields) -> bool {
    let media = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    media.is_some_and(side::is_event_stream)
}

/// The two sides of an exchange whose operation is known.
struct View<'a> {
    exchange: &'a Exchange,
    tap: &'a Tap,
    request: Side<'a>,
    response: Side<'a>,
}

impl View<'_> {
    /// The upstream said that the call succeeded.
    fn succeeded(&self) -> bool {
        self.exchange.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// The answer in one form, streamed or not.
struct Answer<'a> {
    /// The object given, or folded from the stream; of a failed call too.
    body: Option<&'a Value>,
    /// Tokens reported by the events of a stream.
    tally: Tally,
    /// The answer came as a stream.
    stream: bool,
    /// Part of the answer is missing.
    cut: bool,
    /// The whole of a successful answer is here and understood: what is not in it was not given.
    whole_success: bool,
    /// `usage` from the tail of a body with a hole.
    usage_in_tail: Option<Value>,
}

impl<'a> Answer<'a> {
    fn new(view: &'a View<'_>, folded: Option<&'a Folded>) -> Self {
        let complete = view.exchange.response.complete && !view.response.partial();
        let folding = folded.and_then(|folded| folded.fault);
        let understood = view.response.fault.or(folding).is_none();
        let unended = folded.is_some_and(|folded| !folded.ended);
        Self {
            body: folded.map_or(view.response.json(), |folded| folded.body.as_ref()),
            tally: folded.map(|folded| folded.tally).unwrap_or_default(),
            stream: folded.is_some(),
            cut: !complete || view.exchange.outcome != Outcome::Ok || unended,
            whole_success: view.succeeded() && complete && understood,
            usage_in_tail: view.response.usage_in_tail(),
        }
    }

    /// The `usage` object of an answer that is no stream.
    fn reported(&self) -> Option<&Value> {
        let inside = self.body.filter(|_| !self.stream).and_then(|body| body.get("usage"));
        inside.or(self.usage_in_tail.as_ref())
    }
}

fn understand(view: View<'_>, mut reading: Reading, bodies: Bodies) -> Reading {
    let streamed = view.response.is_stream();
    let folded = streamed.then(|| fold_stream(&view, reading.operation));
    let answer = Answer::new(&view, folded.as_ref());
    reading.stream = streamed;
    let answered = answer.body.filter(|_| view.succeeded());
    columns::fill(&mut reading, &view.tap.columns, &view.request, answered);
    match reading.operation {
        Operation::Score => promptflow::read(&view, &answer, &mut reading),
        Operation::Chat => openai::chat::read(&view, &answer, &mut reading),
        Operation::TextCompletion => openai::completions::read(&view, &answer, &mut reading),
        Operation::Responses => openai::responses::read(&view, &answer, &mut reading),
        Operation::Embeddings => openai::embeddings::read(&view, &answer, &mut reading),
        Operation::Messages => anthropic::read(&view, &answer, &mut reading),
        Operation::Call => generic::read(&view, &answer, &mut reading),
        Operation::Feedback | Operation::Other => {}
    }
    // A flow may name one of its outputs `error`; the models' formats may not.
    let flow = matches!(reading.operation, Operation::Score | Operation::Call);
    if !flow && reading.finish_reason.is_none() && folded.as_ref().is_some_and(Folded::failed) {
        reading.finish_reason = Some("error".to_owned());
    }
    if let Some(body) = view.request.json() {
        reading.session = reading.session.or_else(|| session::in_body(body));
    }
    reading.countable = reading.countable.filter(says_something);
    let faults =
        [view.response.fault, folded.as_ref().and_then(|folded| folded.fault), view.request.fault];
    reading.fault = faults.into_iter().flatten().next().map(Fault::label).or(reading.fault);
    reading.first_content_offset = folded.as_ref().and_then(|folded| folded.first_content_offset);
    if bodies == Bodies::Told || reading.operation == Operation::Feedback {
        let folded = folded.and_then(|folded| folded.body);
        (reading.request_body, reading.response_body) = stored(view, folded);
    }
    if reading.operation == Operation::Embeddings {
        openai::embeddings::leave_vectors_out(&mut reading.response_body);
    }
    reading
}

/// Both bodies as a record keeps them; of a stream that was understood, what it amounts to.
fn stored(view: View<'_>, folded: Option<Value>) -> (Option<Value>, Option<Value>) {
    (view.request.into_stored(), folded.or_else(|| view.response.into_stored()))
}

fn fold_stream(view: &View<'_>, operation: Operation) -> Folded {
    let side = &view.response;
    match operation {
        Operation::Chat | Operation::TextCompletion => {
            fold::fold(side, openai::stream::Chunks::default())
        }
        Operation::Responses => fold::fold(side, openai::responses::Events::default()),
        Operation::Messages => fold::fold(side, anthropic::Events::default()),
        _ => fold::fold(side, promptflow::Pieces::new(&view.tap.columns)),
    }
}

/// Texts of which nothing was seen would count as zero tokens, and unknown is never zero.
fn says_something(countable: &Countable) -> bool {
    !(countable.turns.is_empty() && countable.input.is_empty() && countable.output.is_empty())
}
