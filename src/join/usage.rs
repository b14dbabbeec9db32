//! What a flow spent: the sum of its calls, as the better of two witnesses tells them.

use super::{Taken, Traced};
use crate::domain::{Call, Operation, Outcome, Usage, UsageSource};

/// What a flow spent, and on which calls.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// The sum of `calls`.
    pub usage: Usage,
    /// The calls, in the order in which they began.
    pub calls: Vec<Call>,
}

/// Calls that a tap saw (`taken`) and calls that spans tell of (`traced`) are the same calls, told
/// twice: one of the two is believed, and never both added up.
///
/// The tap's are, because it saw the figures as the models sent them; the spans' where the tap's are
/// known not to be all, where the spans tell of more calls, some of which then went past the tap, or
/// where the flow itself told the sum of its spans and the tap's is another: then calls name the wrong
/// request.
pub fn account(taken: Taken, traced: Traced) -> Account {
    let joined = sum_of(&taken.calls, taken.complete, UsageSource::Joined);
    let told = sum_of(&traced.calls, traced.complete, UsageSource::Traced);
    let spent = |calls: &[Call]| calls.iter().filter(|call| has_figure(call)).count();
    let more = spent(&traced.calls) > spent(&taken.calls);
    let otherwise = traced.proven && told.total != joined.total;
    let better = told.source == Some(UsageSource::Traced)
        && (more || otherwise || joined.source != Some(UsageSource::Joined));
    let only = joined.is_unknown() && (!told.is_unknown() || taken.calls.is_empty());
    match better || only {
        true => Account { usage: told, calls: traced.calls },
        false => Account { usage: joined, calls: taken.calls },
    }
}

/// The sum of a flow's calls, where they are `complete`.
///
/// A call that was turned away before anything was generated (4xx, 5xx, no connection) spent nothing
/// that anyone reports, and takes no part. `whole` is the source of a sum of calls that are all known.
/// Where a call is missing or of unknown usage, the sum of the others is a lower bound, and `estimated`.
/// Where no call's usage is known, neither is the flow's.
fn sum_of(calls: &[Call], complete: bool, whole: UsageSource) -> Usage {
    let spending: Vec<&Call> = calls.iter().filter(|call| !was_turned_away(call)).collect();
    let input = sum(spending.iter().map(|call| call.input));
    let output = sum(spending.iter().map(|call| output(call)));
    let known = |call: &&Call| call.input.is_some() && output_known(call);
    let source = match complete && spending.iter().all(known) {
        true => whole,
        false => UsageSource::Estimated,
    };
    let part = |of: fn(&Call) -> Option<u64>| {
        let all = spending.iter().all(|call| of(call).is_some());
        sum(spending.iter().map(|call| of(call))).filter(|_| all)
    };
    Usage {
        cached_input: part(|call| call.cached_input),
        reasoning_output: part(|call| call.reasoning_output),
        ..Usage::of(input, output, source)
    }
}

fn has_figure(call: &Call) -> bool {
    call.input.is_some() || call.output.is_some()
}

fn was_turned_away(call: &Call) -> bool {
    let refused = matches!(
        call.outcome,
        Outcome::ClientError | Outcome::ConnectError | Outcome::UpstreamError
    );
    // A 200 that turned into an error on its way has spent something.
    let accepted = call.status.is_some_and(|status| (200..300).contains(&status));
    refused && !accepted && !has_figure(call)
}

fn output_known(call: &Call) -> bool {
    output(call).is_some()
}

/// Embeddings generate nothing, and report no output.
fn output(call: &Call) -> Option<u64> {
    let none = (call.operation == Operation::Embeddings && call.input.is_some()).then_some(0);
    call.output.or(none)
}

/// The sum of what is known; `None` where nothing is.
fn sum(figures: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    figures.flatten().fold(None, |sum, n| Some(sum.unwrap_or(0).saturating_add(n)))
}
