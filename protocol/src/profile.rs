use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Device, Target};

/// Quantiles of a sample of latencies, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[expect(missing_docs, reason = "each field is its own name")]
pub struct Quantiles {
    pub min: f64,
    pub p10: f64,
    pub p50: f64,
    pub p90: f64,
}

impl Quantiles {
    /// Of a non-empty sample; `None` of an empty one.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut s = samples.to_vec();
        s.sort_by(f64::total_cmp);
        let at = |q: f64| s.get(((s.len().checked_sub(1)?) as f64 * q).round() as usize).copied();
        Some(Self { min: at(0.0)?, p10: at(0.1)?, p50: at(0.5)?, p90: at(0.9)? })
    }
}

/// An end-to-end benchmark of an artifact on a device: one row of the performance history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Profile {
    /// What the artifact was made for.
    pub target: Target,
    /// Where it ran.
    pub device: Device,
    /// Values of the symbolic dimensions, by name.
    pub point: BTreeMap<String, i64>,
    /// Threads of the session.
    pub threads: u32,
    /// Latency of one run, in seconds.
    pub latency: Quantiles,
    /// Every sample, in order, in seconds: what a later comparison tests.
    pub samples: Vec<f64>,
    /// Median seconds of each step of the plan, by its label, in order.
    #[serde(default)]
    pub steps: Vec<(String, f64)>,
    /// Program versions that made and timed it, by name.
    pub tools: BTreeMap<String, String>,
    /// When, Unix seconds.
    pub at: i64,
}
