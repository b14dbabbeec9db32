//! The texts of a call to a model where they stand in its bodies, for a record that changes none of them.
//!
//! What is found here is what [`read`](super::read) would say, to the letter: whatever is streamed, cut,
//! coded, failed or merely unusual is no matter for this file. It answers `None`, and the exchange is read
//! as a whole.

use std::borrow::Cow;

use http::header::CONTENT_ENCODING;

use super::columns::Column;
use super::decode::Decoded;
use super::{figures, json, side};
use crate::config::{self, Tap};
use crate::domain::{Exchange, Kind, Node, Operation, Outcome, Outline, Said, Texts};

/// Where the values of both bodies stand.
#[derive(Debug)]
pub struct Outlines<'a> {
    outlines: [Outline; 2],
    /// The bodies.
    asked: &'a str,
    answered: &'a str,
}

/// The outlines of both bodies of an exchange that is an `operation`; `known`: they have been made before.
pub fn outlines(
    exchange: &Exchange,
    operation: Operation,
    known: Option<[Outline; 2]>,
) -> Option<Outlines<'_>> {
    use Operation::{Chat, Messages, Responses, TextCompletion};
    let succeeded = exchange.status.is_some_and(|status| (200..300).contains(&status));
    let is_call = matches!(operation, Chat | TextCompletion | Responses | Messages);
    if !(is_call && succeeded && exchange.outcome == Outcome::Ok) {
        return None;
    }
    let asked = figures::whole(&exchange.request, &exchange.request_headers)?;
    let answered = figures::whole(&exchange.response, &exchange.response_headers)?;
    if side::streams(side::media(&exchange.response_headers), &answered.head) {
        return None;
    }
    let (asked, answered) = (text(asked)?, text(answered)?);
    let made = || Some([outline(asked)?, outline(answered)?]);
    Some(Outlines { outlines: known.or_else(made)?, asked, answered })
}

/// False where [`outlines`] surely has none: of streams, and under a content coding.
pub(super) fn may_stand(exchange: &Exchange) -> bool {
    let sides = [&exchange.request_headers, &exchange.response_headers];
    let media = side::media(&exchange.response_headers);
    !sides.into_iter().any(|headers| headers.get(CONTENT_ENCODING).is_some())
        && !side::streams(media, &exchange.response.head)
}

/// A body that is a text, and came without a coding.
fn text(body: Decoded<'_>) -> Option<&str> {
    let Cow::Borrowed(bytes) = body.head else { return None };
    simdutf8::basic::from_utf8(bytes).ok()
}

/// The outline of a body that is one object.
fn outline(body: &str) -> Option<Outline> {
    let outline = Outline::of(body, json::DEPTH_MAX, json::NODES_MAX)?;
    (outline.whole(body)?.kind() == Kind::Object).then_some(outline)
}

impl<'a> Outlines<'a> {
    /// Request and response.
    pub(super) fn bodies(&self) -> Option<(Node<'_, 'a>, Node<'_, 'a>)> {
        let [asked, answered] = &self.outlines;
        Some((asked.whole(self.asked)?, answered.whole(self.answered)?))
    }

    /// What they are without the bodies.
    pub(super) fn into_both(self) -> [Outline; 2] {
        self.outlines
    }

    /// The bodies, and the columns by the mapping of `tap` or, where that finds none, by the format of an
    /// `operation`.
    pub fn texts(&self, tap: &Tap, operation: Operation) -> Option<Texts<'_, 'a>> {
        let (request, response) = self.bodies()?;
        let mut texts = mapped(request, response, &tap.columns)?;
        let native = match operation {
            Operation::TextCompletion => completion(request, response),
            Operation::Responses => responses(request, response),
            Operation::Messages => messages(request, response),
            _ => chat(request, response),
        };
        texts.question = texts.question.or(native.question);
        texts.answer = texts.answer.or(native.answer);
        texts.chat_history = native.chat_history;
        Some(texts)
    }
}

/// As [`fill`](super::columns::fill), for columns that are plain fields.
fn mapped<'o, 'a>(
    request: Node<'o, 'a>,
    response: Node<'o, 'a>,
    columns: &config::Columns,
) -> Option<Texts<'o, 'a>> {
    let field = |body: Node<'o, 'a>, column: &str| match Column::of(column) {
        Column::Field(name) => Some(body.member(name).filter(|found| !found.is_null())),
        _ => None,
    };
    let in_request = |column: &str| field(request, column);
    let in_response = |column: &str| field(response, column);
    let context = in_response(&columns.context)?.or(in_request(&columns.context)?);
    let ground_truth = in_request(&columns.ground_truth)?.or(in_response(&columns.ground_truth)?);
    // A history that has a field of its own is a rare one.
    in_request(&columns.chat_history)?.is_none().then_some(())?;
    Some(Texts {
        request,
        response,
        question: in_request(&columns.question)?.map(Said::There),
        answer: in_response(&columns.answer)?.map(Said::There),
        context,
        ground_truth,
        chat_history: None,
    })
}

/// What a format of its own says, beside the user's mapping.
#[derive(Default)]
struct Native<'o, 'a> {
    question: Option<Said<'o, 'a>>,
    answer: Option<Said<'o, 'a>>,
    chat_history: Option<(Node<'o, 'a>, usize)>,
}

fn chat<'o, 'a>(request: Node<'o, 'a>, response: Node<'o, 'a>) -> Native<'o, 'a> {
    let message = first_choice(response).and_then(|choice| choice.member("message"));
    let answer = message.and_then(|message| {
        let said = joined(content(message.member("content")), "\n");
        let refusal = || filled(message.member("refusal")?);
        let spoken = || filled(message.member("audio")?.member("transcript")?);
        said.or_else(|| refusal().or_else(spoken).map(Said::There))
    });
    Native { answer, ..dialogue(request.member("messages")) }
}

fn completion<'o, 'a>(request: Node<'o, 'a>, response: Node<'o, 'a>) -> Native<'o, 'a> {
    let question = request.member("prompt").filter(|prompt| prompt.text().is_some());
    let answer = first_choice(response).and_then(|choice| choice.member("text"));
    Native {
        question: question.map(Said::There),
        answer: answer.map(Said::There),
        chat_history: None,
    }
}

fn responses<'o, 'a>(request: Node<'o, 'a>, response: Node<'o, 'a>) -> Native<'o, 'a> {
    let input = request.member("input");
    let asked = match input.filter(|input| input.text().is_some()) {
        Some(text) => Native { question: Some(Said::There(text)), ..Native::default() },
        None => dialogue(input),
    };
    let output = response.member("output").into_iter().flat_map(Node::items);
    let said = output.filter(|item| is(*item, "type", "message"));
    let answer = joined(said.flat_map(|item| content(item.member("content"))), "\n");
    Native { answer, ..asked }
}

fn messages<'o, 'a>(request: Node<'o, 'a>, response: Node<'o, 'a>) -> Native<'o, 'a> {
    let blocks = response.member("content").into_iter().flat_map(Node::items);
    let texts = blocks.filter(|block| is(*block, "type", "text"));
    let answer = joined(texts.filter_map(|block| block.member("text")), "");
    Native { answer, ..dialogue(request.member("messages")) }
}

/// The last turn of the user, and how many turns come before it.
fn dialogue<'o, 'a>(turns: Option<Node<'o, 'a>>) -> Native<'o, 'a> {
    let asked = turns.and_then(|turns| {
        let of_user = turns.items().enumerate().filter(|(_, turn)| is(*turn, "role", "user"));
        of_user.last().map(|(at, turn)| (turns, at, turn))
    });
    let Some((turns, at, turn)) = asked else { return Native::default() };
    let question = joined(content(turn.member("content")), "\n");
    Native { question, answer: None, chat_history: Some((turns, at)) }
}

/// The choice with index 0, else the first.
fn first_choice<'o, 'a>(response: Node<'o, 'a>) -> Option<Node<'o, 'a>> {
    let choices = response.member("choices")?;
    let zero = |choice: &Node<'_, '_>| choice.member("index").and_then(Node::count) == Some(0);
    choices.items().find(zero).or_else(|| choices.items().next())
}

/// The texts of a message's content: the content itself, or those of its parts that are text.
fn content<'o, 'a>(content: Option<Node<'o, 'a>>) -> impl Iterator<Item = Node<'o, 'a>> {
    let itself = content.filter(|content| content.text().is_some());
    let parts = content.into_iter().flat_map(Node::items).filter_map(|part| {
        let of = |key: &str| part.member(key).filter(|text| text.text().is_some());
        Some(part)
            .filter(|part| part.text().is_some())
            .or_else(|| of("text"))
            .or_else(|| of("refusal"))
    });
    itself.into_iter().chain(parts)
}

/// Texts as one, without those that are empty.
fn joined<'o, 'a>(
    texts: impl Iterator<Item = Node<'o, 'a>>,
    between: &str,
) -> Option<Said<'o, 'a>> {
    let mut texts = texts.filter_map(filled);
    let first = texts.next()?;
    let Some(second) = texts.next() else { return Some(Said::There(first)) };
    let said: Vec<&str> = [first, second].into_iter().chain(texts).filter_map(Node::text).collect();
    Some(Said::Joined(said.join(between)))
}

/// A text that is not empty.
fn filled<'o, 'a>(node: Node<'o, 'a>) -> Option<Node<'o, 'a>> {
    node.text().is_some_and(|text| !text.is_empty()).then_some(node)
}

fn is(node: Node<'_, '_>, key: &str, value: &str) -> bool {
    node.member(key).and_then(Node::text) == Some(value)
}
