use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instruction-set level of a CPU. The x86-64 levels are those of the
/// [psABI](https://gitlab.com/x86-psABIs/x86-64-ABI): what each has is a table
/// in `abi/src/isa.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each variant is its own name")]
pub enum CpuIsa {
    X86_64V3,
    X86_64V4,
    Aarch64,
}

/// What code is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A CPU of at least the given level.
    Cpu(CpuIsa),
    /// An NVIDIA GPU of the given compute capability, as in `sm_90`.
    Cuda {
        /// Major times ten plus minor: 90 for compute capability 9.0.
        sm: u32,
    },
}

/// Why a text is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a target: expected cpu-x86_64-v3, cpu-x86_64-v4, cpu-aarch64 or cuda-sm_NN")]
pub struct TargetError(String);

impl Target {
    /// The CPU targets, weakest first for each architecture.
    pub const CPUS: [Self; 3] = [Self::Cpu(CpuIsa::X86_64V3), Self::Cpu(CpuIsa::X86_64V4), Self::Cpu(CpuIsa::Aarch64)];

    /// The machine architecture in the words of `uname -m`, or `None` for a GPU.
    pub const fn architecture(self) -> Option<&'static str> {
        match self {
            Self::Cpu(CpuIsa::X86_64V3 | CpuIsa::X86_64V4) => Some("x86_64"),
            Self::Cpu(CpuIsa::Aarch64) => Some("aarch64"),
            Self::Cuda { .. } => None,
        }
    }

    /// Lanes of a full vector register of f32; 0 for a GPU.
    pub const fn f32_lanes(self) -> usize {
        match self {
            Self::Cpu(CpuIsa::X86_64V3) => 8,
            Self::Cpu(CpuIsa::X86_64V4) => 16,
            Self::Cpu(CpuIsa::Aarch64) => 4,
            Self::Cuda { .. } => 0,
        }
    }

    /// The targets whose code a GPU of compute capability `sm` runs, best first: its own, and the older ones of its generation. From 9.0 on
    /// kernels use instructions that no later GPU has, so it is its own alone.
    pub fn of_gpu(sm: u32) -> Vec<Self> {
        let oldest = if sm < 90 { sm / 10 * 10 } else { sm };
        (oldest..=sm).rev().map(|sm| Self::Cuda { sm }).collect()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(CpuIsa::X86_64V3) => f.pad("cpu-x86_64-v3"),
            Self::Cpu(CpuIsa::X86_64V4) => f.pad("cpu-x86_64-v4"),
            Self::Cpu(CpuIsa::Aarch64) => f.pad("cpu-aarch64"),
            Self::Cuda { sm } => f.pad(&format!("cuda-sm_{sm}")),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(s: &str) -> Result<Self, TargetError> {
        if let Some(cpu) = Self::CPUS.into_iter().find(|t| t.to_string() == s) {
            return Ok(cpu);
        }
        s.strip_prefix("cuda-sm_")
            .and_then(|digits| digits.parse().ok())
            .filter(|sm| (50..1000).contains(sm))
            .map(|sm| Self::Cuda { sm })
            .ok_or_else(|| TargetError(s.to_owned()))
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl schemars::JsonSchema for Target {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Target".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let cpus: Vec<_> = Self::CPUS.iter().map(ToString::to_string).collect();
        schemars::json_schema!({
            "type": "string",
            "pattern": format!("^({}|cuda-sm_[0-9]+)$", cpus.join("|")),
            "description": "What code is made for.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_code_of_a_generation_runs_but_not_where_kernels_are_made_for_one_architecture() {
        let names = |sm| Target::of_gpu(sm).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(82), ["cuda-sm_82", "cuda-sm_81", "cuda-sm_80"]);
        assert_eq!(names(90), ["cuda-sm_90"]);
        assert_eq!(names(103), ["cuda-sm_103"]);
    }
}
