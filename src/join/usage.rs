//! What a flow spent: the sum of its calls.

use crate::domain::{Call, Operation, Outcome, Usage, UsageSource};

/// The sum of a flow's calls; `complete` as of [`super::Taken`].
///
/// A call that was turned away before anything was generated (4xx, 5xx, no connection) spent nothing
/// that anyone reports, and takes no part. `joined` is the sum of calls that are all known. Where a
/// call is missing or of unknown usage, the sum of the others is a lower bound, and `estimated`.
/// Where no call's usage is known, neither is the flow's.
pub fn usage(calls: &[Call], complete: bool) -> Usage {
    let spending: Vec<&Call> = calls.iter().filter(|call| !was_turned_away(call)).collect();
    let input = sum(spending.iter().map(|call| call.input));
    let output = sum(spending.iter().map(|call| output(call)));
    let known = |call: &&Call| call.input.is_some() && output_known(call);
    let source = match complete && spending.iter().all(known) {
        true => UsageSource::Joined,
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

fn was_turned_away(call: &Call) -> bool {
    let refused = matches!(
        call.outcome,
        Outcome::ClientError | Outcome::ConnectError | Outcome::UpstreamError
    );
    // A 200 that turned into an error on its way has spent something.
    let accepted = call.status.is_some_and(|status| (200..300).contains(&status));
    refused && !accepted && call.input.is_none() && call.output.is_none()
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
