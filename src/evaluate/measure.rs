//! Criteria that need no model, each 0 to 1, computed where they apply.

use std::collections::{HashMap, HashSet};

use super::case::{Case, Input};
use crate::domain::Criterion;

/// Words of a text that are looked at: the measures are linear but for ROUGE-L, which is bounded so.
const WORDS_MAX: usize = 4096;

/// The value of `criterion` for `case`; `None` where it does not apply.
pub(super) fn measure(criterion: Criterion, case: &Case) -> Option<f64> {
    let answer = case.text(Input::Answer);
    let texts = |other: Input| Some((answer.clone()?, case.text(other)?));
    match criterion {
        Criterion::F1 => texts(Input::GroundTruth).map(|(answer, truth)| f1(&answer, &truth)),
        Criterion::Bleu => texts(Input::GroundTruth).map(|(answer, truth)| bleu(&answer, &truth)),
        Criterion::RougeL => {
            texts(Input::GroundTruth).map(|(answer, truth)| rouge_l(&answer, &truth))
        }
        Criterion::ContextOverlap => {
            texts(Input::Context).map(|(answer, text)| overlap(&answer, &text))
        }
        Criterion::Emptiness => case.text(Input::Question).map(|_| truth(answer.is_none())),
        Criterion::Refusal => answer.map(|answer| truth(refuses(&answer))),
        Criterion::Repetition => answer.and_then(|answer| repetition(&answer)),
        Criterion::JsonValidity => answer.and_then(|answer| json_validity(&answer)),
        _ => None,
    }
}

fn truth(is: bool) -> f64 {
    f64::from(u8::from(is))
}

/// The F1 of SQuAD's evaluation script (Rajpurkar et al., 2016): lower case, no ASCII punctuation, no
/// articles, then the harmonic mean of precision and recall over the words in common.
fn f1(answer: &str, truth: &str) -> f64 {
    let (answer, truth) = (squad_words(answer), squad_words(truth));
    let common = in_common(&answer, &truth, 1) as f64;
    if common == 0.0 {
        return 0.0;
    }
    harmonic(common / answer.len() as f64, common / truth.len() as f64)
}

fn squad_words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let plain: String = lower.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let words = plain.split_whitespace().filter(|word| !matches!(*word, "a" | "an" | "the"));
    words.take(WORDS_MAX).map(str::to_owned).collect()
}

fn harmonic(precision: f64, recall: f64) -> f64 {
    match precision + recall {
        sum if sum > 0.0 => 2.0 * precision * recall / sum,
        _ => 0.0,
    }
}

/// How many runs of `n` words both have, each counted as often as in the poorer one.
fn in_common(one: &[String], other: &[String], n: usize) -> usize {
    let mut counts: HashMap<&[String], usize> = HashMap::new();
    for gram in other.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    let take = |gram: &&[String]| {
        let left = counts.get_mut(*gram).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    };
    one.windows(n).filter(take).count()
}

/// Sentence BLEU-4 (Papineni et al., 2002) as sacreBLEU computes it: its 13a words, lower case kept,
/// exponential smoothing, effective order; from 0 to 1 instead of 0 to 100.
fn bleu(answer: &str, truth: &str) -> f64 {
    let (answer, truth) = (words_13a(answer), words_13a(truth));
    if answer.is_empty() || truth.is_empty() {
        return 0.0;
    }
    let (mut log_sum, mut orders, mut smooth, mut any) = (0.0, 0_u32, 1.0_f64, false);
    for n in 1..=4_usize {
        let total = (answer.len() + 1).saturating_sub(n);
        if total == 0 {
            break;
        }
        orders = n as u32;
        let matches = in_common(&answer, &truth, n);
        any |= matches > 0;
        let precision = if matches == 0 {
            smooth *= 2.0;
            1.0 / (smooth * total as f64)
        } else {
            matches as f64 / total as f64
        };
        log_sum += precision.ln();
    }
    if !any {
        return 0.0;
    }
    let (ours, theirs) = (answer.len() as f64, truth.len() as f64);
    let brevity = if ours < theirs { (1.0 - theirs / ours).exp() } else { 1.0 };
    brevity * (log_sum / f64::from(orders)).exp()
}

/// The words of mteval-v13a: punctuation stands alone, but for points and commas within numbers and
/// dashes after words.
fn words_13a(text: &str) -> Vec<String> {
    let text = text.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    let text = text.replace("&quot;", "\"").replace("&amp;", "&");
    let text = text.replace("&lt;", "<").replace("&gt;", ">");
    let chars: Vec<char> = format!(" {text} ").chars().collect();
    let mut spaced = String::with_capacity(text.len() * 2);
    for (at, c) in chars.iter().copied().enumerate() {
        let before = at.checked_sub(1).and_then(|at| chars.get(at)).copied().unwrap_or(' ');
        let after = chars.get(at + 1).copied().unwrap_or(' ');
        let alone = match c {
            '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/' => c != ' ',
            '.' | ',' => !before.is_ascii_digit() || !after.is_ascii_digit(),
            '-' => before.is_ascii_digit(),
            _ => false,
        };
        if alone {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    spaced.split_whitespace().take(WORDS_MAX).map(str::to_owned).collect()
}

/// ROUGE-L (Lin, 2004) as Google's rouge-score computes it without a stemmer: lower case, letters and
/// digits, the F-measure over the longest common subsequence.
fn rouge_l(answer: &str, truth: &str) -> f64 {
    let (answer, truth) = (ascii_words(answer), ascii_words(truth));
    if answer.is_empty() || truth.is_empty() {
        return 0.0;
    }
    let common = longest_common(&answer, &truth) as f64;
    harmonic(common / answer.len() as f64, common / truth.len() as f64)
}

fn ascii_words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !matches!(c, 'a'..='z' | '0'..='9'));
    words.filter(|word| !word.is_empty()).take(WORDS_MAX).map(str::to_owned).collect()
}

/// The length of the longest common subsequence, in memory of one row.
fn longest_common(one: &[String], other: &[String]) -> usize {
    let mut row = vec![0_usize; other.len() + 1];
    for word in one {
        let mut diagonal = 0;
        for (at, candidate) in other.iter().enumerate() {
            let above = row[at + 1];
            row[at + 1] = if word == candidate { diagonal + 1 } else { above.max(row[at]) };
            diagonal = above;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// The share of the answer's distinct words of three letters or more that occur in the context.
fn overlap(answer: &str, context: &str) -> f64 {
    let words = |text: &str| -> HashSet<String> {
        let lower = text.to_lowercase();
        let words = lower.split(|c: char| !c.is_alphanumeric());
        words.filter(|word| word.chars().count() > 2).map(str::to_owned).collect()
    };
    let (answer, context) = (words(answer), words(context));
    match answer.len() {
        0 => 0.0,
        n => answer.intersection(&context).count() as f64 / n as f64,
    }
}

/// How answers that decline begin, in lower case.
const REFUSALS: &[&str] = &[
    "i can't",
    "i cannot",
    "i can not",
    "i'm sorry",
    "i am sorry",
    "sorry, ",
    "i'm unable",
    "i am unable",
    "i'm not able",
    "i am not able",
    "i won't",
    "i will not",
    "as an ai",
    "as a language model",
    "i don't know",
    "i do not know",
    "i don't have",
    "i do not have",
    "unfortunately, i",
    "es tut mir leid",
    "ich kann nicht",
    "je suis désolé",
    "lo siento",
    "申し訳",
    "抱歉",
];

fn refuses(answer: &str) -> bool {
    let begins = answer.trim_start().to_lowercase().replace('\u{2019}', "'");
    REFUSALS.iter().any(|refusal| begins.starts_with(refusal))
}

/// The share of the runs of three words that repeat an earlier one; `None` below six words.
fn repetition(answer: &str) -> Option<f64> {
    let words: Vec<&str> = answer.split_whitespace().take(WORDS_MAX).collect();
    if words.len() < 6 {
        return None;
    }
    let runs = words.len() - 2;
    let distinct: HashSet<&[&str]> = words.windows(3).collect();
    Some((runs - distinct.len()) as f64 / runs as f64)
}

/// 1 or 0 for an answer that begins and ends like a JSON object or list (a code block around it is
/// allowed); `None` for any other.
fn json_validity(answer: &str) -> Option<f64> {
    let text = answer.trim();
    let fenced = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    let text = fenced.map_or(text, |inside| inside.strip_prefix("json").unwrap_or(inside).trim());
    let begins = text.starts_with('{') || text.starts_with("[{") || text.starts_with("[\"");
    begins.then(|| truth(serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Reference {
        answer: String,
        ground_truth: String,
        f1: f64,
        bleu: f64,
        rouge_l: f64,
    }

    /// Made by tests/peers/measures.py with the reference implementations.
    const REFERENCES: &str = include_str!("../../tests/fixtures/evaluate/measures.json");

    #[test]
    fn the_measures_are_those_of_the_reference_implementations() {
        let references: Vec<Reference> = serde_json::from_str(REFERENCES).expect("references");
        assert!(references.len() > 70);
        for Reference { answer, ground_truth, f1: f, bleu: b, rouge_l: r } in references {
            let ours = [
                f1(&answer, &ground_truth),
                bleu(&answer, &ground_truth),
                rouge_l(&answer, &ground_truth),
            ];
            for (name, ours, theirs) in
                [("f1", ours[0], f), ("bleu", ours[1], b), ("rouge", ours[2], r)]
            {
                assert!(
                    (ours - theirs).abs() < 1e-9,
                    "{name} of {answer:?} and {ground_truth:?}: {ours}, not {theirs}"
                );
            }
        }
    }

    #[test]
    fn what_shows_without_a_ground_truth() {
        assert!(refuses("I’m sorry, but I can't help with that."));
        assert!(!refuses("The tent is dry. I cannot say more."));
        assert_eq!(repetition("one two three"), None);
        assert_eq!(repetition("a b c d e f g"), Some(0.0));
        assert!(repetition(&"no no no ".repeat(20)).is_some_and(|share| share > 0.9));
        assert_eq!(json_validity("{\"a\": [1, 2]}"), Some(1.0));
        assert_eq!(json_validity("```json\n{\"a\": 1}\n```"), Some(1.0));
        assert_eq!(json_validity("{\"a\": 1"), Some(0.0));
        assert_eq!(json_validity("[see above] it is dry"), None);
        assert!((overlap("Rain stays out", "the rain is out there") - 2.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn large_texts_are_bounded() {
        let text = "word and more ".repeat(200_000);
        let before = crate::drain::worked_ns();
        for value in [f1(&text, &text), bleu(&text, &text), rouge_l(&text, &text)] {
            assert!((value - 1.0).abs() < 1e-9);
        }
        assert!(repetition(&text).is_some() && overlap(&text, &text) > 0.99);
        let worked = std::time::Duration::from_nanos(crate::drain::worked_ns() - before);
        assert!(worked < std::time::Duration::from_secs(20), "{worked:?}");
    }
}
