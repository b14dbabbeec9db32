//! The paths (`crate::x::y`, `tokio::spawn`) that a Rust file names, read from its tokens: so that
//! macros, attributes and nested `use` groups are seen too, and comments and strings are not.

use std::iter::Peekable;
use std::str::FromStr;
use std::vec::IntoIter;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A path as it stands in the source, `use` groups written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its segments.
    pub segments: Vec<String>,
    /// Line, from 1.
    pub line: usize,
    /// It stands after `use` or `extern crate`.
    pub imported: bool,
    /// Inline modules around it.
    pub depth: usize,
    /// It stands in a `#[cfg(test)]` module.
    pub in_tests: bool,
}

impl Named {
    /// The segments from the crate's root, for a file that is `file_depth` modules below it:
    /// `crate::x` and as many `super::` as lead up to the root. `None` for any other path.
    pub fn below_root(&self, file_depth: usize) -> Option<&[String]> {
        if self.segments.first().is_some_and(|first| first == "crate") {
            return self.segments.get(1..);
        }
        let ups = self.segments.iter().take_while(|segment| *segment == "super").count();
        let depth = file_depth + self.depth;
        (ups > 0 && ups >= depth).then(|| self.segments.get(ups..)).flatten()
    }
}

/// Every path of a file; a file that does not lex is somebody else's error, and names nothing.
pub fn paths(text: &str) -> Vec<Named> {
    let mut found = Vec::new();
    if let Ok(tokens) = TokenStream::from_str(text) {
        let top = Place { depth: 0, in_tests: false };
        scan(tokens, top, &mut found);
    }
    found
}

#[derive(Clone, Copy)]
struct Place {
    depth: usize,
    in_tests: bool,
}

type Tokens = Peekable<IntoIter<TokenTree>>;

fn scan(stream: TokenStream, place: Place, found: &mut Vec<Named>) {
    let mut tokens = stream.into_iter().collect::<Vec<_>>().into_iter().peekable();
    let (mut imported, mut module, mut test_next, mut after_dot) = (false, false, false, false);
    while let Some(token) = tokens.next() {
        let dotted = std::mem::take(&mut after_dot);
        match token {
            TokenTree::Ident(ident) if module => {
                drop(ident);
            }
            TokenTree::Ident(ident) if ident == "use" || ident == "extern" => imported = true,
            TokenTree::Ident(ident) if ident == "mod" => module = true,
            TokenTree::Ident(ident) if !dotted => {
                let line = ident.span().start().line;
                let start = Start { line, imported, place };
                follow(vec![ident.to_string()], &start, &mut tokens, found);
            }
            TokenTree::Group(group) if imported && group.delimiter() == Delimiter::Brace => {
                let line = group.span().start().line;
                expand(&[], &Start { line, imported, place }, &group, found);
            }
            TokenTree::Group(group) => {
                test_next |= is_cfg_test(&group);
                let inside = inner_place(place, &group, &mut module, &mut test_next);
                scan(group.stream(), inside, found);
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => {
                (imported, module, test_next) = (false, false, false);
            }
            TokenTree::Punct(punct) => after_dot = punct.as_char() == '.',
            TokenTree::Ident(_) | TokenTree::Literal(_) => {}
        }
    }
}

fn inner_place(place: Place, group: &Group, module: &mut bool, test_next: &mut bool) -> Place {
    if group.delimiter() != Delimiter::Brace {
        return place;
    }
    let (module, tests) = (std::mem::take(module), std::mem::take(test_next));
    Place {
        depth: place.depth + usize::from(module),
        in_tests: place.in_tests || (module && tests),
    }
}

fn is_cfg_test(group: &Group) -> bool {
    group.delimiter() == Delimiter::Bracket
        && group.stream().to_string().replace(' ', "").starts_with("cfg(test")
}

struct Start {
    line: usize,
    imported: bool,
    place: Place,
}

/// Reads on after a first segment; records the path, or each path of a group.
fn follow(mut segments: Vec<String>, start: &Start, rest: &mut Tokens, found: &mut Vec<Named>) {
    while skip_colons(rest) {
        match rest.peek() {
            Some(TokenTree::Ident(ident)) => segments.push(ident.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                expand(&segments, start, &group.clone(), found);
                rest.next();
                return;
            }
            Some(TokenTree::Punct(star)) if star.as_char() == '*' => segments.push("*".to_owned()),
            _ => break,
        }
        rest.next();
    }
    found.push(Named {
        segments,
        line: start.line,
        imported: start.imported,
        depth: start.place.depth,
        in_tests: start.place.in_tests,
    });
}

/// Writes a `use` group out: each of its members after the prefix.
fn expand(prefix: &[String], start: &Start, group: &Group, found: &mut Vec<Named>) {
    let mut tokens = group.stream().into_iter().collect::<Vec<_>>().into_iter().peekable();
    while let Some(token) = tokens.next() {
        let TokenTree::Ident(ident) = token else { continue };
        if ident == "as" {
            tokens.next();
            continue;
        }
        let mut segments = prefix.to_vec();
        if ident != "self" {
            segments.push(ident.to_string());
        }
        let line = ident.span().start().line;
        follow(segments, &Start { line, ..*start }, &mut tokens, found);
    }
}

/// Steps over `::`; false, and nothing stepped over, where there is none.
fn skip_colons(tokens: &mut Tokens) -> bool {
    let mut ahead = tokens.clone();
    let colon = |t: Option<TokenTree>| matches!(t, Some(TokenTree::Punct(p)) if p.as_char() == ':');
    let found = colon(ahead.next()) && colon(ahead.next());
    if found {
        *tokens = ahead;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Vec<String> {
        paths(text).iter().map(|named| named.segments.join("::")).collect()
    }

    #[test]
    fn groups_are_written_out_and_comments_are_not_read() {
        let text =
            "use crate::{domain::{Usage, ids}, proxy}; // crate::nothing\nuse {hyper::Body};";
        let found = written(text);
        for path in ["crate::domain::Usage", "crate::domain::ids", "crate::proxy", "hyper::Body"] {
            assert!(found.contains(&path.to_owned()), "{path} in {found:?}");
        }
        assert!(!found.iter().any(|path| path.contains("nothing")));
    }

    #[test]
    fn macros_and_attributes_are_read_and_methods_are_not() {
        let found = written("fn f() { log!(\"{}\", crate::app::x()); a.crate_like(); b.spawn(); }");
        assert!(found.contains(&"crate::app::x".to_owned()), "{found:?}");
        assert!(!found.contains(&"spawn".to_owned()), "a method is no path: {found:?}");
    }

    #[test]
    fn supers_that_reach_the_root_count_as_crate() {
        let text = "use super::app; mod inner { use super::super::app; use super::ours; }";
        let roots: Vec<_> =
            paths(text).iter().filter_map(|n| n.below_root(1).map(<[String]>::to_vec)).collect();
        assert_eq!(roots, [["app"], ["app"]]);
    }

    #[test]
    fn test_modules_are_told_apart() {
        let text = "fn a() { rand::random() } #[cfg(test)] mod tests { fn b() { rand::random() } }";
        let found: Vec<bool> =
            paths(text).iter().filter(|n| n.segments[0] == "rand").map(|n| n.in_tests).collect();
        assert_eq!(found, [false, true]);
    }
}
