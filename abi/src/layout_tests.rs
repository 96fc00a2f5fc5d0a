//! The mirrors have the layout of the headers: the C compiler is asked.
#![cfg(test)]

use std::io::Write as _;
use std::mem::{offset_of, size_of};
use std::process::{Command, Stdio};

use crate::artifact::{
    ABI_VERSION, AOTFARM_H, Api, DL_CPU, DL_CUDA, DlTensor, ERROR_ARGUMENT, ERROR_BUSY, ERROR_MEMORY, ERROR_UNSUPPORTED, Options,
    StepResult,
};
use crate::kernel::{AOTK_H, Call};

/// Compiles `text` as C, and as C++ if `both` and there is a compiler for it. The assertions in it are the test.
#[expect(clippy::disallowed_methods, reason = "the test asks the C compiler")]
fn check(text: &str, flags: &[&str], both: bool) {
    for language in if both { &["c", "c++"][..] } else { &["c"] } {
        let text = if *language == "c" { text.to_owned() } else { text.replace("_Static_assert", "static_assert") };
        let child = Command::new("cc")
            .args(["-x", language, "-fsyntax-only"])
            .args(flags)
            .arg("-")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            return println!("skipped: there is no `cc` here");
        };
        child.stdin.take().expect("stdin is piped").write_all(text.as_bytes()).expect("cc reads its input");
        let output = child.wait_with_output().expect("cc ends");
        let log = String::from_utf8_lossy(&output.stderr);
        if log.contains("cc1plus") && log.contains("cannot exec") || log.contains("language c++ not recognized") {
            println!("skipped C++: {log}");
            continue;
        }
        assert!(output.status.success(), "{language}: {log}");
    }
}

/// `text` and an assertion for each pair of a C expression and its value here.
fn with_assertions(text: &str, pairs: &[(&str, usize)]) -> String {
    let mut all = format!("{text}\n#include <stddef.h>\n");
    for (c, rust) in pairs {
        all += &format!("_Static_assert({c} == {rust}, \"{c} is not {rust}\");\n");
    }
    all
}

#[test]
fn the_mirror_of_artifacts_is_the_header() {
    let pairs = [
        ("AOTFARM_ABI_VERSION", ABI_VERSION as usize),
        ("sizeof(DLTensor)", size_of::<DlTensor>()),
        ("offsetof(DLTensor, dtype)", offset_of!(DlTensor, dtype)),
        ("offsetof(DLTensor, byte_offset)", offset_of!(DlTensor, byte_offset)),
        ("sizeof(aotfarm_options)", size_of::<Options>()),
        ("offsetof(aotfarm_options, parallel)", offset_of!(Options, parallel)),
        ("offsetof(aotfarm_options, device)", offset_of!(Options, device)),
        ("offsetof(aotfarm_options, may_write)", offset_of!(Options, may_write)),
        ("offsetof(aotfarm_options, stream)", offset_of!(Options, stream)),
        ("sizeof(aotfarm_api)", size_of::<Api>()),
        ("offsetof(aotfarm_api, n_steps)", offset_of!(Api, n_steps)),
        ("offsetof(aotfarm_api, last_error)", offset_of!(Api, last_error)),
        ("offsetof(aotfarm_api, run_timed)", offset_of!(Api, run_timed)),
        ("offsetof(aotfarm_api, session_reset)", Api::OLDEST),
        ("offsetof(aotfarm_api, n_states)", offset_of!(Api, n_states)),
        ("offsetof(aotfarm_api, writes)", offset_of!(Api, writes)),
        ("offsetof(aotfarm_api, run_watched)", offset_of!(Api, run_watched)),
        ("sizeof(aotfarm_result)", size_of::<StepResult>()),
        ("offsetof(aotfarm_result, dims)", offset_of!(StepResult, dims)),
        ("offsetof(aotfarm_result, data)", offset_of!(StepResult, data)),
        ("AOTFARM_ERROR_ARGUMENT", ERROR_ARGUMENT as usize),
        ("AOTFARM_ERROR_MEMORY", ERROR_MEMORY as usize),
        ("AOTFARM_ERROR_BUSY", ERROR_BUSY as usize),
        ("AOTFARM_ERROR_UNSUPPORTED", ERROR_UNSUPPORTED as usize),
        ("kDLCPU", DL_CPU as usize),
        ("kDLCUDA", DL_CUDA as usize),
    ];
    check(&with_assertions(AOTFARM_H, &pairs), &["-Wall", "-Wextra", "-Wpedantic", "-Werror"], true);
}

#[test]
fn the_mirror_of_kernels_is_the_header() {
    let pairs = [
        ("sizeof(aotk_call)", size_of::<Call>()),
        ("offsetof(aotk_call, in)", offset_of!(Call, inputs)),
        ("offsetof(aotk_call, weight)", offset_of!(Call, weights)),
        ("offsetof(aotk_call, packed)", offset_of!(Call, packed)),
        ("offsetof(aotk_call, out)", offset_of!(Call, outputs)),
        ("offsetof(aotk_call, shared)", offset_of!(Call, shared)),
        ("offsetof(aotk_call, scratch)", offset_of!(Call, scratch)),
        ("offsetof(aotk_call, dim)", offset_of!(Call, dim)),
        ("offsetof(aotk_call, tune)", offset_of!(Call, tune)),
        ("offsetof(aotk_call, thread)", offset_of!(Call, thread)),
        ("offsetof(aotk_call, threads)", offset_of!(Call, threads)),
        ("offsetof(aotk_call, team)", offset_of!(Call, team)),
        ("offsetof(aotk_call, barrier)", offset_of!(Call, barrier)),
    ];
    check(&with_assertions(AOTK_H, &pairs), &["-std=gnu11"], false);
}
