//! What crosses the border between Rust and compiled code: the C headers, their mirrors in Rust, the flags that C compilers get, the
//! recipe that links an artifact, and the C that artifacts carry.
//!
//! | module | what |
//! |---|---|
//! | [`artifact`] | the C ABI of artifacts, `aotfarm.h`, mirrored; the sources of the code in every artifact |
//! | [`kernel`] | the ABI of kernels, `aotk.h` and `aotk.cuh`; the first one mirrored |
//! | [`cc`] | the flags of C compilers, by target |
//! | [`isa`] | the levels of CPUs: which features each has, in Rust and in C |
//! | [`link`] | the link recipe and its digest |
//! | [`vendor`] | numbers of the interfaces of NVIDIA's libraries, in Rust and in C |
//!
//! This crate is a leaf: it imports no other room, does no IO and reads no clock.
#![forbid(unsafe_code)]

pub mod artifact;
pub mod cc;
pub mod isa;
pub mod kernel;
pub mod link;
pub mod vendor;

#[cfg(test)]
mod layout_tests;
