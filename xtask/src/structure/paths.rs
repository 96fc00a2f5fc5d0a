//! Paths: what they stand for, and all that a module mentions.
//!
//! A path stands for the item where it is defined, however many re-exports and globs lie between. Methods and
//! fields are not paths: to call one is no mention of its file, but to name its type or trait is.

use std::collections::{HashMap, HashSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Item, Visibility};

use super::modules::{Crate, FileId, ModuleId, Name, attributes, imports, only_for_tests};

/// What a path stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Named {
    /// A module.
    Module(ModuleId),
    /// An item or a part of it, by its index in [`Crate::definitions`].
    Item(usize),
    /// A name that no source in this module's file shows, because a macro makes it there.
    Made(FileId),
}

/// A path that a module writes.
pub struct Mention {
    /// The path as written.
    pub path: String,
    /// The line where it begins, from 1.
    pub line: usize,
    /// The files that define what it stands for.
    pub files: Vec<FileId>,
    /// Whether it is a re-export: `pub use` or `pub(…) use`.
    pub reexport: bool,
}

/// The names on the way of a resolution, so that imports that name each other end it.
type Seen = HashSet<(ModuleId, String)>;

impl Crate {
    /// What `path`, written in the module `from`, stands for; nothing where it leads out of the crate.
    pub fn resolve(&self, from: ModuleId, path: &[String]) -> Vec<Named> {
        self.resolve_with(from, path, &mut Seen::new())
    }

    /// The file that defines it; a module alone is no item of any file.
    pub fn file_of(&self, named: Named) -> Option<FileId> {
        match named {
            Named::Module(_) => None,
            Named::Item(id) => Some(self.definitions[id].file),
            Named::Made(file) => Some(file),
        }
    }

    fn resolve_with(&self, from: ModuleId, path: &[String], seen: &mut Seen) -> Vec<Named> {
        let Some((first, mut rest)) = path.split_first() else { return Vec::new() };
        let mut here = match first.as_str() {
            "crate" | "$crate" => vec![Named::Module(0)],
            "self" | "super" => {
                let mut module = from;
                let mut word = first.as_str();
                loop {
                    if word == "super" {
                        module = self.modules[module].parent.unwrap_or(0);
                    }
                    match rest.split_first() {
                        Some((next, after)) if next == "super" => (word, rest) = ("super", after),
                        _ => break,
                    }
                }
                vec![Named::Module(module)]
            }
            _ => self.lookup(from, first, seen),
        };
        for name in rest {
            let modules: Vec<_> = here.iter().filter_map(|t| if let Named::Module(m) = t { Some(*m) } else { None }).collect();
            if modules.is_empty() {
                break; // Variants and associated items lie where their type does.
            }
            here = Vec::new();
            for module in modules {
                let found = self.lookup(module, name, seen);
                let made = found.is_empty() && !self.leads_out(module, name);
                here.extend(found);
                here.extend(made.then_some(Named::Made(self.modules[module].file)));
            }
        }
        here.dedup();
        here
    }

    /// What `name` stands for in `module` itself.
    fn lookup(&self, module: ModuleId, name: &str, seen: &mut Seen) -> Vec<Named> {
        if !seen.insert((module, name.to_owned())) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for what in self.modules[module].names.get(name).into_iter().flatten() {
            match what {
                Name::Module(child) => found.push(Named::Module(*child)),
                Name::Item(item) => found.push(Named::Item(*item)),
                Name::Import(path) => found.extend(self.resolve_with(module, path, seen)),
            }
        }
        if found.is_empty() {
            for glob in &self.modules[module].globs {
                for named in self.resolve_with(module, glob, &mut seen.clone()) {
                    if let Named::Module(source) = named {
                        found.extend(self.lookup(source, name, seen));
                    }
                }
            }
        }
        seen.remove(&(module, name.to_owned()));
        found
    }

    /// Whether `name` is imported into `module` from outside of the crate.
    fn leads_out(&self, module: ModuleId, name: &str) -> bool {
        self.modules[module].names.contains_key(name)
    }

    /// All that `module` mentions outside of its own file.
    pub fn mentions(&self, module: ModuleId) -> Vec<Mention> {
        let mut mentions = Mentions { source: self, module, scopes: vec![Scope::default()], found: Vec::new() };
        for item in &self.modules[module].items {
            mentions.visit_item(item);
        }
        mentions.found
    }
}

/// What a function binds and imports for itself.
#[derive(Default)]
struct Scope {
    variables: HashSet<String>,
    imports: HashMap<String, Vec<String>>,
}

impl<'ast> Visit<'ast> for Scope {
    fn visit_pat_ident(&mut self, pattern: &'ast syn::PatIdent) {
        let name = pattern.ident.to_string();
        if !name.starts_with(char::is_uppercase) {
            self.variables.insert(name);
        }
        visit::visit_pat_ident(self, pattern);
    }

    fn visit_item_use(&mut self, import: &'ast syn::ItemUse) {
        self.imports.extend(imports(&import.tree).into_iter().filter_map(|leaf| Some((leaf.name?, leaf.path))));
    }
}

struct Mentions<'c> {
    source: &'c Crate,
    module: ModuleId,
    scopes: Vec<Scope>,
    found: Vec<Mention>,
}

impl Mentions<'_> {
    fn within<'ast>(&mut self, scan: impl FnOnce(&mut Scope), visit: impl FnOnce(&mut Self))
    where
        Self: Visit<'ast>,
    {
        let mut scope = Scope::default();
        scan(&mut scope);
        self.scopes.push(scope);
        visit(self);
        self.scopes.pop();
    }

    /// Notes the path if it stands for something in another file.
    fn note(&mut self, path: &[String], line: usize, reexport: bool) {
        let Some(first) = path.first() else { return };
        if path.len() == 1 && self.scopes.iter().any(|scope| scope.variables.contains(first)) {
            return;
        }
        let imported = self.scopes.iter().rev().find_map(|scope| scope.imports.get(first));
        let named = match imported {
            Some(import) if !reexport && import[..] != path[..] => {
                self.source.resolve(self.module, &[import, &path[1..]].concat())
            }
            _ => self.source.resolve(self.module, path),
        };
        self.note_named(path, line, reexport, &named);
    }

    fn note_named(&mut self, path: &[String], line: usize, reexport: bool, named: &[Named]) {
        let own = self.source.modules[self.module].file;
        let mut files: Vec<_> = named.iter().filter_map(|t| self.source.file_of(*t)).filter(|f| *f != own).collect();
        files.sort_unstable();
        files.dedup();
        if !files.is_empty() {
            self.found.push(Mention { path: path.join("::"), line, files, reexport });
        }
    }

    /// Notes a macro, which is also known below the modules that define it before they declare others.
    fn note_macro(&mut self, path: &syn::Path) {
        let (names, line) = segments(path);
        if let [name] = &names[..] {
            let ancestors = std::iter::successors(Some(self.module), |&m| self.source.modules[m].parent);
            let by_text = ancestors.flat_map(|m| self.source.modules[m].names.get(name).into_iter().flatten()).find_map(|n| {
                if let Name::Item(id) = n { self.source.definitions[*id].is_macro.then_some(Named::Item(*id)) } else { None }
            });
            if let Some(named) = by_text {
                return self.note_named(&names, line, false, &[named]);
            }
        }
        self.note(&names, line, false);
    }

    /// Notes the paths among tokens that nobody parsed. Of single names only those that `single` allows.
    fn note_tokens(&mut self, tokens: TokenStream, single: bool) {
        let trees: Vec<_> = tokens.into_iter().collect();
        let mark = |at: usize, mark: char| matches!(trees.get(at), Some(TokenTree::Punct(p)) if p.as_char() == mark);
        let mut at = 0;
        while at < trees.len() {
            match &trees[at] {
                TokenTree::Group(group) => {
                    self.note_tokens(group.stream(), single);
                    at += 1;
                }
                TokenTree::Ident(first) => {
                    let start = at;
                    let mut path = vec![first.to_string()];
                    at += 1;
                    while mark(at, ':')
                        && mark(at + 1, ':')
                        && let Some(TokenTree::Ident(next)) = trees.get(at + 2)
                    {
                        path.push(next.to_string());
                        at += 3;
                    }
                    let member = start > 0 && mark(start - 1, '.') && !(start > 1 && mark(start - 2, '.'));
                    let lifetime = start > 0 && mark(start - 1, '\'');
                    let label = path.len() == 1 && mark(at, ':');
                    if !member && !lifetime && !label && (path.len() > 1 || single) {
                        self.note(&path, first.span().start().line, false);
                    }
                }
                // Attributes name functions in text: `#[serde(with = "crate::a::b")]`.
                TokenTree::Literal(literal) => {
                    if !single
                        && literal.to_string().contains("::")
                        && let Ok(path) = syn::parse_str::<syn::LitStr>(&literal.to_string()).and_then(|t| t.parse::<syn::Path>())
                    {
                        self.note(&segments(&path).0, literal.span().start().line, false);
                    }
                    at += 1;
                }
                TokenTree::Punct(_) => at += 1,
            }
        }
    }
}

impl<'ast> Visit<'ast> for Mentions<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !only_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !only_for_tests(&function.attrs) {
            self.within(|scope| scope.visit_impl_item_fn(function), |mentions| visit::visit_impl_item_fn(mentions, function));
        }
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        self.within(|scope| scope.visit_trait_item_fn(function), |mentions| visit::visit_trait_item_fn(mentions, function));
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.within(|scope| scope.visit_item_fn(function), |mentions| visit::visit_item_fn(mentions, function));
    }

    fn visit_item_use(&mut self, import: &'ast syn::ItemUse) {
        let reexport = !matches!(import.vis, Visibility::Inherited);
        for leaf in imports(&import.tree) {
            self.note(&leaf.path, leaf.line, reexport);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let (names, line) = segments(path);
            self.note(&names, line, false);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.note_macro(&call.path);
        self.note_tokens(call.tokens.clone(), true);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.note_tokens(list.tokens.clone(), false);
        }
    }

    /// `pub(in …)` names a module that the item lies in, no item of it.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

/// The names of a path without its generic arguments, and the line where it begins.
fn segments(path: &syn::Path) -> (Vec<String>, usize) {
    let line = path.segments.first().map_or(0, |segment| segment.ident.span().start().line);
    (path.segments.iter().map(|segment| segment.ident.to_string()).collect(), line)
}
