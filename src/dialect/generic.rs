//! Any endpoint of which the user told, by columns, where question and answer stand.

use super::json::Members;
use super::{Answer, View, promptflow};
use crate::domain::Reading;

/// Reads what the columns point to. A stream is folded as a prompt flow's is: the same field of
/// several events is one text.
pub(super) fn read(view: &View<'_>, answer: &Answer<'_>, reading: &mut Reading) {
    promptflow::read_usage(answer, reading);
    let body = answer.body.filter(|_| view.succeeded());
    reading.model.request =
        view.request.json().and_then(|body| super::json::name(body.member("model")));
    reading.model.response = body.and_then(|body| super::json::name(body.member("model")));
    reading.empty = answer.whole_success && promptflow::says_nothing(view, body, reading);
    reading.countable = view.succeeded().then(|| promptflow::countable(view, answer, reading));
}
