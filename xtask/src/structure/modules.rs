//! The modules of a crate, read from its sources: which file each lies in, what it defines, what it imports.
//!
//! Left out is what exists only in tests: `#[cfg(test)]`, `#[cfg(any(test, feature = "testing"))]` and
//! `#[test]`, on a module, an item or (inside a file) the file itself.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cargo_metadata::{Metadata, TargetKind};
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, ExprLit, Item, Lit, Meta, Token, UseTree, Visibility};

/// The index of a module in [`Crate::modules`]; the root is 0.
pub type ModuleId = usize;
/// The index of a file in [`Crate::files`].
pub type FileId = usize;

/// One library or binary of the workspace.
pub struct Crate {
    /// Its package, without the prefix `aotfarm-`.
    pub room: String,
    /// Whether other crates can name its items.
    pub library: bool,
    /// Its sources, as paths below the workspace.
    pub files: Vec<PathBuf>,
    /// What the module in each file is called by its parent.
    pub names: Vec<String>,
    /// Its modules, parents before children.
    pub modules: Vec<Module>,
    /// All that its modules define by name.
    pub definitions: Vec<Definition>,
}

/// One module; several lie in one file when they are written inline.
pub struct Module {
    /// The module that declares it; the root has none.
    pub parent: Option<ModuleId>,
    /// Where it is written.
    pub file: FileId,
    /// What its names stand for: one name can be a module, a type and a function at once.
    pub names: HashMap<String, Vec<Name>>,
    /// The paths that it imports all names of.
    pub globs: Vec<Vec<String>>,
    /// Its items, without what is only for tests and without the contents of other modules.
    pub items: Vec<Item>,
}

/// What a name in a module stands for.
pub enum Name {
    /// A module that is declared there.
    Module(ModuleId),
    /// An item that is defined there, by its index in [`Crate::definitions`].
    Item(usize),
    /// What another path names.
    Import(Vec<String>),
}

/// An item with a name.
pub struct Definition {
    /// Its name.
    pub name: String,
    /// The file that defines it.
    pub file: FileId,
    /// The line of its name, from 1.
    pub line: usize,
    /// Whether it is a struct, an enum, a union, a trait or an alias.
    pub is_type: bool,
    /// Whether it is a macro by example.
    pub is_macro: bool,
    /// Whether it is `pub` without restriction.
    pub public: bool,
}

/// One leaf of a `use` declaration.
pub struct Import {
    /// What is imported; for a glob the path before `*`.
    pub path: Vec<String>,
    /// The name that it gets, or nothing for a glob.
    pub name: Option<String>,
    /// The line of its last name, from 1.
    pub line: usize,
}

impl Crate {
    /// All libraries and binaries of the workspace.
    ///
    /// # Errors
    /// A file that is missing or no Rust.
    pub fn read_all(workspace: &Metadata) -> anyhow::Result<Vec<Self>> {
        let mut crates = Vec::new();
        for package in workspace.workspace_packages() {
            for target in &package.targets {
                let library = target.kind.iter().any(|k| matches!(k, TargetKind::Lib | TargetKind::ProcMacro));
                if library || target.kind.contains(&TargetKind::Bin) {
                    let room = package.name.strip_prefix("aotfarm-").unwrap_or(&package.name);
                    let root = workspace.workspace_root.as_std_path();
                    crates.push(Self::read(room, library, root, target.src_path.as_std_path())?);
                }
            }
        }
        Ok(crates)
    }

    /// The crate whose root module is the file `main`.
    fn read(room: &str, library: bool, root: &Path, main: &Path) -> anyhow::Result<Self> {
        let mut read = Reader {
            root: root.to_owned(),
            made: Self {
                room: room.to_owned(),
                library,
                files: Vec::new(),
                names: Vec::new(),
                modules: Vec::new(),
                definitions: Vec::new(),
            },
        };
        let beside = main.parent().context("a source lies in a folder")?.to_owned();
        if read.file(None, room, main, &beside)?.is_none() {
            bail!("{}: a whole crate is only for tests", main.display());
        }
        Ok(read.made)
    }

    /// The files from the root module's to `file`, each the parent of the next.
    pub fn line_of_files(&self, file: FileId) -> Vec<FileId> {
        let mut line = vec![file];
        let mut module = self.modules.iter().position(|m| m.file == file);
        while let Some(parent) = module.and_then(|m| self.modules[m].parent) {
            if self.modules[parent].file != line[line.len() - 1] {
                line.push(self.modules[parent].file);
            }
            module = Some(parent);
        }
        line.reverse();
        line
    }

    /// The module in `file` by its path, such as `worker::exec`.
    pub fn name_of(&self, file: FileId) -> String {
        let mut names = vec![self.room.as_str()];
        names.extend(self.line_of_files(file).iter().map(|&f| self.names[f].as_str()).skip(1));
        names.join("::")
    }
}

struct Reader {
    root: PathBuf,
    made: Crate,
}

impl Reader {
    /// Reads the module `name` in `file`, whose children lie in `children`; nothing if it is only for tests.
    fn file(&mut self, parent: Option<ModuleId>, name: &str, file: &Path, children: &Path) -> anyhow::Result<Option<ModuleId>> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let parsed = syn::parse_file(&text).with_context(|| format!("{}: no Rust", file.display()))?;
        if only_for_tests(&parsed.attrs) {
            return Ok(None);
        }
        self.made.files.push(file.strip_prefix(&self.root).unwrap_or(file).to_owned());
        self.made.names.push(name.to_owned());
        let id = self.made.files.len() - 1;
        let folder = file.parent().context("a source lies in a folder")?;
        self.module(parent, id, parsed.items, folder, children).map(Some)
    }

    /// Notes one module with `items`. A `#[path]` among them starts at `folder`, other files at `children`.
    fn module(
        &mut self,
        parent: Option<ModuleId>,
        file: FileId,
        items: Vec<Item>,
        folder: &Path,
        children: &Path,
    ) -> anyhow::Result<ModuleId> {
        let id = self.made.modules.len();
        self.made.modules.push(Module { parent, file, names: HashMap::new(), globs: Vec::new(), items: Vec::new() });
        for mut item in items {
            if only_for_tests(attributes(&item)) {
                continue;
            }
            match &mut item {
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    let inner = children.join(&name);
                    let found = match child.content.take() {
                        Some((_, items)) => Some(self.module(Some(id), file, items, &inner, &inner)?),
                        None => match path_attribute(&child.attrs) {
                            Some(path) => {
                                let at = folder.join(path);
                                let beside = at.parent().context("a source lies in a folder")?.to_owned();
                                self.file(Some(id), &name, &at, &beside)?
                            }
                            None => {
                                let flat = children.join(format!("{name}.rs"));
                                let at = if flat.exists() { flat } else { inner.join("mod.rs") };
                                self.file(Some(id), &name, &at, &inner)?
                            }
                        },
                    };
                    if let Some(child) = found {
                        self.name(id, name, Name::Module(child));
                    }
                }
                Item::Use(import) => self.import(id, &import.tree),
                _ => self.define(id, file, &item),
            }
            self.made.modules[id].items.push(item);
        }
        Ok(id)
    }

    fn name(&mut self, module: ModuleId, name: String, what: Name) {
        self.made.modules[module].names.entry(name).or_default().push(what);
    }

    fn import(&mut self, module: ModuleId, tree: &UseTree) {
        for Import { path, name, .. } in imports(tree) {
            match name {
                Some(name) => self.name(module, name, Name::Import(path)),
                None => self.made.modules[module].globs.push(path),
            }
        }
    }

    fn define(&mut self, module: ModuleId, file: FileId, item: &Item) {
        let (name, visibility, is_type) = match item {
            Item::Struct(i) => (&i.ident, Some(&i.vis), true),
            Item::Enum(i) => (&i.ident, Some(&i.vis), true),
            Item::Union(i) => (&i.ident, Some(&i.vis), true),
            Item::Trait(i) => (&i.ident, Some(&i.vis), true),
            Item::TraitAlias(i) => (&i.ident, Some(&i.vis), true),
            Item::Type(i) => (&i.ident, Some(&i.vis), true),
            Item::Const(i) => (&i.ident, Some(&i.vis), false),
            Item::Static(i) => (&i.ident, Some(&i.vis), false),
            Item::Fn(i) => (&i.sig.ident, Some(&i.vis), false),
            Item::Macro(i) => match &i.ident {
                Some(name) => (name, None, false),
                None => return,
            },
            Item::ForeignMod(block) => return self.define_foreign(module, file, block),
            _ => return,
        };
        let exported = matches!(item, Item::Macro(_)) && attributes(item).iter().any(|a| a.path().is_ident("macro_export"));
        self.made.definitions.push(Definition {
            name: name.to_string(),
            file,
            line: name.span().start().line,
            is_type,
            is_macro: matches!(item, Item::Macro(_)),
            public: exported || matches!(visibility, Some(Visibility::Public(_))),
        });
        let id = self.made.definitions.len() - 1;
        self.name(module, name.to_string(), Name::Item(id));
        if exported && module != 0 {
            self.name(0, name.to_string(), Name::Item(id));
        }
    }

    fn define_foreign(&mut self, module: ModuleId, file: FileId, block: &syn::ItemForeignMod) {
        for item in &block.items {
            let name = match item {
                syn::ForeignItem::Fn(i) => &i.sig.ident,
                syn::ForeignItem::Static(i) => &i.ident,
                syn::ForeignItem::Type(i) => &i.ident,
                _ => continue,
            };
            let line = name.span().start().line;
            let name = name.to_string();
            let definition = Definition { name: name.clone(), file, line, is_type: false, is_macro: false, public: false };
            self.made.definitions.push(definition);
            self.name(module, name, Name::Item(self.made.definitions.len() - 1));
        }
    }
}

/// The leaves of a `use` tree. `a::{self}` is the path `a`.
pub fn imports(tree: &UseTree) -> Vec<Import> {
    fn walk(tree: &UseTree, before: &mut Vec<String>, into: &mut Vec<Import>) {
        let mut leaf = |last: &syn::Ident, name: &syn::Ident| {
            let mut path = before.clone();
            if last != "self" || path.is_empty() {
                path.push(last.to_string());
            }
            let name = if name == "self" { path.last().cloned() } else { Some(name.to_string()) };
            into.push(Import { path, name, line: last.span().start().line });
        };
        match tree {
            UseTree::Name(name) => leaf(&name.ident, &name.ident),
            UseTree::Rename(rename) => leaf(&rename.ident, &rename.rename),
            UseTree::Glob(glob) => {
                let line = glob.star_token.spans[0].start().line;
                into.push(Import { path: before.clone(), name: None, line });
            }
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                walk(&path.tree, before, into);
                before.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| walk(tree, before, into)),
        }
    }
    let mut found = Vec::new();
    walk(tree, &mut Vec::new(), &mut found);
    found
}

/// Whether attributes leave something out of every build but those for tests.
pub fn only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.parse_args::<Meta>().is_ok_and(|condition| outside_tests(&condition) == Some(false))
    })
}

/// What a condition is where neither `test` nor the feature `testing` is set; nothing if it hangs on something else.
fn outside_tests(condition: &Meta) -> Option<bool> {
    let parts = |list: &syn::MetaList| {
        let parsed = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
        parsed.map(|metas| metas.iter().map(outside_tests).collect::<Vec<_>>()).unwrap_or_default()
    };
    match condition {
        Meta::Path(path) if path.is_ident("test") => Some(false),
        Meta::NameValue(feature) if feature.path.is_ident("feature") => match &feature.value {
            Expr::Lit(ExprLit { lit: Lit::Str(name), .. }) if name.value() == "testing" => Some(false),
            _ => None,
        },
        Meta::List(list) if list.path.is_ident("not") => parts(list).first().copied().flatten().map(|holds| !holds),
        Meta::List(list) if list.path.is_ident("all") => {
            let parts = parts(list);
            if parts.contains(&Some(false)) { Some(false) } else { parts.iter().all(|p| *p == Some(true)).then_some(true) }
        }
        Meta::List(list) if list.path.is_ident("any") => {
            let parts = parts(list);
            if parts.contains(&Some(true)) { Some(true) } else { parts.iter().all(|p| *p == Some(false)).then_some(false) }
        }
        _ => None,
    }
}

/// The attributes of an item of any kind.
pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::ExternCrate(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::ForeignMod(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Macro(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::TraitAlias(i) => &i.attrs,
        Item::Type(i) => &i.attrs,
        Item::Union(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        _ => &[],
    }
}

/// The file that `#[path = "…"]` names.
fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(file), .. }) => Some(file.value()),
            _ => None,
        },
        _ => None,
    })
}
