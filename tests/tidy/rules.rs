//! The rules on Rust sources.

use std::collections::HashMap;

use proc_macro2::Span;
use syn::visit::{self, Visit};

use super::paths::{Named, paths};
use super::tree::{Fault, Source};

/// The modules of `src/lib.rs` with the number of the paragraph that each stands in.
pub fn floors(lib: &str) -> HashMap<String, usize> {
    let mut floor = 0;
    let mut found = HashMap::new();
    for line in lib.lines().map(str::trim) {
        floor += usize::from(line.is_empty());
        let declared = line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("mod "));
        if let Some(name) = declared.and_then(|rest| rest.strip_suffix(';')) {
            found.insert(name.to_owned(), floor);
        }
    }
    found
}

/// The module path of a file below `src/`: `src/proxy/serve.rs` is `proxy/serve`.
pub fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    Some(inside.strip_suffix("/mod").unwrap_or(inside))
}

/// A module may name only modules of earlier paragraphs, and itself.
pub fn floor_faults(source: &Source, floors: &HashMap<String, usize>) -> Vec<Fault> {
    let Some(module) = module_of(&source.path).filter(|m| *m != "main" && *m != "lib") else {
        return Vec::new();
    };
    let room = module.split('/').next().unwrap_or(module);
    let depth = module.split('/').count();
    let check =
        |named: Named| floor_fault(source, floors, room, named.below_root(depth)?, named.line);
    paths(&source.text).into_iter().filter_map(check).collect()
}

fn floor_fault(
    source: &Source,
    floors: &HashMap<String, usize>,
    room: &str,
    target: &[String],
    line: usize,
) -> Option<Fault> {
    let target = target.first()?;
    let advice = match (floors.get(target), floors.get(room)) {
        _ if target == room => return None,
        (Some(theirs), Some(ours)) if theirs < ours => return None,
        (Some(_), Some(_)) => format!(
            "`{room}` may not see `{target}`: it does not stand in an earlier paragraph of \
             src/lib.rs; pass what is needed down from `app`, or move the shared noun to `domain`"
        ),
        (None, Some(_)) => format!("`{target}` is no module of src/lib.rs; declare it there"),
        (_, None) => format!("`{room}` is not declared in src/lib.rs; give it a paragraph there"),
    };
    Some(Fault::new(&source.path, line, "floors", advice))
}

/// A fence: which modules may name which crates.
pub struct Fence {
    /// The crate's name in Rust; a trailing `*` stands for any ending.
    pub krate: &'static str,
    /// The module paths that may; what lies below them may too.
    pub only_in: &'static [&'static str],
}

/// A fenced crate is named only behind its fence (unit tests excepted).
pub fn fence_faults(source: &Source, fences: &[Fence]) -> Vec<Fault> {
    let Some(module) = module_of(&source.path) else { return Vec::new() };
    let fault = |named: Named| {
        let fence = fences.iter().find(|fence| names_crate(&named, fence.krate))?;
        let advice = format!(
            "`{}` belongs only in {}; go through that room's own types instead",
            named.segments[0],
            fence.only_in.join(", ")
        );
        let allowed = named.in_tests || within(module, fence.only_in);
        (!allowed).then(|| Fault::new(&source.path, named.line, "fences", advice))
    };
    paths(&source.text).into_iter().filter_map(fault).collect()
}

fn names_crate(named: &Named, krate: &str) -> bool {
    let first = &named.segments[0];
    let same = match krate.strip_suffix('*') {
        Some(prefix) => first.starts_with(prefix),
        None => first == krate,
    };
    same && (named.imported || named.segments.len() > 1)
}

fn within(module: &str, folders: &[&str]) -> bool {
    folders.iter().any(|folder| {
        module.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Threads and tasks begin only in the modules named (unit tests excepted).
pub fn spawn_faults(source: &Source, only_in: &[&str]) -> Vec<Fault> {
    let Some(module) = module_of(&source.path) else { return Vec::new() };
    let fault = |named: Named| {
        let allowed = named.in_tests || within(module, only_in) || !is_spawn(&named.segments);
        let advice = format!(
            "`{}` outside {}: what is spawned elsewhere nobody waits for at shutdown",
            named.segments.join("::"),
            only_in.join(", ")
        );
        (!allowed).then(|| Fault::new(&source.path, named.line, "spawn", advice))
    };
    paths(&source.text).into_iter().filter_map(fault).collect()
}

fn is_spawn(segments: &[String]) -> bool {
    let ends = |owner: &str, name: &str| {
        let owned = segments.len() >= 2 && segments[segments.len() - 2] == owner;
        owned && segments.last().is_some_and(|last| last.starts_with(name))
    };
    let builder = segments.windows(2).any(|pair| pair == ["thread", "Builder"]);
    builder || ends("thread", "spawn") || ends("tokio", "spawn") || ends("task", "spawn")
}

/// `Exchange` holds unredacted text: it must not be made serializable in any way.
pub fn serialize_faults(source: &Source) -> Vec<Fault> {
    let Ok(file) = syn::parse_file(&source.text) else { return Vec::new() };
    let mut visitor = Serializable { spans: Vec::new() };
    visitor.visit_file(&file);
    let advice = "`Exchange` holds unredacted text and must never be `Serialize`; \
                  what leaves the process is a `Record`, made by the redactor";
    let fault = |span: Span| Fault::new(&source.path, span.start().line, "serialize", advice);
    visitor.spans.into_iter().map(fault).collect()
}

struct Serializable {
    spans: Vec<Span>,
}

impl<'ast> Visit<'ast> for Serializable {
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        if item.ident == "Exchange" && item.attrs.iter().any(|a| mentions(a, "Serialize")) {
            self.spans.push(item.ident.span());
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let subject = match &*item.self_ty {
            syn::Type::Reference(reference) => &*reference.elem,
            other => other,
        };
        let of = item.trait_.as_ref().map(|(_, path, _)| path);
        let named = |path: &syn::Path, name: &str| path.segments.iter().any(|s| s.ident == name);
        let is_exchange = matches!(subject, syn::Type::Path(p) if named(&p.path, "Exchange"));
        if is_exchange && of.is_some_and(|path| named(path, "Serialize")) {
            self.spans.push(item.impl_token.span);
        }
    }
}

/// True if the arguments of an attribute (`derive`, `cfg_attr`) name `word`.
fn mentions(attribute: &syn::Attribute, word: &str) -> bool {
    let arguments = attribute.meta.require_list().map(|list| list.tokens.to_string());
    arguments.is_ok_and(|text| text.split(|c: char| !c.is_alphanumeric()).any(|w| w == word))
}

/// One function and its length.
pub struct Function {
    /// Its name.
    pub name: String,
    /// Line of `fn`.
    pub line: usize,
    /// Lines from `fn` to the closing brace.
    pub lines: usize,
}

/// Every function of a file, tests included.
pub fn functions(source: &Source) -> Vec<Function> {
    let Ok(file) = syn::parse_file(&source.text) else { return Vec::new() };
    let mut visitor = Functions { found: Vec::new() };
    visitor.visit_file(&file);
    visitor.found
}

struct Functions {
    found: Vec<Function>,
}

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let line = signature.fn_token.span.start().line;
        let lines = block.brace_token.span.close().end().line + 1 - line;
        self.found.push(Function { name: signature.ident.to_string(), line, lines });
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

/// No function is longer than `lines_max`.
pub fn length_faults(source: &Source, lines_max: usize) -> Vec<Fault> {
    let long = functions(source).into_iter().filter(|function| function.lines > lines_max);
    let fault = |function: Function| {
        let Function { name, line, lines } = function;
        let advice = format!("`{name}` has {lines} lines, {lines_max} at most; name its parts");
        Fault::new(&source.path, line, "length", advice)
    };
    long.map(fault).collect()
}

/// A file is no longer than `lines_max`, and opens with what it is for.
pub fn file_faults(source: &Source, lines_max: usize) -> Vec<Fault> {
    let mut faults = Vec::new();
    let count = source.text.lines().count();
    if count > lines_max {
        let advice = format!("{count} lines, {lines_max} at most; make a folder of the same name");
        faults.push(Fault::new(&source.path, lines_max, "length", advice));
    }
    let first = source.text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
    if !first.starts_with("//!") {
        let advice = "the file does not open with a `//!` paragraph; say what it is for";
        faults.push(Fault::new(&source.path, 1, "opening", advice));
    }
    faults
}

/// No file and no module bears a name that says nothing.
pub fn name_faults(source: &Source, forbidden: &[&str]) -> Vec<Fault> {
    let advice = |name: &str| format!("`{name}` says nothing; name it after what it holds");
    let of_path = source.path.split('/').map(|part| part.split('.').next().unwrap_or(part));
    let of_path = of_path.map(|name| (1, name));
    let of_text = source.lines().filter_map(|(number, line)| {
        let rest = line.trim().trim_start_matches("pub ").strip_prefix("mod ")?;
        Some((number, rest.trim_end_matches([';', '{', ' '])))
    });
    let bad = of_path.chain(of_text).filter(|(_, name)| forbidden.contains(name));
    bad.map(|(line, name)| Fault::new(&source.path, line, "names", advice(name))).collect()
}
