//! The judge: a language model that is asked one question at a time, and what it says.

use std::future::Future;
use std::pin::Pin;

use serde_json::Value;

use crate::domain::ScoreError;

mod http;
mod wire;

pub use http::{HttpJudge, JudgeFault};

/// A question to a judge.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Who the judge is and what it must never do.
    pub system: String,
    /// The criterion, the material, and the form of the answer.
    pub user: String,
    /// The JSON schema of the answer, where the judge can be held to one.
    pub schema: Value,
}

impl Ask {
    /// Tokens that the prompt has at most, without counting: three bytes a token is less than any
    /// tokenizer needs for text, and counts Asian scripts too high rather than too low.
    pub fn tokens_estimated(&self) -> u64 {
        ((self.system.len() + self.user.len()) / 3 + 64) as u64
    }
}

/// What a judge said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its text, or why there is none.
    pub text: Result<String, ScoreError>,
    /// Prompt tokens, where it reports them.
    pub input: Option<u64>,
    /// Completion tokens, where it reports them.
    pub output: Option<u64>,
}

impl Reply {
    /// No answer came.
    pub fn failed(error: ScoreError) -> Self {
        Self { text: Err(error), input: None, output: None }
    }
}

/// A reply on its way.
pub type Replying<'a> = Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;

/// Whoever can be asked. A judge keeps its own limits and tries again by itself; it answers each
/// question once, in bounded time.
pub trait Judge: Send + Sync {
    /// Asks one question.
    fn ask<'a>(&'a self, ask: &'a Ask) -> Replying<'a>;
}
