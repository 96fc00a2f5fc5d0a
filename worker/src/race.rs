//! Who is run next while candidates race: pure successive halving over interleaved rounds.
//!
//! On a shared host the same kernel can be a third slower for seconds, so candidates are never
//! timed one after the other: every round runs each candidate of the field once, in an order that
//! rotates, and the field shrinks between phases.
//!
//! 1. **Check**: each candidate once, in the order of the spec. The run is timed, and one that is hopeless already then
//!    (more than twice `drop_factor` times the best) is never run again.
//! 2. **Screen**, if there are more than `race_width`: `screen_runs` rounds; after the first, whoever is slower than `drop_factor` times the best is dropped.
//! 3. **Halve**: keep the best third, twice the rounds of the phase before, until `race_width` are left.
//! 4. **Race**: `race_runs` rounds of the last ones; whoever is far behind after the first of them leaves, and a candidate
//!    without any rival left need not run on.
//! 5. **Recheck**: the last ones must still be right, which a kernel with a data race often is not.
//!
//! Phases are ranked by the 20th percentile, whose error on a noisy host is the smallest for few
//! samples. The clock is an argument, so that tests can simulate it.

use std::time::Duration;

use aotfarm_protocol::{MeasureProtocol, Measurement, Outcome, RANK_QUANTILE, quantile};

/// The share of the budget after which no further candidate is begun, so that some is left to race those that are known.
const CHECK_SHARE: f64 = 0.5;
/// Rounds that the final race gets even when the budget is spent: fewer samples do not decide anything.
const MIN_RACE: u32 = 3;
/// Rounds of the final race after which one that is [`BEHIND`] times slower leaves: the ratio of two medians of so many
/// interleaved runs is off by 6 % at most (95 % of the time, on a busy host).
const SURE_RACE: u32 = 10;
/// See [`SURE_RACE`].
const BEHIND: f64 = 1.15;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Check this candidate against the reference; answer with [`Race::checked`] or [`Race::out`].
    Check(usize),
    /// Time each of `order` once, in this order; answer with [`Race::ran`] or [`Race::out`] for each. At most `rounds` rounds
    /// of the same field follow each other.
    Round { order: Vec<usize>, rounds: u32 },
}

#[derive(Debug, Default, Clone)]
struct Lane {
    /// Seconds of the run that was checked.
    check: Option<f64>,
    error: f64,
    samples: Vec<f64>,
    raced: u32,
    /// By which algorithm a vendor's library runs.
    algorithm: Option<i64>,
    /// Set when the candidate failed.
    outcome: Option<Outcome>,
}

impl Lane {
    /// Seconds by which the field is ranked.
    fn rank(&self) -> f64 {
        quantile(&self.samples, RANK_QUANTILE).or(self.check).unwrap_or(f64::INFINITY)
    }

    /// The median of the runs of the final race.
    fn race_median(&self) -> f64 {
        quantile(&self.samples[self.samples.len() - self.raced as usize..], 0.5).unwrap_or(f64::INFINITY)
    }
}

#[derive(Debug)]
enum Phase {
    Check {
        next: usize,
    },
    Rounds {
        field: Vec<usize>,
        /// Those that have left the final race without having failed.
        left: Vec<usize>,
        done: u32,
        rounds: u32,
        last: bool,
    },
    Recheck {
        field: Vec<usize>,
    },
    Over,
}

/// The state of the race of one task's candidates.
#[derive(Debug)]
pub(crate) struct Race {
    protocol: MeasureProtocol,
    lanes: Vec<Lane>,
    phase: Phase,
    rounds_run: usize,
}

impl Race {
    /// A race of `candidates` candidates, the most promising first.
    pub(crate) fn new(protocol: MeasureProtocol, candidates: usize) -> Self {
        Self { protocol, lanes: vec![Lane::default(); candidates], phase: Phase::Check { next: 0 }, rounds_run: 0 }
    }

    /// The next step when `elapsed` has passed since the first, or `None` when the race is over.
    pub(crate) fn next(&mut self, elapsed: Duration) -> Option<Step> {
        let spent = |share: f64| elapsed.as_secs_f64() * 1e3 > self.protocol.budget_ms as f64 * share;
        loop {
            match &mut self.phase {
                Phase::Check { next } => {
                    let i = *next;
                    if i < self.lanes.len() && (i < self.width() || !spent(CHECK_SHARE)) {
                        self.phase = Phase::Check { next: i + 1 };
                        return Some(Step::Check(i));
                    }
                    for lane in &mut self.lanes[i..] {
                        let reason =
                            format!("not tried: the budget of {} ms went to {i} better guesses", self.protocol.budget_ms);
                        lane.outcome = Some(Outcome::Unsupported { reason });
                    }
                    let best = self.lanes.iter().filter_map(|l| l.check).fold(f64::INFINITY, f64::min);
                    let field = self.alive(|l| l.check.is_some_and(|c| c <= 2.0 * self.protocol.drop_factor * best));
                    self.phase = self.rounds(field, self.protocol.screen_runs.max(1));
                }
                Phase::Rounds { field, left, done, rounds, last } => {
                    field.retain(|&i| self.lanes[i].outcome.is_none());
                    if *last && *done >= SURE_RACE {
                        let best = field.iter().map(|&i| self.lanes[i].race_median()).fold(f64::INFINITY, f64::min);
                        left.extend(field.extract_if(.., |i| self.lanes[*i].race_median() > BEHIND * best));
                        if field.len() == 1 {
                            *done = *rounds;
                        }
                    }
                    let enough = if *last { MIN_RACE.min(*rounds) } else { 1 };
                    if field.is_empty() && left.is_empty() {
                        self.phase = Phase::Over;
                    } else if !field.is_empty() && *done < *rounds && (*done < enough || !spent(1.0)) {
                        if *done == 1 && !*last {
                            // The first round is in: drop those that cannot win whatever the noise.
                            let best = field.iter().map(|&i| self.lanes[i].rank()).fold(f64::INFINITY, f64::min);
                            field.retain(|&i| self.lanes[i].rank() <= self.protocol.drop_factor * best);
                        }
                        *done += 1;
                        let mut order = field.clone();
                        order.rotate_left(self.rounds_run % field.len());
                        self.rounds_run += 1;
                        return Some(Step::Round { order, rounds: *rounds });
                    } else if *last {
                        // Who has left is checked as well: its times are kept, so it had better be right.
                        left.append(field);
                        self.phase = Phase::Recheck { field: std::mem::take(left) };
                    } else {
                        // A spent budget skips the phases in between, not the final race.
                        let third = if spent(1.0) { 0 } else { field.len().div_ceil(3) };
                        let (mut field, rounds) = (std::mem::take(field), rounds.saturating_mul(2));
                        field.sort_by(|&a, &b| self.lanes[a].rank().total_cmp(&self.lanes[b].rank()));
                        field.truncate(third.max(self.width()));
                        field.sort_unstable();
                        self.phase = self.rounds(field, rounds);
                    }
                }
                Phase::Recheck { field } => match field.pop() {
                    Some(i) if self.lanes[i].outcome.is_none() => return Some(Step::Check(i)),
                    Some(_) => {}
                    None => self.phase = Phase::Over,
                },
                Phase::Over => return None,
            }
        }
    }

    /// Candidate `i` was found right, with this relative L2 error, in a run of so many seconds.
    pub(crate) fn checked(&mut self, i: usize, error: f64, seconds: f64) {
        let lane = &mut self.lanes[i];
        lane.check.get_or_insert(seconds);
        lane.error = lane.error.max(error);
    }

    /// The library that candidate `i` is runs by this algorithm: in the last child that checked it, should one have replaced another.
    pub(crate) fn chose(&mut self, i: usize, algorithm: Option<i64>) {
        self.lanes[i].algorithm = algorithm.or(self.lanes[i].algorithm);
    }

    /// A timed run of candidate `i` took so many seconds.
    pub(crate) fn ran(&mut self, i: usize, seconds: f64) {
        let last = matches!(self.phase, Phase::Rounds { last: true, .. });
        let lane = &mut self.lanes[i];
        lane.samples.push(seconds);
        lane.raced += u32::from(last);
    }

    /// Candidate `i` failed and is out.
    pub(crate) fn out(&mut self, i: usize, outcome: Outcome) {
        self.lanes[i].outcome = Some(outcome);
    }

    /// Whether candidate `i` is out.
    pub(crate) fn is_out(&self, i: usize) -> bool {
        self.lanes[i].outcome.is_some()
    }

    /// What became of each candidate, in order. `conditions`: what is known of the device at the time.
    pub(crate) fn finish(self, conditions: Option<&str>) -> Vec<Outcome> {
        let outcome = |lane: Lane| {
            lane.outcome.unwrap_or_else(|| {
                // One that was dropped after its check has that run as its only sample.
                let samples = if lane.samples.is_empty() { lane.check.into_iter().collect() } else { lane.samples };
                let conditions = conditions.map(str::to_owned);
                let (raced, error, algorithm) = (lane.raced, lane.error, lane.algorithm);
                Outcome::Measured(Measurement { samples, raced, error, conditions, algorithm })
            })
        };
        self.lanes.into_iter().map(outcome).collect()
    }

    fn width(&self) -> usize {
        self.protocol.race_width.max(1) as usize
    }

    fn alive(&self, keep: impl Fn(&Lane) -> bool) -> Vec<usize> {
        (0..self.lanes.len()).filter(|&i| self.lanes[i].outcome.is_none() && keep(&self.lanes[i])).collect()
    }

    fn rounds(&self, field: Vec<usize>, rounds: u32) -> Phase {
        // Where there is anything to screen, the first round is what hopeless candidates are dropped by.
        let last = field.len() <= self.width() && (self.rounds_run > 0 || self.lanes.len() <= self.width());
        Phase::Rounds {
            field,
            left: Vec::new(),
            done: 0,
            rounds: if last { self.protocol.race_runs.max(1) } else { rounds },
            last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol() -> MeasureProtocol {
        MeasureProtocol {
            version: 1,
            threads: 1,
            screen_runs: 2,
            race_runs: 20,
            race_width: 3,
            drop_factor: 2.0,
            rotate_bytes: 0,
            budget_ms: 60_000,
            run_limit_ms: 1000,
            memory_limit: 1 << 30,
        }
    }

    /// Runs a race in which candidate `i` takes `cost(i, n)` seconds in its n-th run; returns the outcomes and the steps.
    fn simulate(protocol: MeasureProtocol, n: usize, cost: impl Fn(usize, usize) -> f64) -> (Vec<Outcome>, Vec<Step>) {
        let (mut race, mut clock, mut steps, mut runs) = (Race::new(protocol, n), 0.0, Vec::new(), vec![0; n]);
        while let Some(step) = race.next(Duration::from_secs_f64(clock)) {
            let mut run = |i: usize| {
                runs[i] += 1;
                clock += cost(i, runs[i]);
                cost(i, runs[i])
            };
            match &step {
                Step::Check(i) => {
                    let seconds = run(*i);
                    race.checked(*i, 1e-7, seconds);
                }
                Step::Round { order, .. } => order.iter().for_each(|&i| {
                    let seconds = run(i);
                    race.ran(i, seconds);
                }),
            }
            steps.push(step);
            assert!(steps.len() < 10_000, "the race does not end");
        }
        (race.finish(None), steps)
    }

    fn measured(outcome: &Outcome) -> &Measurement {
        match outcome {
            Outcome::Measured(m) => m,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_best_are_raced_interleaved_and_the_rest_keep_their_samples() {
        // Twelve candidates 10 % apart, and one ten times slower.
        let (outcomes, steps) = simulate(protocol(), 13, |i, _| if i == 12 { 10e-3 } else { 1e-3 * 1.1f64.powi(11 - i as i32) });
        let raced: Vec<_> = (0..13).filter(|&i| measured(&outcomes[i]).raced > 0).collect();
        assert_eq!(raced, [9, 10, 11], "the fastest three reach the final race");
        assert_eq!([9, 10, 11].map(|i| measured(&outcomes[i]).raced), [SURE_RACE, 20, 20], "the third is 21 % behind and leaves");
        assert_eq!(measured(&outcomes[12]).samples.len(), 1, "hopeless after its check: never run again");
        assert_eq!(measured(&outcomes[0]).samples.len(), 1, "2.85 times the best: dropped after one round");
        assert_eq!(measured(&outcomes[6]).samples.len(), 2, "screened, then halved away");
        // Every round runs each member once, and not always in the same order.
        let rounds: Vec<_> =
            steps.iter().filter_map(|s| if let Step::Round { order, .. } = s { Some(order) } else { None }).collect();
        for round in &rounds {
            let mut sorted = round.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), round.len());
        }
        assert_ne!(rounds[rounds.len() - 1], rounds[rounds.len() - 2]);
        // The finalists are checked once more at the end.
        assert_eq!(steps[steps.len() - 3..].iter().filter(|s| matches!(s, Step::Check(_))).count(), 3);
    }

    #[test]
    fn a_slow_phase_of_the_host_does_not_change_the_winner() {
        // Candidate 2 is 5 % faster; every run between the 4th and the 12th of anyone is a third slower.
        let (outcomes, _) =
            simulate(protocol(), 3, |i, n| if i == 2 { 0.95e-3 } else { 1e-3 } * if (4..12).contains(&n) { 1.34 } else { 1.0 });
        let medians: Vec<_> = outcomes.iter().map(|o| measured(o).median()).collect();
        assert!(medians[2] < medians[0] && medians[2] < medians[1], "{medians:?}");
    }

    #[test]
    fn the_budget_ends_the_race_but_not_before_the_best_guesses_were_raced() {
        let tight = MeasureProtocol { budget_ms: 10, ..protocol() };
        let (outcomes, _) = simulate(tight, 8, |_, _| 4e-3);
        for (i, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Outcome::Measured(m) => assert!(i < 3 && m.raced == MIN_RACE, "{i}: {m:?}"),
                Outcome::Unsupported { reason } => assert!(i >= 3 && reason.contains("budget of 10 ms"), "{i}: {reason}"),
                other => panic!("{i}: {other:?}"),
            }
        }
    }

    #[test]
    fn failed_candidates_leave_the_field_and_an_empty_field_ends_the_race() {
        let mut race = Race::new(protocol(), 2);
        assert_eq!(race.next(Duration::ZERO), Some(Step::Check(0)));
        race.out(0, Outcome::TimedOut { limit_ms: 5 });
        assert_eq!(race.next(Duration::ZERO), Some(Step::Check(1)));
        race.checked(1, 0.0, 1.0);
        assert_eq!(race.next(Duration::ZERO), Some(Step::Round { order: vec![1], rounds: 20 }));
        race.out(1, Outcome::Crashed { reason: "SIGSEGV".into() });
        assert_eq!(race.next(Duration::ZERO), None);
        assert_eq!(race.finish(None), [Outcome::TimedOut { limit_ms: 5 }, Outcome::Crashed { reason: "SIGSEGV".into() }]);
        assert_eq!(Race::new(protocol(), 0).next(Duration::ZERO), None);
    }
}
