//! The search for the best candidate of every task of a variant, as a pure state machine: the driver feeds it with built
//! objects and outcomes, and carries out the [`Action`]s that it returns.
//!
//! * **Known work is not done twice**: outcomes from TuningRecords count like fresh ones; only what is missing is measured, together with
//!   the best known candidates, because times from different races do not compare well.
//! * **Heavy tasks first**, with more candidates: a task's share of the model's estimated work decides how many translation units are
//!   built for it and how long it may be measured.
//! * **Neighbours help**: a task of which nothing is known begins with the units that are fast in those most like it, and few others.
//! * **Kin follow**: of tasks that differ only in their fused steps, the heaviest is searched, and of the others only its best race.
//! * **Small sizes first**: a spec's points are tuned one after the other. On a CPU, where sizes share units, the best guess of every unit for
//!   the larger size races beside the best of the size before.
//! * **Survey, then refine**: on a CPU the units that came out best race once more, with all their run-time integers. Those cost no compiling, and
//!   which of them are good depends on the size.
//! * **Deterministic**: what is asked for depends on the blueprint, the settings and the outcomes alone, never on their order of arrival, so that
//!   a restarted coordinator asks for the same work items.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use aotfarm_protocol::{AutotuneTable, CandidateId, Digest, MeasureProtocol, MeasureSpec, Outcome, Params, TaskKey, TuneMode};

use crate::planner::{Blueprint, CandidateOutline, Decision, TaskOutline, TaskRef};
use crate::rehearsal::{self, Contest};

/// Version of the measuring protocol that this coordinator asks for.
pub const PROTOCOL_VERSION: u32 = 1;

/// Milliseconds that every Measure item gets at least.
const BUDGET_FLOOR_MS: u64 = 150;
/// How many candidates of its leader a follower races, at the first point and at each further one, where runs are longer.
const FOLLOWED: [usize; 2] = [28, 16];
/// How many of the fastest at the size before race again at the next one.
const KEPT: usize = 6;
/// How many units of similar tasks a search begins with, and how many others beside them.
const SIMILAR_UNITS: usize = 4;
/// See [`SIMILAR_UNITS`].
const FRESH_UNITS: usize = 2;
/// With so many candidates timed a task has been searched: what a search of today would choose to consider is no reason to measure more.
const SEARCHED: usize = 10;
/// How many units are refined, if their best is as near to the fastest as [`REFINED_WITHIN`] says.
const REFINED_UNITS: usize = 3;
/// See [`REFINED_UNITS`].
const REFINED_WITHIN: f64 = 1.35;
/// The most candidates that refining adds.
const REFINED: usize = 24;
/// How many come from the size before on a GPU, where each size is searched anew.
const GPU_FINALISTS: usize = 3;
/// How many candidates race at a later point at least, if there are so many.
const MIN_FIELD: usize = 3;
/// What a finalist costs at least, in runs: its check and the last one, which go over all memory several times, and a few runs.
const RUNS_OF_FINALIST: f64 = 13.0;
/// The share of the work from which on a task is rehearsed.
const HEAVY: f64 = 0.004;
/// A candidate that a race had no time for is tried again with this many times its time: how a budget is shared differs from model to model.
const AMPLE: f64 = 3.0;
/// How many known candidates race again beside new ones.
const CHAMPIONS: usize = 2;
/// Above this many operations the naive kernel takes too long to be the reference at a point that is not the first; a candidate that
/// was checked against it at the first point takes its place.
const NAIVE_REFERENCE_FLOPS: f64 = 5e8;
/// Likewise on a GPU.
const NAIVE_REFERENCE_FLOPS_ON_GPU: f64 = 1e12;

/// How much to tune.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The mode.
    pub mode: TuneMode,
    /// Most candidates per task, when the user said so.
    pub trials: Option<u32>,
    /// Milliseconds of measuring for the variant, in all.
    pub budget_ms: u64,
    /// Threads of a kernel's team.
    pub threads: u32,
    /// The variant is for a GPU: sizes of a dimension share units, but not the kernels that are fast, so each is searched anew; and times scatter
    /// little.
    pub gpu: bool,
}

impl Settings {
    /// `(candidates, translation units)` for a task that is `share` of the work at its point.
    fn trials(&self, share: f64) -> (Option<u32>, usize) {
        match (self.mode, self.trials) {
            (_, Some(n)) => (Some(n.max(1)), usize::MAX),
            (TuneMode::Full, None) => (None, usize::MAX),
            (_, None) if self.gpu => (Some(if share >= 0.01 { 22 } else { 10 }), usize::MAX),
            (_, None) if share >= 0.04 => (Some(96), 10),
            (_, None) if share >= 0.01 => (Some(48), 6),
            (_, None) => (Some(12), 4),
        }
    }

    /// `footprint` is what one run of the whole model touches, in bytes.
    fn protocol(&self, budget_ms: u64, footprint: u64) -> MeasureProtocol {
        let full = self.mode == TuneMode::Full;
        if self.gpu {
            return MeasureProtocol {
                version: PROTOCOL_VERSION,
                threads: self.threads,
                screen_runs: 3,
                race_runs: if full { 50 } else { 20 },
                race_width: 6,
                drop_factor: if full { 2.0 } else { 1.3 },
                rotate_bytes: footprint,
                budget_ms,
                run_limit_ms: 10_000,
                memory_limit: 64 << 30,
            };
        }
        MeasureProtocol {
            version: PROTOCOL_VERSION,
            threads: self.threads,
            screen_runs: 8,
            race_runs: if full { 200 } else { 60 },
            race_width: 6,
            drop_factor: if full { 3.0 } else { 2.0 },
            rotate_bytes: 64 << 20,
            budget_ms,
            run_limit_ms: 20_000,
            memory_limit: 4 << 30,
        }
    }
}

/// A stored outcome and the budget under which it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The outcome.
    pub outcome: Outcome,
    /// Milliseconds that its Measure item had.
    pub budget_ms: u64,
    /// `family@version`.
    pub family: String,
    /// The candidate's parameters.
    pub params: Params,
}

/// Stored outcomes by task and candidate.
pub type KnownOutcomes = HashMap<TaskKey, BTreeMap<CandidateId, Known>>;

/// For a task, the best points of families in the tasks that are most like it, as `family@version` and parameters, the fastest of the nearest first.
pub type Similar = HashMap<TaskKey, Vec<(String, Params)>>;

/// What the driver must do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Have a translation unit built; answer with [`Tuner::built`].
    Build {
        /// Digest of its text.
        unit: Digest,
        /// For people.
        label: String,
    },
    /// Have candidates measured; answer with [`Tuner::measured`].
    Measure {
        /// The task.
        task: TaskRef,
        /// The work.
        spec: Box<MeasureSpec>,
        /// The candidates, in the order of the spec.
        candidates: Vec<CandidateOutline>,
    },
    /// Store that candidates could not be built.
    RecordBuildFailure {
        /// The task.
        key: TaskKey,
        /// The candidates that share the unit.
        candidates: Vec<CandidateOutline>,
        /// The unit.
        unit: Digest,
        /// What the compiler said.
        log: String,
        /// How they would have been measured.
        protocol: MeasureProtocol,
    },
    /// A task is decided.
    Decided {
        /// Its table.
        table: Box<AutotuneTable>,
    },
    /// Something that the user should know.
    Note(String),
}

/// How a work item ended, and what it cost.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cost {
    /// Seconds of work, 0 when the result was cached.
    pub seconds: f64,
    /// Who did it, when it was not cached.
    pub worker: Option<String>,
}

/// How the planned candidates fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Candidates that were to be measured.
    pub planned: u32,
    /// Of which have a time.
    pub measured: u32,
    /// Did not compile.
    pub build_failed: u32,
    /// Crashed, ran into a limit, or computed wrong numbers.
    pub faulty: u32,
    /// The device or the budget did not allow it.
    pub unsupported: u32,
    /// Their work item was given up.
    pub given_up: u32,
}

impl Tally {
    /// Whether at least half of those that there was time for were measured. The budget cuts off the guesses that are believed worst, in a large model many
    /// of them.
    #[must_use]
    pub fn tells_enough(&self) -> bool {
        let tried = self.planned.saturating_sub(self.unsupported);
        self.planned == 0 || (self.measured > 0 && 2 * self.measured >= tried)
    }

    /// The sum of two.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            planned: self.planned + other.planned,
            measured: self.measured + other.measured,
            build_failed: self.build_failed + other.build_failed,
            faulty: self.faulty + other.faulty,
            unsupported: self.unsupported + other.unsupported,
            given_up: self.given_up + other.given_up,
        }
    }
}

#[derive(Debug, Clone)]
enum Unit {
    Wanted,
    Built(Digest, Cost),
    /// The compiler refused it; measured as a fact about the source.
    Refused(String, Cost),
    /// Its work item is quarantined: a fact about the farm, never stored.
    GivenUp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not begun: the point before is not decided.
    Waiting,
    Building,
    Measuring,
    Decided,
}

#[derive(Debug)]
struct Task {
    key: TaskKey,
    title: String,
    allowed: f64,
    footprint: u64,
    /// The spec that is searched in its stead, if it is not the first of its kin.
    leader: Option<usize>,
    /// Whether it is a part of the model's work that shows.
    heavy: bool,
    stage: Stage,
    budget_ms: u64,
    trials: Option<u32>,
    max_units: usize,
    /// Whether it begins with what an earlier search found out. Its best unit was refined then, if all of it is known; which are next best is luck.
    searched: bool,
    /// Whether its best units are refined after a first race.
    refines: bool,
    /// Whether they have been.
    refined: bool,
    considered: Vec<CandidateOutline>,
    reference: Option<CandidateOutline>,
    /// Those that a Measure item is made for, in order.
    racing: Vec<CandidateOutline>,
    outcomes: BTreeMap<CandidateId, Outcome>,
    given_up: u32,
    measure: Cost,
    winner: Option<CandidateOutline>,
}

impl Task {
    /// Milliseconds for its next race: one that is to be refined has two.
    fn race_ms(&self) -> u64 {
        if self.refines { (self.budget_ms / 2).max(BUDGET_FLOOR_MS) } else { self.budget_ms }
    }
}

/// The search in one variant.
pub struct Tuner {
    blueprint: Arc<dyn Blueprint>,
    variant: usize,
    settings: Settings,
    known: Arc<KnownOutcomes>,
    similar: Similar,
    /// `tasks[spec][point]`.
    tasks: Vec<Vec<Task>>,
    /// Indices of specs, the heaviest first.
    order: Vec<usize>,
    units: BTreeMap<Digest, Unit>,
    /// What every Measure item needs besides, on a GPU.
    tools: Option<Digest>,
}

impl Tuner {
    /// Lays out the search. `known` may hold records of any tasks.
    pub fn new(blueprint: Arc<dyn Blueprint>, variant: usize, settings: Settings, known: Arc<KnownOutcomes>) -> Self {
        let specs = blueprint.variants()[variant].specs.clone();
        let points = specs.iter().map(|s| s.tasks.len()).max().unwrap_or(1);
        let cost =
            |spec: usize, point: usize| specs[spec].tasks.get(point).map_or(0.0, |t| f64::from(t.calls) * t.flops.max(1.0));
        let totals: Vec<f64> = (0..points).map(|p| (0..specs.len()).map(|s| cost(s, p)).sum::<f64>().max(1.0)).collect();
        let mut order: Vec<usize> = (0..specs.len()).collect();
        order.sort_by(|a, b| cost(*b, 0).total_cmp(&cost(*a, 0)).then(a.cmp(b)));
        // Each point is as important as the others, whatever it costs: they share the budget equally.
        let budget = settings.budget_ms as f64 / points as f64;
        let leader = |spec: usize, point: usize| {
            let kin = |other: usize| specs[other].tasks.get(point).and_then(|t| t.kin);
            let first = order.iter().copied().find(|&other| kin(other) == kin(spec))?;
            (kin(spec).is_some() && first != spec).then_some(first)
        };
        let tasks = (0..specs.len())
            .map(|spec| {
                let task = |(point, outline): (usize, &TaskOutline)| {
                    // Half of what a follower would have goes to its leader, which searches for both.
                    let given = |other: &usize| leader(*other, point) == Some(spec);
                    let own = if leader(spec, point).is_some() { 0.5 } else { 1.0 };
                    let received: f64 = order.iter().filter(|other| given(other)).map(|other| cost(*other, point) / 2.0).sum();
                    let share = (own * cost(spec, point) + received) / totals[point];
                    let (trials, max_units) = settings.trials(cost(spec, 0) / totals[0]);
                    Task {
                        key: outline.key,
                        title: outline.title.clone(),
                        allowed: outline.allowed,
                        footprint: outline.footprint,
                        leader: leader(spec, point).filter(|_| settings.mode == TuneMode::Quick),
                        heavy: cost(spec, point) >= HEAVY * totals[point],
                        stage: Stage::Waiting,
                        budget_ms: ((budget * share) as u64).max(BUDGET_FLOOR_MS),
                        trials,
                        max_units,
                        searched: false,
                        refines: !settings.gpu && settings.mode == TuneMode::Quick && leader(spec, point).is_none(),
                        refined: false,
                        considered: Vec::new(),
                        reference: None,
                        racing: Vec::new(),
                        outcomes: BTreeMap::new(),
                        given_up: 0,
                        measure: Cost::default(),
                        winner: None,
                    }
                };
                specs[spec].tasks.iter().enumerate().map(task).collect()
            })
            .collect();
        let tools = blueprint.tools(variant);
        Self { blueprint, variant, settings, known, similar: Similar::new(), tasks, order, units: BTreeMap::new(), tools }
    }

    /// Begins tasks of which nothing is known with these.
    #[must_use]
    pub fn beginning_with(self, similar: Similar) -> Self {
        Self { similar, ..self }
    }

    /// What the first round will ask for: `(tasks, known tasks, candidates, units)`. Valid after the first [`Self::advance`].
    pub fn overview(&self) -> (u32, u32, u32, u32) {
        let all = || self.tasks.iter().flatten();
        let known = all().filter(|t| self.known.get(&t.key).is_some_and(|k| !k.is_empty())).count();
        let candidates: usize = all().map(|t| t.considered.len()).sum();
        (all().count() as u32, known as u32, candidates as u32, self.units.len() as u32)
    }

    /// Milliseconds of measuring that may still come.
    pub fn remaining_ms(&self) -> u64 {
        self.tasks.iter().flatten().filter(|t| t.stage != Stage::Decided && t.considered.len() != 1).map(|t| t.budget_ms).sum()
    }

    /// A Build item ended: with the object, with the compiler's refusal, or given up.
    pub fn built(&mut self, unit: Digest, end: Option<Result<Digest, String>>, cost: Cost) {
        let state = match end {
            Some(Ok(object)) => Unit::Built(object, cost),
            Some(Err(log)) => Unit::Refused(log, cost),
            None => Unit::GivenUp,
        };
        self.units.insert(unit, state);
    }

    /// A Measure item ended: with outcomes, or given up.
    pub fn measured(&mut self, task: TaskRef, end: Option<Vec<(CandidateId, Outcome)>>, cost: Cost) {
        let task = &mut self.tasks[task.spec][task.point];
        match end {
            Some(outcomes) => task.outcomes.extend(outcomes),
            None => task.given_up += task.racing.iter().filter(|c| !task.outcomes.contains_key(&c.id)).count() as u32,
        }
        task.measure.seconds += cost.seconds;
        task.measure.worker = cost.worker.or(task.measure.worker.take());
        // All that was to be learnt is learnt: the decision follows at the next `advance`.
        task.racing.clear();
    }

    /// Whether every task has its winner.
    pub fn is_done(&self) -> bool {
        self.tasks.iter().flatten().all(|t| t.stage == Stage::Decided)
    }

    /// What a rehearsal is to find out: for every task, its winner and those that were nearly as fast in the race.
    pub fn contests(&self) -> Vec<Contest> {
        let mut contests = Vec::new();
        for (spec, tasks) in self.tasks.iter().enumerate() {
            for (point, task) in tasks.iter().enumerate() {
                let Some(winner) = &task.winner else { continue };
                let here = self.task_ref(spec, point);
                let outline = &self.blueprint.variants()[self.variant].specs[spec].tasks[point];
                let ranked = if self.measures(task) && task.heavy { timed(task) } else { Vec::new() };
                contests.push(rehearsal::contest(here, &task.title, &outline.point, winner, &ranked));
            }
        }
        contests
    }

    /// How the candidates that were to be measured fared.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for task in self.tasks.iter().flatten().filter(|t| self.measures(t)) {
            tally.planned += task.considered.len() as u32;
            tally.given_up += task.given_up;
            for candidate in &task.considered {
                match task.outcomes.get(&candidate.id) {
                    Some(Outcome::Measured(m)) if m.samples.is_empty() => tally.unsupported += 1,
                    Some(Outcome::Measured(_)) => tally.measured += 1,
                    Some(Outcome::BuildFailed { .. }) => tally.build_failed += 1,
                    Some(Outcome::Crashed { .. } | Outcome::TimedOut { .. } | Outcome::WrongResult { .. }) => tally.faulty += 1,
                    Some(Outcome::Unsupported { .. }) => tally.unsupported += 1,
                    None => {}
                }
            }
        }
        tally
    }

    /// Goes as far as the outcomes allow and returns what is needed to go on.
    pub fn advance(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        for spec in self.order.clone() {
            for point in 0..self.tasks[spec].len() {
                let led = self.tasks[spec][point].leader;
                if led.is_some_and(|leader| self.tasks[leader][point].stage != Stage::Decided) {
                    break;
                }
                if self.tasks[spec][point].stage == Stage::Waiting {
                    self.begin(spec, point, &mut actions);
                }
                self.go_on(spec, point, &mut actions);
                if self.tasks[spec][point].stage != Stage::Decided {
                    break;
                }
            }
        }
        actions
    }

    /// A task that has begun: as far as it can go.
    fn go_on(&mut self, spec: usize, point: usize, actions: &mut Vec<Action>) {
        loop {
            if self.tasks[spec][point].stage == Stage::Building {
                self.race(spec, point, actions);
            }
            if self.tasks[spec][point].stage != Stage::Measuring || !self.tasks[spec][point].racing.is_empty() {
                return;
            }
            if !self.refine(spec, point) {
                self.decide(spec, point, actions);
                return;
            }
            self.ask(spec, point, actions);
        }
    }

    fn task_ref(&self, spec: usize, point: usize) -> TaskRef {
        TaskRef { variant: self.variant, spec, point }
    }

    /// Whether there is anything to find out: a task with only its naive candidate is decided.
    fn measures(&self, task: &Task) -> bool {
        let lonely = task.considered.len() == 1 && task.reference.as_ref().is_some_and(|r| r.id == task.considered[0].id);
        self.settings.mode != TuneMode::None && !lonely
    }

    /// Chooses what to consider, takes what is known, and asks for the units of the rest.
    fn begin(&mut self, spec: usize, point: usize, actions: &mut Vec<Action>) {
        let (considered, searched) = match self.searched(self.task_ref(spec, point)) {
            Some(considered) => (considered, true),
            None => (self.consider(spec, point), false),
        };
        let naive = self.reference(spec, point);
        let task = &mut self.tasks[spec][point];
        (task.reference, task.searched) = (Some(naive), searched);
        self.add(spec, point, considered);
        self.ask(spec, point, actions);
    }

    /// Considers these as well, and takes what is known of them.
    fn add(&mut self, spec: usize, point: usize, candidates: Vec<CandidateOutline>) {
        let task = &mut self.tasks[spec][point];
        let known = self.known.get(&task.key);
        for candidate in &candidates {
            let Some(k) = known.and_then(|k| k.get(&candidate.id)) else { continue };
            // "The budget ended" is no answer to someone who brings a larger one.
            if !matches!(k.outcome, Outcome::Unsupported { .. }) || AMPLE * k.budget_ms as f64 >= task.race_ms() as f64 {
                task.outcomes.insert(candidate.id, k.outcome.clone());
            }
        }
        task.considered.extend(candidates);
    }

    /// Asks for the units of those of whom nothing is known, and of the best known ones, which are to race beside them.
    fn ask(&mut self, spec: usize, point: usize, actions: &mut Vec<Action>) {
        let task = &self.tasks[spec][point];
        let missing: Vec<_> = task.considered.iter().filter(|c| !task.outcomes.contains_key(&c.id)).cloned().collect();
        let Some(naive) = task.reference.as_ref().filter(|_| self.measures(task) && !missing.is_empty()) else {
            self.tasks[spec][point].stage = Stage::Measuring;
            return;
        };
        let champions = best(task).into_iter().take(CHAMPIONS).cloned().collect::<Vec<_>>();
        let mut racing = missing;
        racing.extend(champions);
        let title = &task.title;
        let tools = self.tools.map(|unit| (unit, "tools for measuring".to_owned()));
        let kernels = std::iter::once(naive).chain(&racing).map(|c| (c.unit, format!("{} for {title}", c.family)));
        for (unit, label) in tools.into_iter().chain(kernels) {
            if let std::collections::btree_map::Entry::Vacant(entry) = self.units.entry(unit) {
                entry.insert(Unit::Wanted);
                actions.push(Action::Build { unit, label });
            }
        }
        let task = &mut self.tasks[spec][point];
        task.racing = racing;
        task.stage = Stage::Building;
    }

    /// Considers more of the units that came out best; whether there are more.
    fn refine(&mut self, spec: usize, point: usize) -> bool {
        let here = self.task_ref(spec, point);
        let task = &self.tasks[spec][point];
        if !task.refines || task.refined || !self.measures(task) {
            return false;
        }
        self.tasks[spec][point].refined = true;
        let task = &self.tasks[spec][point];
        let ranked = timed(task);
        let mut units: Vec<(Digest, Vec<CandidateOutline>)> = Vec::new();
        for (seconds, candidate) in &ranked {
            let near = *seconds <= REFINED_WITHIN * ranked[0].0;
            if near && units.len() < REFINED_UNITS && units.iter().all(|(unit, _)| *unit != candidate.unit) {
                units.push((candidate.unit, self.blueprint.siblings(here, candidate)));
            }
        }
        let new = |c: &&CandidateOutline| task.considered.iter().all(|known| known.id != c.id);
        if task.searched && units.first().is_some_and(|(_, siblings)| !siblings.iter().any(|c| new(&c))) {
            return false;
        }
        let places =
            self.settings.trials.map_or(REFINED, |n| REFINED.min((n as usize + 1).saturating_sub(task.considered.len())));
        let longest = units.iter().map(|(_, siblings)| siblings.len()).max().unwrap_or(0);
        let in_turn = (0..longest).flat_map(|k| units.iter().filter_map(move |(_, siblings)| siblings.get(k)));
        let new: Vec<CandidateOutline> = in_turn.filter(new).take(places).cloned().collect();
        if new.is_empty() {
            return false;
        }
        // Times of different races do not compare: of the first one's, those that race again come first.
        let champions: Vec<CandidateId> = ranked.iter().take(CHAMPIONS).map(|(_, c)| c.id).collect();
        let task = &mut self.tasks[spec][point];
        for (id, outcome) in &mut task.outcomes {
            if let Outcome::Measured(measurement) = outcome
                && !champions.contains(id)
            {
                measurement.raced = 0;
            }
        }
        self.add(spec, point, new);
        true
    }

    /// The candidates that a task begins with: the best of its leader, if it has one; else at the first point the blueprint's first ones, within the
    /// bound on units, and at a later one the best of the point before with the first guess of each unit.
    fn consider(&self, spec: usize, point: usize) -> Vec<CandidateOutline> {
        let here = self.task_ref(spec, point);
        let task = &self.tasks[spec][point];
        let mut guesses = self.guesses(here);
        if self.settings.mode == TuneMode::None {
            // What is known may be the result of a wider search.
            for (id, known) in self.known.get(&task.key).into_iter().flatten() {
                if guesses.iter().all(|g| g.id != *id) {
                    guesses.extend(self.blueprint.candidate(here, &known.family, &known.params));
                }
            }
        }
        let naive = self.blueprint.reference(here).family;
        let add = |chosen: &mut Vec<CandidateOutline>, new: CandidateOutline, most: usize| {
            if chosen.len() < most && chosen.iter().all(|c| c.id != new.id) {
                chosen.push(new);
            }
        };
        let mut chosen: Vec<CandidateOutline> = Vec::new();
        if let Some(leader) = task.leader {
            let places = FOLLOWED[usize::from(point > 0)];
            for fast in self.legal(here, &self.tasks[leader][point]).take(places) {
                add(&mut chosen, fast, places);
            }
        } else if self.settings.mode == TuneMode::Quick && self.settings.gpu && point > 0 {
            for fast in self.legal(here, &self.tasks[spec][point - 1]).take(GPU_FINALISTS) {
                add(&mut guesses, fast, usize::MAX);
            }
            return guesses;
        } else if self.settings.mode == TuneMode::Quick && !self.settings.gpu {
            let similar = self.similar_units(here);
            if point == 0 && similar.is_empty() {
                return guesses;
            }
            let mut units: BTreeSet<Digest> = similar.iter().map(|c| c.unit).collect();
            let most = if similar.is_empty() { usize::MAX } else { units.len() + FRESH_UNITS };
            let of_family = guesses.iter().filter(|g| g.family != naive);
            let fresh = of_family.filter(|g| units.len() < most && units.insert(g.unit)).cloned();
            let new: Vec<CandidateOutline> = similar.into_iter().chain(fresh).collect();
            // The naive one takes very long at large sizes: it races again only if it was among the fastest.
            let kept = self.tasks[spec][..point].last().map(|before| self.legal(here, before).take(KEPT).collect::<Vec<_>>());
            // In turn, because time may be up before all have had theirs.
            let (mut kept, mut new) = (kept.unwrap_or_default().into_iter(), new.into_iter());
            while let pair @ ((Some(_), _) | (_, Some(_))) = (kept.next(), new.next()) {
                for candidate in [pair.0, pair.1].into_iter().flatten() {
                    add(&mut chosen, candidate, usize::MAX);
                }
            }
        } else {
            return guesses;
        }
        // What is legal can depend on the size: a race of one is none.
        for guess in guesses.iter().filter(|g| g.family != naive) {
            add(&mut chosen, guess.clone(), MIN_FIELD);
        }
        if chosen.is_empty() { vec![self.blueprint.reference(here)] } else { chosen }
    }

    /// The blueprint's first candidates, within the bound on units.
    fn guesses(&self, here: TaskRef) -> Vec<CandidateOutline> {
        let task = &self.tasks[here.spec][here.point];
        let mut units = BTreeSet::new();
        let mut guesses = self.blueprint.candidates(here, self.settings.mode, task.trials);
        guesses.retain(|c| units.contains(&c.unit) || (units.len() < task.max_units && units.insert(c.unit)));
        guesses
    }

    /// What a task that has been searched before considers: what is known, and families that are new.
    fn searched(&self, here: TaskRef) -> Option<Vec<CandidateOutline>> {
        if self.settings.mode != TuneMode::Quick || self.settings.trials.is_some() || self.settings.gpu {
            return None;
        }
        let task = &self.tasks[here.spec][here.point];
        let known = self.known.get(&task.key)?;
        let mut timed: Vec<_> = known.values().filter_map(|k| Some((rank(&k.outcome, task.allowed)?, k))).collect();
        if timed.len() < SEARCHED {
            return None;
        }
        timed.sort_by(|(a, _), (b, _)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let naive = self.blueprint.reference(here).family;
        let families: BTreeSet<&str> = known.values().map(|k| k.family.as_str()).chain([naive.as_str()]).collect();
        // A follower leaves new families to its leader.
        let new = |c: &CandidateOutline| task.leader.is_none() && !families.contains(c.family.as_str());
        let mut considered = self.guesses(here);
        considered.retain(|c| known.contains_key(&c.id) || new(c));
        for (_, k) in timed.into_iter().take(KEPT) {
            let fast = self.blueprint.candidate(here, &k.family, &k.params);
            considered.extend(fast.filter(|fast| considered.iter().all(|c| c.id != fast.id)));
        }
        Some(considered)
    }

    /// The best guess of each unit that is fast in tasks like this one.
    fn similar_units(&self, here: TaskRef) -> Vec<CandidateOutline> {
        let naive = self.blueprint.reference(here).family;
        let mut chosen: Vec<CandidateOutline> = Vec::new();
        for (family, params) in self.similar.get(&self.tasks[here.spec][here.point].key).into_iter().flatten() {
            if chosen.len() == SIMILAR_UNITS {
                break;
            }
            if *family == naive {
                continue;
            }
            let alike = self.blueprint.alike(here, family, params);
            chosen.extend(alike.filter(|c| chosen.iter().all(|other| other.unit != c.unit)));
        }
        chosen
    }

    /// The candidates of another task that are right and legal here, the fastest there first.
    fn legal<'a>(&'a self, here: TaskRef, other: &'a Task) -> impl Iterator<Item = CandidateOutline> + 'a {
        // A vendor's library is no candidate here, and takes nobody's place.
        best(other).into_iter().filter_map(move |c| self.blueprint.candidate(here, &c.family, &c.params))
    }

    /// What candidates are checked against.
    fn reference(&self, spec: usize, point: usize) -> CandidateOutline {
        let here = self.task_ref(spec, point);
        let naive = self.blueprint.reference(here);
        let flops = self.blueprint.variants()[self.variant].specs[spec].tasks[point].flops;
        let most = if self.settings.gpu { NAIVE_REFERENCE_FLOPS_ON_GPU } else { NAIVE_REFERENCE_FLOPS };
        if point == 0 || flops <= most {
            return naive;
        }
        // The fastest that passed the check at the first point, from another family than the winner's if there is one: equal
        // mistakes of two families are unlikely.
        let first = &self.tasks[spec][0];
        let winner = first.winner.as_ref().map(|w| w.family.as_str());
        let ranked = best(first);
        let other = |c: &&&CandidateOutline| Some(c.family.as_str()) != winner && c.family != naive.family;
        // A vendor's library may be among the fastest, and has no code that could be the reference.
        let legal = |c: &&CandidateOutline| self.blueprint.candidate(here, &c.family, &c.params);
        let checked = ranked.iter().filter(other).find_map(legal).or_else(|| ranked.iter().find_map(legal));
        checked.unwrap_or(naive)
    }

    /// Once all units of a task have ended, asks for the race.
    fn race(&mut self, spec: usize, point: usize, actions: &mut Vec<Action>) {
        let task = &self.tasks[spec][point];
        let Some(reference) = task.reference.clone() else { return };
        let ended = |unit: &Digest| !matches!(self.units.get(unit), None | Some(Unit::Wanted));
        if !self.tools.iter().chain([&reference.unit]).chain(task.racing.iter().map(|c| &c.unit)).all(ended) {
            return;
        }
        let expected = self.expected_seconds(spec, point).filter(|_| !self.settings.gpu);
        let task = &mut self.tasks[spec][point];
        task.stage = Stage::Measuring;
        let mut protocol = self.settings.protocol(task.race_ms(), task.footprint);
        if let Some(seconds) = expected {
            let affordable = task.race_ms() as f64 / (1e3 * seconds * RUNS_OF_FINALIST);
            protocol.race_width = (affordable as u32).clamp(MIN_FIELD as u32, protocol.race_width);
        }
        let mut refused: BTreeMap<Digest, (String, Vec<CandidateOutline>)> = BTreeMap::new();
        let mut objects = Vec::new();
        let mut racing = Vec::new();
        for candidate in std::mem::take(&mut task.racing) {
            match &self.units[&candidate.unit] {
                Unit::Built(object, _) => {
                    objects.push((candidate.id, *object));
                    racing.push(candidate);
                }
                Unit::Refused(log, _) => {
                    task.outcomes.insert(candidate.id, Outcome::BuildFailed { log: log.clone() });
                    refused.entry(candidate.unit).or_insert_with(|| (log.clone(), Vec::new())).1.push(candidate);
                }
                Unit::GivenUp => task.given_up += 1,
                Unit::Wanted => unreachable!("all units have ended"),
            }
        }
        let key = task.key;
        actions.extend(refused.into_iter().map(|(unit, (log, candidates))| Action::RecordBuildFailure {
            key,
            candidates,
            unit,
            log,
            protocol,
        }));
        let built = |unit: &Digest| match &self.units[unit] {
            Unit::Built(object, _) => Some(*object),
            _ => None,
        };
        let (Some(reference_object), true) = (built(&reference.unit), self.tools.is_none_or(|unit| built(&unit).is_some()))
        else {
            actions.push(Action::Note(format!(
                "{}: the reference kernel or the measuring tools could not be built, so nothing was measured",
                task.title
            )));
            task.given_up += racing.len() as u32;
            return;
        };
        let tools = self.tools.and_then(|unit| built(&unit));
        if racing.is_empty() {
            return;
        }
        let seed = u64::from_le_bytes(key.0.as_bytes()[..8].try_into().expect("a digest has 32 bytes"));
        let task_ref = TaskRef { variant: self.variant, spec, point };
        let work = self.blueprint.measure(task_ref, (reference.id, reference_object), &objects, tools, protocol, seed);
        task.racing.clone_from(&racing);
        actions.push(Action::Measure { task: task_ref, spec: Box::new(work), candidates: racing });
    }

    /// What a run of the fastest will take: as an earlier race here or its leader's told, or as the work grows from the size before.
    fn expected_seconds(&self, spec: usize, point: usize) -> Option<f64> {
        let best = |task: &Task| timed(task).first().map(|(seconds, _)| *seconds);
        let task = &self.tasks[spec][point];
        let of_leader = || best(&self.tasks[task.leader?][point]);
        let of_smaller = || {
            let outlines = &self.blueprint.variants()[self.variant].specs[spec].tasks;
            let before = point.checked_sub(1)?;
            Some(best(&self.tasks[spec][before])? * outlines[point].flops / outlines[before].flops.max(1.0))
        };
        best(task).or_else(of_leader).or_else(of_smaller)
    }

    fn decide(&mut self, spec: usize, point: usize, actions: &mut Vec<Action>) {
        let task_ref = self.task_ref(spec, point);
        let task = &self.tasks[spec][point];
        let ids: Vec<CandidateId> = task.considered.iter().map(|c| c.id).collect();
        let outcomes: Vec<(CandidateId, Outcome)> =
            ids.iter().filter_map(|id| task.outcomes.get(id).map(|o| (*id, o.clone()))).collect();
        let beside: Vec<CandidateId> = self.tasks[spec].iter().filter_map(|other| other.winner.as_ref()).map(|w| w.id).collect();
        let decision = self.blueprint.select(task_ref, &ids, &outcomes, &beside);
        let naive = self.blueprint.reference(task_ref);
        // Nothing was shown to be right: what is right by definition wins, not a guess.
        let winner = if self.measures(task) && decision.measured + decision.dropped == 0 {
            actions.push(Action::Note(format!(
                "{}: no candidate was shown to be right and timed; the naive kernel is taken",
                task.title
            )));
            naive
        } else {
            decision.winner.clone()
        };
        let table = self.table(task, decision);
        let silent = !self.measures(task);
        let task = &mut self.tasks[spec][point];
        task.winner = Some(winner);
        task.stage = Stage::Decided;
        if !silent {
            actions.push(Action::Decided { table: Box::new(table) });
        }
    }

    fn table(&self, task: &Task, decision: Decision) -> AutotuneTable {
        let mut workers: BTreeSet<&str> = task.measure.worker.as_deref().into_iter().collect();
        let units: BTreeSet<Digest> = task.considered.iter().map(|c| c.unit).collect();
        let (mut built, mut build_s) = (0, 0.0);
        for unit in units {
            if let Some(Unit::Built(_, cost) | Unit::Refused(_, cost)) = self.units.get(&unit) {
                built += 1;
                build_s += cost.seconds;
                workers.extend(cost.worker.as_deref());
            }
        }
        AutotuneTable {
            title: task.title.clone(),
            rows: decision.rows,
            considered: task.considered.len() as u32,
            built,
            measured: decision.measured,
            dropped: decision.dropped,
            build_s,
            measure_s: task.measure.seconds,
            workers: workers.len() as u32,
        }
    }
}

/// The candidates that have a time and are exact enough, the fastest first.
fn best(task: &Task) -> Vec<&CandidateOutline> {
    timed(task).into_iter().map(|(_, c)| c).collect()
}

/// [`best`], with their seconds.
fn timed(task: &Task) -> Vec<(f64, &CandidateOutline)> {
    let rank = |c: &CandidateOutline| task.outcomes.get(&c.id).and_then(|outcome| rank(outcome, task.allowed));
    let mut timed: Vec<((bool, f64), &CandidateOutline)> = task.considered.iter().filter_map(|c| Some((rank(c)?, c))).collect();
    timed.sort_by(|(a, _), (b, _)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    timed.into_iter().map(|((_, seconds), c)| (seconds, c)).collect()
}

/// What orders candidates that have a time and are exact enough, as the selection does: those of the final race before the others, each by its seconds at
/// the 20th percentile.
pub(crate) fn rank(outcome: &Outcome, allowed: f64) -> Option<(bool, f64)> {
    match outcome {
        Outcome::Measured(m) if !m.samples.is_empty() && m.error <= allowed => Some((m.raced == 0, m.quantile(0.2))),
        _ => None,
    }
}
