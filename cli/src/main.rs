//! The binary `aotfarm`: every role and every verb.
#![deny(unsafe_code)]

use std::process::ExitCode;

use aotfarm_worker::ChildProgram;

mod args;
mod cli;
mod embedded;
mod failure;
mod inputs;
mod options;
mod output;
mod samples;
mod shutdown;
mod tensors;
mod verbs;
mod watch;

fn main() -> ExitCode {
    // Worker children re-execute this binary; they must not start a runtime or parse the user's arguments.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == ChildProgram::SUBCOMMAND) {
        return aotfarm_worker::child::main(words);
    }
    let args::Arguments { global, verb } = args::parse();
    let out = output::Output::new(global.json, global.color);
    verbs::run(verb, &global, &out).unwrap_or_else(|error| failure::report(&error, &out))
}
