//! Faults planted into workspaces that a test makes: each rule must refuse its own, wherever the checkout lies.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::modules::Crate;
use super::{circles, glossary, imports, version, workspace};

/// A workspace with one source file or manifest for each pair, and a library `aotfarm-…` for each folder.
struct Planted {
    _folder: TempDir,
    root: PathBuf,
}

impl Planted {
    /// Writes `files` below a folder whose path once made the check pass in silence.
    fn new(rooms: &[(&str, &str)], files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for a checkout");
        let root = folder.path().join("testing/checkout");
        let write = |path: &Path, text: &str| {
            fs::create_dir_all(path.parent().expect("files lie in the root")).expect("a folder in the checkout");
            fs::write(path, text).expect("a file in the checkout");
        };
        let members: Vec<_> = rooms.iter().map(|(room, _)| *room).collect();
        write(&root.join("Cargo.toml"), &format!("[workspace]\nresolver = \"3\"\nmembers = {members:?}\n"));
        for (room, dependencies) in rooms {
            let package = format!("[package]\nname = \"aotfarm-{room}\"\nedition = \"2024\"\n\n{dependencies}\n");
            write(&root.join(room).join("Cargo.toml"), &package);
            write(&root.join(room).join("src/lib.rs"), "");
        }
        for (path, text) in files {
            write(&root.join(path), text);
        }
        Self { _folder: folder, root }
    }

    /// A crate `ir` of these files below its `src`.
    fn ir(files: &[(&str, &str)]) -> Self {
        let files: Vec<_> = files.iter().map(|(path, text)| (format!("ir/src/{path}"), *text)).collect();
        Self::new(&[("ir", "")], &files.iter().map(|(path, text)| (path.as_str(), *text)).collect::<Vec<_>>())
    }

    fn crates(&self) -> Vec<Crate> {
        Crate::read_all(&workspace(&self.root).expect("a workspace")).expect("crates")
    }

    fn imports(&self) -> Result<(), String> {
        imports::check(&workspace(&self.root).expect("a workspace"), &[]).map_err(|e| e.to_string())
    }

    /// With a build script of these rooms.
    fn version(&self, rooms: &[&str]) -> Result<(), String> {
        let script = self.root.join("build.rs");
        fs::write(&script, format!("const ROOMS: [&str; {}] = {rooms:?};", rooms.len())).expect("a script in the checkout");
        version::check(&self.root, &script, &workspace(&self.root).expect("a workspace")).map_err(|e| e.to_string())
    }

    fn circles(&self, known: &[&[&str]]) -> Result<(), String> {
        circles::check(&self.crates(), known).map_err(|e| e.to_string())
    }

    fn glossary(&self, table: &str) -> Result<(), String> {
        let page = self.root.join("ARCHITECTURE.md");
        fs::write(&page, format!("# Page\n\n## Words\n\n| word | meaning | type |\n|---|---|---|\n{table}\n\n## Map\n"))
            .expect("a page in the checkout");
        glossary::check(&page, &self.crates()).map_err(|e| e.to_string())
    }
}

/// A dependency on a crate of the workspace, in the section `section`.
fn on(section: &str, room: &str) -> String {
    format!("[{section}]\naotfarm-{room} = {{ path = \"../{room}\" }}\n")
}

#[test]
fn a_wrong_import_is_refused() {
    for section in ["dependencies", "build-dependencies", "target.'cfg(unix)'.dependencies"] {
        let planted = Planted::new(&[("compiler", ""), ("worker", &on(section, "compiler"))], &[]);
        let refused = planted.imports().expect_err(section);
        assert!(refused.starts_with("aotfarm-worker imports aotfarm-compiler; it may import only"), "{refused}");
    }
}

#[test]
fn a_renamed_or_optional_import_is_an_import() {
    let renamed = "[dependencies]\nplain = { package = \"aotfarm-compiler\", path = \"../compiler\", optional = true }\n";
    let planted = Planted::new(&[("compiler", ""), ("worker", renamed)], &[]);
    assert!(planted.imports().is_err());
}

#[test]
fn right_imports_and_imports_of_tests_pass() {
    let right = on("dependencies", "protocol") + &on("dev-dependencies", "worker");
    let planted = Planted::new(&[("protocol", ""), ("worker", ""), ("client", &right)], &[]);
    assert_eq!(planted.imports(), Ok(()));
}

#[test]
fn a_crate_without_a_place_is_refused() {
    let refused = Planted::new(&[("drawer", "")], &[]).imports().expect_err("not in the table");
    assert!(refused.starts_with("aotfarm-drawer: not in the table"), "{refused}");
}

/// Plants `a.rs` and `b/mod.rs` with `b/c.rs` beside each other, and gives what the check says.
fn refusal(a: &str, b: &str, c: &str) -> Result<(), String> {
    let b = format!("mod c;\n{b}");
    Planted::ir(&[("lib.rs", "mod a;\nmod b;\n"), ("a.rs", a), ("b/mod.rs", &b), ("b/c.rs", c)]).circles(&[])
}

#[test]
fn a_circle_is_refused_however_it_is_written() {
    let uses = [
        "use crate::a::thing;",
        "use crate::{a::{self, thing}};",
        "use crate::{a::thing as other};",
        "use super::super::a::thing;",
        "use super::super::{a::*}; fn f() { thing() }",
        "use crate::a::*; pub fn f() -> u8 { (1..2).map(thing); 0 }",
        "use crate::a; fn f() { a::thing() }",
        "use crate::a as plain; fn f() { plain::thing() }",
        "fn f() { crate::a::thing() }",
        "fn f() { super::super::a::thing() }",
        "fn f() { use crate::a; a::thing() }",
        "fn f(_: crate::a::Type) {}",
        "fn f(_: Vec<Option<crate::a::Type>>) {}",
        "impl crate::a::Trait for u8 {}",
        "pub(in crate::b) fn f() { assert!(true, \"{}\", crate::a::thing()) }",
        "use crate::a::Kind; fn f() { Kind::One; }",
        "macro_rules! m { () => { $crate::a::thing() } }",
        "#[serde(with = \"crate::a::thing\")] struct S;",
        "mod inner { fn f() { crate::a::thing() } }",
        "fn f() { crate::exported!() }",
    ];
    let a = "pub fn thing() {}\npub struct Type;\npub trait Trait {}\npub enum Kind { One }\n\
             #[macro_export] macro_rules! exported { () => {} }\nuse crate::b::c::Back;";
    for c in uses {
        let refused = refusal(a, "", &format!("pub struct Back;\n{c}")).expect_err(c);
        let (first, steps) = refused.split_once('\n').expect("modules, then steps");
        assert_eq!(first, r#"modules in a circle: {"ir::a", "ir::b"}"#, "{c}");
        assert!(steps.contains("ir/src/a.rs:6 names crate::b::c::Back, of ir/src/b/c.rs"), "{c}: {steps}");
        assert!(steps.contains("ir/src/b/c.rs:2 names "), "{c}: {steps}");
    }
}

#[test]
fn re_exports_hide_no_circle() {
    let b = "pub use c::Back;";
    let refused = refusal("pub fn thing() {}\nuse crate::b::Back;", b, "pub struct Back;\nuse crate::a::thing;");
    assert!(refused.is_err_and(|text| text.contains(r#"{"ir::a", "ir::b"}"#)));
}

#[test]
fn a_name_that_a_macro_makes_lies_in_its_file() {
    let refused = refusal("made!(Thing);\nuse crate::b::c::Back;", "", "pub struct Back;\nuse crate::a::Thing;");
    assert!(refused.is_err());
}

#[test]
fn a_parent_and_a_child_that_use_each_other_are_a_circle() {
    let parent = "pub struct Shared;\nfn f(_: c::Back) {}";
    let refused = refusal("", parent, "pub struct Back;\nuse super::Shared;").expect_err("a circle");
    assert!(refused.contains(r#"{"ir::b", "ir::b::c"}"#), "{refused}");
}

#[test]
fn a_parent_may_declare_and_re_export_a_child_that_uses_it() {
    for parent in ["pub use c::Back;", "pub(crate) use c::{Back as Front};", "pub use c::*;"] {
        let parent = format!("pub struct Shared;\n{parent}");
        assert_eq!(refusal("", &parent, "pub struct Back;\nuse super::Shared;"), Ok(()), "{parent}");
    }
}

#[test]
fn a_re_export_of_what_lies_elsewhere_is_a_use() {
    let refused = refusal("pub use crate::b::c::Back;\npub fn thing() {}", "", "pub struct Back;\nuse crate::a::thing;");
    assert!(refused.is_err());
}

#[test]
fn one_way_is_no_circle() {
    let c = "use crate::a::{Type, thing}; fn f(thing: Type) { Back; Self::back(); thing.back(); super::super::a::thing() }";
    assert_eq!(refusal("pub fn thing() {}\npub struct Type;", "fn back() {}", c), Ok(()));
}

#[test]
fn names_that_only_look_alike_are_no_circle() {
    // A variable, a method, a field and a label called like the function that `a` re-exports from `b`.
    let a = "pub use crate::b::c::back;";
    let b = "use super::a::*;\npub struct S { back: u8 }\n\
             impl S { fn f(&self, back: u8) { let s = S { back: back }; s.back(); assert!(self.back == back); } }";
    assert_eq!(refusal(a, b, "pub fn back() {}\nuse super::S;"), Ok(()));
}

#[test]
fn what_is_only_for_tests_is_left_out() {
    for cfg in ["test", "any(test, feature = \"testing\")", "all(test, unix)", "feature = \"testing\""] {
        let c = format!("pub struct Back;\n#[cfg({cfg})]\nmod tests {{ use crate::a::thing; }}\n");
        assert_eq!(refusal("pub fn thing() {}\nuse crate::b::c::Back;", "", &c), Ok(()), "{cfg}");
        let whole = format!("#![cfg({cfg})]\nuse crate::a::thing;\n");
        assert_eq!(refusal("pub fn thing() {}\nuse crate::b::c::Back;", "", &whole), Ok(()), "{cfg}");
    }
    for cfg in ["not(test)", "any(test, unix)", "unix"] {
        let c = format!("pub struct Back;\n#[cfg({cfg})]\nmod real {{ use crate::a::thing; }}\n");
        assert!(refusal("pub fn thing() {}\nuse crate::b::c::Back;", "", &c).is_err(), "{cfg}");
    }
}

#[test]
fn modules_are_in_a_circle_even_if_no_two_of_their_files_are() {
    let files = [
        ("lib.rs", "mod a;\nmod b;"),
        ("a/mod.rs", "mod x;\nmod y;"),
        ("a/x.rs", "use crate::b::x::B;"),
        ("a/y.rs", "pub struct A;"),
        ("b/mod.rs", "pub mod x;\npub mod y;"),
        ("b/x.rs", "pub struct B;"),
        ("b/y.rs", "use crate::a::y::A;"),
    ];
    let refused = Planted::ir(&files).circles(&[]).expect_err("a circle");
    assert!(refused.starts_with(r#"modules in a circle: {"ir::a", "ir::b"}"#), "{refused}");
}

#[test]
fn known_circles_pass_and_must_exist() {
    let a = ("a.rs", "use crate::b::B;\npub struct A;");
    let planted = Planted::ir(&[("lib.rs", "mod a;\nmod b;"), a, ("b.rs", "use crate::a::A;\npub struct B;")]);
    assert_eq!(planted.circles(&[&["ir::a", "ir::b"]]), Ok(()));
    let gone = planted.circles(&[&["ir::a", "ir::b"], &["ir", "ir::b"]]).expect_err("one is gone");
    assert_eq!(gone, r#"no circle any more, take it from KNOWN_CIRCLES: {"ir", "ir::b"}"#);
}

#[test]
fn words_have_one_type() {
    let files = [
        ("protocol/src/lib.rs", "mod a;\npub use a::Target;\npub type Job = u8;"),
        ("protocol/src/a.rs", "pub struct Target;"),
        ("worker/src/lib.rs", "mod b;"),
        ("worker/src/b.rs", "pub(crate) struct Target;\n\npub struct Plan;\n"),
    ];
    let planted = Planted::new(&[("protocol", ""), ("worker", "")], &files);
    assert_eq!(planted.glossary("| Target, Job | what; which | `protocol::Target`, `protocol::Job` |"), Ok(()));
    let twice = planted.glossary("| Plan | calls | `protocol::Job` |").expect_err("two meanings");
    assert!(twice.ends_with("worker/src/b.rs:3: a type called Plan, which is the word for protocol::Job"), "{twice}");
    let missing = planted.glossary("| Lease | a right | `protocol::Lease` |").expect_err("no such type");
    assert!(missing.ends_with("Lease: there is no type protocol::Lease"), "{missing}");
    let uneven = planted.glossary("| Target, Job | what; which | `protocol::Target` |").expect_err("no type");
    assert!(uneven.contains("has not one type for each word"), "{uneven}");
    let rows: String = (0..26).map(|i| format!("| w{i} | m | `protocol::Job` |\n")).collect();
    assert!(planted.glossary(rows.trim_end()).expect_err("too many").contains("26 words"));
}

#[test]
fn the_version_covers_what_compiler_and_search_are_made_of() {
    let on = |room: &str| format!("[dependencies]\naotfarm-{room} = {{ path = \"../{room}\" }}\n");
    let tests = "[dev-dependencies]\naotfarm-client = { path = \"../client\" }\n";
    let rooms = [
        ("abi", String::new()),
        ("client", String::new()),
        ("ir", on("abi")),
        ("compiler", on("ir") + tests),
        ("search", String::new()),
    ];
    let planted = Planted::new(&rooms.each_ref().map(|(room, text)| (*room, text.as_str())), &[]);
    assert_eq!(planted.version(&["abi", "compiler/src", "ir/src", "search"]), Ok(()));
    let lacking = planted.version(&["compiler/src", "ir", "search"]).expect_err("one is missing");
    assert!(lacking.ends_with("abi is no part of the compiler's version: name it in ROOMS"), "{lacking}");
    let needless = planted.version(&["abi", "client", "compiler/src", "ir", "search"]).expect_err("one too many");
    assert!(needless.ends_with("client is in ROOMS, but neither compiler nor search is made of it"), "{needless}");
}
