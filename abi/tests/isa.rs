//! The table of CPUs' features is what compilers and artifacts take a level for. Skipped where
//! there is no `gcc`.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use aotfarm_abi::artifact::source;
use aotfarm_abi::{cc, isa};

/// What came of a command; `None` when there is no such program.
#[expect(clippy::disallowed_methods, reason = "the test asks the C compiler, and runs what it made")]
fn run(program: &str, args: &[&str]) -> Option<Output> {
    Command::new(program).args(args).output().ok()
}

/// `level feature` of each row of the C table `name`.
fn rows(name: &str) -> BTreeSet<(u32, String)> {
    let (_, rest) = isa::TABLE_C.split_once(&format!("#define {name}(needs)")).expect("the table is there");
    let rows = rest.split("\n\n").next().unwrap_or_default().split("needs(").skip(1);
    let row = |text: &str| {
        let (level, rest) = text.split_once(", \"")?;
        Some((level.parse().ok()?, rest.split('"').next()?.to_owned()))
    };
    rows.map(|text| row(text).unwrap_or_else(|| panic!("`{text}` is no row"))).collect()
}

/// Every feature for which `-march=x86-64-v3` and `-v4` let gcc make code is in the table, at its
/// level, and no other.
#[test]
fn the_levels_of_x86_64_are_those_of_the_compiler() {
    let macros = |march: &str| {
        let output = run("gcc", &[&format!("-march={march}"), "-dM", "-E", "-xc", "/dev/null"])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = text.lines().filter_map(|line| line.strip_prefix("#define ")?.strip_suffix(" 1").map(str::to_owned));
        output.status.success().then(|| names.collect::<BTreeSet<_>>())
    };
    let levels = ["x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4"].map(macros);
    let [Some(v1), Some(v2), Some(v3), Some(v4)] = levels else { return println!("skipped: no gcc that knows the levels") };
    // Parts of SSE4.2 and of AVX, and what the table says of LAHF.
    let others = ["CRC32", "XSAVE", "LAHF_SAHF"];
    let told = |level: u32, more: &BTreeSet<String>, less: &BTreeSet<String>| {
        let names = more.difference(less).map(|name| name.trim_matches('_').to_owned());
        names
            .filter(|name| !others.contains(&name.as_str()) && !name.starts_with("FP_FAST_"))
            .map(|name| (level, name))
            .collect::<Vec<_>>()
    };
    let by_compiler: BTreeSet<_> = [told(2, &v2, &v1), told(3, &v3, &v2), told(4, &v4, &v3)].concat().into_iter().collect();
    let by_table: BTreeSet<_> = rows("RT_X86_64")
        .into_iter()
        .map(|(level, name)| match name.as_str() {
            "bmi1" => (level, "BMI".to_owned()),
            "cmpxchg16b" => (level, "GCC_HAVE_SYNC_COMPARE_AND_SWAP_16".to_owned()),
            name => (level, name.to_uppercase().replace('.', "_")),
        })
        .collect();
    assert_eq!(by_table, by_compiler);
}

/// The C of an artifact and Rust, asked for every target of this architecture, miss the same.
#[test]
fn c_and_rust_miss_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (file, program) = (path("isa.c"), path("isa"));
    let main = "#include <stdio.h>\n#include <stdlib.h>\nint main(int n, char **args) {\n    \
                const char *missing = rt_missing_isa(n > 1 ? (uint32_t)atoi(args[1]) : 0);\n    \
                puts(missing == NULL ? \"\" : missing);\n    return 0;\n}\n";
    let text = [isa::TABLE_C, source::ISA, main].concat();
    std::fs::write(&file, text).expect("the program is written");
    let Some(compiled) = run("gcc", &["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Werror", &file, "-o", &program]) else {
        return println!("skipped: there is no `gcc` here");
    };
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let here = format!("cpu-{}", std::env::consts::ARCH);
    for (target, _) in cc::BY_TARGET.iter().filter(|(name, _)| name.starts_with(&here)) {
        let level = isa::level(target).expect("a CPU has a level").to_string();
        let said = run(&program, &[&level]).expect("the program was just made");
        let first = isa::missing(target).first().copied().unwrap_or_default();
        assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), first, "{target}");
    }
}
