//! What a user typed, as a query that SQLite's full-text search takes.

use rusqlite::{Connection, params};

use super::StoreError;
use super::window::Window;

/// Words that one search may hold.
const WORDS_MAX: usize = 32;

/// All words must be there; a text in double quotes must stand as it is; a word that ends with `*` may
/// go on. Every word is quoted, so nothing that was typed is taken for syntax. `None` without a word.
pub(super) fn words(text: &str) -> Option<String> {
    let mut query = Vec::new();
    // Every second part stood between quotes.
    for (index, part) in text.split('"').enumerate() {
        if index % 2 == 1 {
            query.extend(quoted(part, false));
        } else {
            let words = part.split_whitespace();
            query.extend(
                words.filter_map(|word| quoted(word.trim_end_matches('*'), word.ends_with('*'))),
            );
        }
    }
    query.truncate(WORDS_MAX);
    (!query.is_empty()).then(|| query.join(" "))
}

/// Whether more than `few` rows of the window hold these words, which [`words`] made.
pub(super) fn is_frequent(
    db: &Connection,
    words: &str,
    window: Window,
    few: i64,
) -> Result<bool, StoreError> {
    let mut find = db.prepare_cached(
        "SELECT 1 FROM search WHERE search MATCH ? AND rowid >= ? AND rowid < ? LIMIT 1 OFFSET ?",
    )?;
    let (from, to) = window.seqs();
    Ok(find.exists(params![words, from, to, few])?)
}

/// Whether one row holds them.
pub(super) fn holds(db: &Connection, words: &str, seq: i64) -> Result<bool, StoreError> {
    let mut find = db.prepare_cached("SELECT 1 FROM search WHERE search MATCH ? AND rowid = ?")?;
    Ok(find.exists(params![words, seq])?)
}

fn quoted(text: &str, goes_on: bool) -> Option<String> {
    let text = text.replace('\0', " ");
    // What holds no letter and no digit is no word for the index either.
    let star = if goes_on { " *" } else { "" };
    text.chars().any(char::is_alphanumeric).then(|| format!("\"{text}\"{star}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_typed_is_syntax() {
        for (typed, query) in [
            ("reset password", Some(r#""reset" "password""#)),
            (r#"say "good morning" NOT x"#, Some(r#""say" "good morning" "NOT" "x""#)),
            ("pass* ***", Some(r#""pass" *"#)),
            (r#"a" OR question:b --"#, Some(r#""a" " OR question:b --""#)),
            ("  \" \" - ( ) ^", None),
            ("", None),
        ] {
            assert_eq!(words(typed).as_deref(), query, "{typed}");
        }
    }
}
