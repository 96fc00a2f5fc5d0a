//! Options that several verbs share.

use std::path::PathBuf;

use aotfarm_protocol::Precision;
use clap::{Args, ValueEnum};

use crate::output::Color;

/// Options of every verb.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The coordinator to talk to, as in http://farm:7070; none: run embedded
    #[arg(long, global = true, env = "AOTFARM_COORDINATOR", value_name = "URL")]
    pub(crate) coordinator: Option<String>,
    /// Where the embedded coordinator and registry keep their files [default: the XDG data
    /// folder/aotfarm]
    #[arg(long, global = true, env = "AOTFARM_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print results as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to colour
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub(crate) color: Color,
    /// Log more (-v: info, -vv: debug); AOTFARM_LOG takes a tracing filter
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// What a GPU computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Dtype {
    /// f32 throughout.
    #[default]
    Fp32,
    /// Stored as f32, multiplied with 10 bits of mantissa on tensor cores.
    Tf32,
    /// Stored and multiplied as bfloat16, summed in f32.
    Bf16,
    /// Stored and multiplied as IEEE half, summed in f32.
    Fp16,
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Fp32 => Self::Fp32,
            Dtype::Tf32 => Self::Tf32,
            Dtype::Bf16 => Self::Bf16,
            Dtype::Fp16 => Self::Fp16,
        }
    }
}

/// Sizes of a symbolic dimension: `name=1,2,3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SizeList {
    pub(crate) name: String,
    pub(crate) sizes: Vec<i64>,
}

/// Reads a [`SizeList`]; the error says what is expected.
pub(crate) fn parse_sizes(text: &str) -> Result<SizeList, String> {
    let parse = || {
        let (name, list) = text.split_once('=')?;
        let sizes: Option<Vec<i64>> = list.split(',').map(|n| n.trim().parse().ok().filter(|n| *n > 0)).collect();
        Some(SizeList { name: name.to_owned(), sizes: sizes? })
    };
    parse().ok_or_else(|| "expected NAME=N or NAME=N,N…, as in batch=1,8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse() {
        assert_eq!(parse_sizes("batch=1,8"), Ok(SizeList { name: "batch".into(), sizes: vec![1, 8] }));
        for bad in ["batch", "batch=", "batch=0", "batch=a", "batch=1,,2"] {
            assert!(parse_sizes(bad).is_err(), "{bad}");
        }
    }
}
