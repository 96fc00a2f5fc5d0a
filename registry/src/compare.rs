//! Whether one set of Profiles is faster than another.
//!
//! Latencies are neither normal nor independent: they have a long tail to one side, and neighbours in time share what
//! disturbs the machine. So medians are compared; the interval of their ratio comes from a moving-block bootstrap, which
//! keeps neighbours together (H. R. Künsch, "The jackknife and the bootstrap for general stationary observations", 1989); and
//! the Mann–Whitney test must agree before a difference is called one.

use std::collections::BTreeMap;

use aotfarm_protocol::{Digest, Profile, Quantiles, Target};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// Differences of the medians below this share are none, however certain: they do not repeat on another day.
const SMALLEST_EFFECT: f64 = 0.01;
/// The same for a single step, of which only the median is known.
const SMALLEST_STEP_EFFECT: f64 = 0.10;
/// Seconds below which two steps do not differ: what reading the clock costs.
const SMALLEST_STEP_DIFFERENCE: f64 = 1e-6;
/// Fewer samples than this on either side say nothing.
const FEWEST_SAMPLES: usize = 8;
/// Longer series are thinned to about this many samples, evenly over their time.
const MOST_SAMPLES: usize = 2000;
const RESAMPLES: usize = 1000;
/// Of the interval.
const CONFIDENCE: f64 = 0.95;
/// Of the Mann–Whitney test.
const SIGNIFICANCE: f64 = 0.01;

/// What a comparison comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The new one is faster.
    Faster,
    /// The new one is slower.
    Slower,
    /// They do not differ by more than chance, or by too little to matter.
    NoDifference,
    /// There are too few samples to tell.
    TooFewSamples,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::NoDifference => "no difference",
            Self::TooFewSamples => "too few samples",
        })
    }
}

/// Two Profiles of the same target, device, point and threads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// What both were made for.
    pub target: Target,
    /// The device's name.
    pub device: String,
    /// Values of the symbolic dimensions.
    pub point: BTreeMap<String, i64>,
    /// Threads of the session.
    pub threads: u32,
    /// Latency of the old one, in seconds.
    pub old: Quantiles,
    /// Latency of the new one, in seconds.
    pub new: Quantiles,
    /// What the samples say.
    #[serde(flatten)]
    pub difference: Difference,
    /// Step by step, in the order of the new one; steps that only the old one has come last.
    pub steps: Vec<StepComparison>,
}

/// How two samples differ.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// Median of the new over median of the old: below 1 is faster.
    pub ratio: f64,
    /// 95 % interval of the ratio; `None` with too few samples.
    pub interval: Option<(f64, f64)>,
    /// Two-sided p-value of the Mann–Whitney test; `None` with too few samples.
    pub p: Option<f64>,
    /// What it comes to.
    pub verdict: Verdict,
}

/// One step of the plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepComparison {
    /// Its label.
    pub label: String,
    /// Median seconds in the old one, if it has the step.
    pub old: Option<f64>,
    /// Median seconds in the new one, if it has the step.
    pub new: Option<f64>,
    /// New over old, if both have it.
    pub ratio: Option<f64>,
    /// What it comes to, if both have it. Profiles keep only the medians of steps, so this goes by how much the runs as a whole
    /// scatter, and by at least 10 %.
    pub verdict: Option<Verdict>,
}

/// Compares what `old` and `new` have in common: for each target, device, point and number of threads that both were profiled
/// with, the last Profile of each. In the order of `new`.
pub fn compare(old: &[Profile], new: &[Profile]) -> Vec<Comparison> {
    let old = latest(old);
    let mut order: Vec<(usize, &Profile, &Profile)> =
        latest(new).into_iter().filter_map(|(key, (_, first, profile))| Some((first, old.get(&key)?.2, profile))).collect();
    order.sort_by_key(|(first, ..)| *first);
    order.into_iter().map(|(_, old, new)| compare_profiles(old, new)).collect()
}

type Key<'a> = (Target, Digest, &'a BTreeMap<String, i64>, u32);

/// For each key: when the last Profile was made, where its first stands in `profiles`, and the last.
fn latest(profiles: &[Profile]) -> BTreeMap<Key<'_>, (i64, usize, &Profile)> {
    let mut by_key: BTreeMap<Key<'_>, (i64, usize, &Profile)> = BTreeMap::new();
    for (i, profile) in profiles.iter().enumerate() {
        let key = (profile.target, profile.device.fingerprint(), &profile.point, profile.threads);
        let entry = by_key.entry(key).or_insert((profile.at, i, profile));
        if profile.at >= entry.0 {
            *entry = (profile.at, entry.1, profile);
        }
    }
    by_key
}

fn compare_profiles(old: &Profile, new: &Profile) -> Comparison {
    let mut difference = difference(&old.samples, &new.samples);
    if difference.verdict == Verdict::TooFewSamples {
        difference.ratio = new.latency.p50 / old.latency.p50;
    }
    Comparison {
        target: new.target,
        device: new.device.name.clone(),
        point: new.point.clone(),
        threads: new.threads,
        old: old.latency,
        new: new.latency,
        difference,
        steps: compare_steps(&old.steps, &new.steps, spread(&old.latency).max(spread(&new.latency))),
    }
}

/// How much runs scatter, relative to the median.
fn spread(q: &Quantiles) -> f64 {
    let s = (q.p90 - q.p10) / q.p50;
    if s.is_finite() { s.max(0.0) } else { 0.0 }
}

fn compare_steps(old: &[(String, f64)], new: &[(String, f64)], scatter: f64) -> Vec<StepComparison> {
    // Plans repeat labels (the same convolution in each block): the n-th here is the n-th there.
    let mut waiting: BTreeMap<&str, std::collections::VecDeque<f64>> = BTreeMap::new();
    for (label, seconds) in old {
        waiting.entry(label).or_default().push_back(*seconds);
    }
    let mut steps: Vec<StepComparison> = new
        .iter()
        .map(|(label, new)| {
            let old = waiting.get_mut(label.as_str()).and_then(std::collections::VecDeque::pop_front);
            StepComparison {
                label: label.clone(),
                old,
                new: Some(*new),
                ratio: old.map(|old| new / old).filter(|r| r.is_finite()),
                verdict: old.map(|old| step_verdict(old, *new, scatter)),
            }
        })
        .collect();
    for (label, _) in old {
        if let Some(seconds) = waiting.get_mut(label.as_str()).and_then(std::collections::VecDeque::pop_front) {
            steps.push(StepComparison { label: label.clone(), old: Some(seconds), new: None, ratio: None, verdict: None });
        }
    }
    steps
}

fn step_verdict(old: f64, new: f64, scatter: f64) -> Verdict {
    let least = (old.min(new) * scatter.max(SMALLEST_STEP_EFFECT)).max(SMALLEST_STEP_DIFFERENCE);
    match new - old {
        d if d <= -least => Verdict::Faster,
        d if d >= least => Verdict::Slower,
        _ => Verdict::NoDifference,
    }
}

/// Compares two series of latencies, each in the order of time. The same series always give the same answer.
pub fn difference(old: &[f64], new: &[f64]) -> Difference {
    let (old, new) = (thinned(old), thinned(new));
    let ratio = median(&mut new.clone()) / median(&mut old.clone());
    if old.len().min(new.len()) < FEWEST_SAMPLES || !ratio.is_finite() {
        return Difference { ratio, interval: None, p: None, verdict: Verdict::TooFewSamples };
    }
    let (low, high) = bootstrap_interval(&old, &new);
    let p = mann_whitney(&old, &new);
    let certain = p < SIGNIFICANCE && (ratio - 1.0).abs() >= SMALLEST_EFFECT;
    let verdict = match () {
        () if certain && high < 1.0 => Verdict::Faster,
        () if certain && low > 1.0 => Verdict::Slower,
        () => Verdict::NoDifference,
    };
    Difference { ratio, interval: Some((low, high)), p: Some(p), verdict }
}

/// The usable samples, at most about [`MOST_SAMPLES`].
fn thinned(samples: &[f64]) -> Vec<f64> {
    let step = samples.len().div_ceil(MOST_SAMPLES).max(1);
    samples.iter().step_by(step).copied().filter(|s| s.is_finite() && *s > 0.0).collect()
}

/// NaN of an empty sample.
fn median(samples: &mut [f64]) -> f64 {
    if samples.is_empty() {
        return f64::NAN;
    }
    let mid = samples.len() / 2;
    let (below, upper, _) = samples.select_nth_unstable_by(mid, f64::total_cmp);
    let upper = *upper;
    if below.len() < mid || samples.len() % 2 == 1 {
        return upper;
    }
    let lower = samples[..mid].iter().copied().fold(f64::NEG_INFINITY, f64::max);
    f64::midpoint(lower, upper)
}

/// The interval of `median(new) / median(old)`.
fn bootstrap_interval(old: &[f64], new: &[f64]) -> (f64, f64) {
    // A fixed seed: a verdict that changes when it is asked for again is none.
    let mut rng = ChaCha8Rng::seed_from_u64(0x5eed);
    let (mut a, mut b) = (Vec::with_capacity(old.len()), Vec::with_capacity(new.len()));
    let mut ratios: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            resample(old, &mut a, &mut rng);
            resample(new, &mut b, &mut rng);
            median(&mut b) / median(&mut a)
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let at = |q: f64| ratios[((RESAMPLES - 1) as f64 * q).round() as usize];
    let tail = (1.0 - CONFIDENCE) / 2.0;
    (at(tail), at(1.0 - tail))
}

/// Fills `out` with blocks of neighbours, of the length `n^(1/3)` that suits a statistic like the median.
fn resample(from: &[f64], out: &mut Vec<f64>, rng: &mut ChaCha8Rng) {
    let block = (from.len() as f64).cbrt().ceil() as usize;
    out.clear();
    while out.len() < from.len() {
        let start = rng.random_range(0..=from.len() - block);
        let length = block.min(from.len() - out.len());
        out.extend_from_slice(&from[start..start + length]);
    }
}

/// Two-sided p-value of the Mann–Whitney U test, by the normal approximation with correction for ties and continuity.
fn mann_whitney(a: &[f64], b: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = a.iter().map(|x| (*x, true)).chain(b.iter().map(|x| (*x, false))).collect();
    all.sort_by(|x, y| x.0.total_cmp(&y.0));
    let (n, m) = (a.len() as f64, b.len() as f64);
    let (mut rank_sum, mut ties) = (0.0, 0.0);
    let mut first = 0;
    while first < all.len() {
        let equal = all[first..].iter().take_while(|x| x.0 == all[first].0).count();
        // Ranks count from 1; equal values share the mean of theirs.
        let rank = first as f64 + (equal as f64 + 1.0) / 2.0;
        rank_sum += rank * all[first..first + equal].iter().filter(|x| x.1).count() as f64;
        ties += (equal as f64).powi(3) - equal as f64;
        first += equal;
    }
    let u = rank_sum - n * (n + 1.0) / 2.0;
    let total = n + m;
    let variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let z = ((u - n * m / 2.0).abs() - 0.5).max(0.0) / variance.sqrt();
    erfc(z / std::f64::consts::SQRT_2)
}

/// The complementary error function for `x ≥ 0`, to 1.5e-7 (Abramowitz and Stegun, 7.1.26).
fn erfc(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let poly = [0.254_829_592, -0.284_496_736, 1.421_413_741, -1.453_152_027, 1.061_405_429];
    poly.iter().rev().fold(0.0, |sum, c| (sum + c) * t) * (-x * x).exp()
}

#[cfg(test)]
mod tests {
    use aotfarm_protocol::{CpuIsa, Device, DeviceKind};

    use super::*;

    /// A skewed series around `median` with the relative `noise`, and bursts in which neighbours are slow together.
    fn series(seed: u64, n: usize, median: f64, noise: f64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut burst = 0.0;
        (0..n)
            .map(|_| {
                let u: f64 = rng.random();
                burst = 0.7 * burst + 0.3 * rng.random::<f64>();
                median * (1.0 + noise * (u - 0.5) + noise * (burst - 0.5) + noise * u.powi(8))
            })
            .collect()
    }

    fn profile(point: i64, at: i64, samples: Vec<f64>, steps: &[(&str, f64)]) -> Profile {
        let target = Target::Cpu(CpuIsa::X86_64V3);
        Profile {
            target,
            device: Device { kind: DeviceKind::Cpu, name: "cpu".into(), cores: 2, detail: "1".into(), targets: vec![target] },
            point: BTreeMap::from([("batch".to_owned(), point)]),
            threads: 2,
            latency: Quantiles::of(&samples).unwrap(),
            samples,
            steps: steps.iter().map(|(l, s)| ((*l).to_owned(), *s)).collect(),
            tools: BTreeMap::new(),
            at,
        }
    }

    #[test]
    fn a_real_difference_is_found_in_its_direction() {
        let old = series(1, 200, 0.010, 0.05);
        let d = difference(&old, &series(2, 200, 0.009, 0.05));
        assert_eq!(d.verdict, Verdict::Faster, "{d:?}");
        let (low, high) = d.interval.unwrap();
        assert!(low < 0.9 && 0.9 < high || (d.ratio - 0.9).abs() < 0.01, "{d:?}");
        assert!(low <= d.ratio && d.ratio <= high, "{d:?}");
        assert_eq!(difference(&old, &series(3, 200, 0.011, 0.05)).verdict, Verdict::Slower);
    }

    #[test]
    fn equal_distributions_are_seldom_called_different() {
        let wrong = (0..60).filter(|i| {
            let d = difference(&series(2 * i, 100, 0.01, 0.1), &series(2 * i + 1, 100, 0.01, 0.1));
            d.verdict != Verdict::NoDifference
        });
        let wrong = wrong.count();
        assert!(wrong <= 3, "{wrong} of 60 comparisons of equals found a difference");
    }

    #[test]
    fn certain_but_tiny_differences_are_none() {
        let old: Vec<f64> = (0..500).map(|i| 1.0 + f64::from(i % 10) * 1e-5).collect();
        let new: Vec<f64> = old.iter().map(|s| s * 1.002).collect();
        let d = difference(&old, &new);
        assert!(d.p.unwrap() < 1e-6);
        assert_eq!(d.verdict, Verdict::NoDifference);
    }

    #[test]
    fn few_or_unusable_samples_do_not_decide() {
        let many = series(1, 100, 0.01, 0.05);
        for few in [vec![], vec![0.001; FEWEST_SAMPLES - 1], vec![f64::NAN; 100], vec![0.0; 100], vec![-1.0; 100]] {
            assert_eq!(difference(&many, &few).verdict, Verdict::TooFewSamples);
            assert_eq!(difference(&few, &many).verdict, Verdict::TooFewSamples);
        }
        assert_eq!(difference(&[1.0; 100], &[1.0; 100]).verdict, Verdict::NoDifference);
        let long = series(1, 100_000, 0.01, 0.05);
        assert_eq!(difference(&long, &long).verdict, Verdict::NoDifference);
    }

    #[test]
    fn the_same_samples_give_the_same_answer() {
        let (a, b) = (series(1, 300, 1.0, 0.2), series(2, 300, 1.01, 0.2));
        assert_eq!(difference(&a, &b), difference(&a, &b));
    }

    #[test]
    fn mann_whitney_agrees_with_a_published_example() {
        // Hollander & Wolfe, "Nonparametric Statistical Methods" (1973), p. 69: permeability of membranes. U = 35 of 50; the
        // exact two-sided p is 0.2544, and the corrected normal approximation erfc(9.5 / sqrt(10 * 5 * 16 / 12) / sqrt(2)).
        let x = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
        let y = [1.15, 0.88, 0.90, 0.74, 1.21];
        let p = mann_whitney(&x, &y);
        assert!((p - 0.2446236).abs() < 1e-6, "{p}");
    }

    #[test]
    fn medians() {
        assert!(median(&mut []).is_nan());
        assert_eq!(median(&mut [3.0]), 3.0);
        assert_eq!(median(&mut [4.0, 1.0]), 2.5);
        assert_eq!(median(&mut [5.0, 1.0, 9.0]), 5.0);
        assert_eq!(median(&mut [5.0, 1.0, 9.0, 7.0]), 6.0);
    }

    #[test]
    fn profiles_are_matched_by_point_and_the_last_one_counts() {
        let fast = series(1, 50, 0.5, 0.02);
        let slow = series(2, 50, 1.0, 0.02);
        let old = [profile(1, 10, slow.clone(), &[]), profile(8, 10, slow.clone(), &[]), profile(4, 10, slow.clone(), &[])];
        let new = [profile(8, 30, fast, &[]), profile(8, 20, slow.clone(), &[]), profile(1, 20, slow, &[])];
        let found = compare(&old, &new);
        let summary: Vec<_> = found.iter().map(|c| (c.point["batch"], c.difference.verdict)).collect();
        assert_eq!(summary, [(8, Verdict::Faster), (1, Verdict::NoDifference)]);
    }

    #[test]
    fn steps_are_matched_by_label_and_occurrence() {
        let samples = series(1, 50, 1.0, 0.02);
        let old = [profile(1, 1, samples.clone(), &[("conv a", 1e-3), ("conv a", 2e-3), ("relu", 1e-7), ("gone", 1e-3)])];
        let new = [profile(1, 2, samples, &[("conv a", 1.05e-3), ("conv a", 1e-3), ("relu", 5e-7), ("added", 1e-3)])];
        let found = compare(&old, &new);
        let steps: Vec<_> = found[0].steps.iter().map(|s| (s.label.as_str(), s.verdict)).collect();
        assert_eq!(
            steps,
            [
                ("conv a", Some(Verdict::NoDifference)),
                ("conv a", Some(Verdict::Faster)),
                ("relu", Some(Verdict::NoDifference)),
                ("added", None),
                ("gone", None),
            ]
        );
    }
}
