//! The search for the best candidate of every task of a variant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aotfarm_protocol::{AutotuneTable, CandidateId, Digest, MeasureProtocol, Outcome};

use crate::action::{Action, Cost};
use crate::finalists::Finalists;
use crate::known::{KnownOutcomes, Similar};
use crate::outline::{CandidateOutline, SelectionOutline, TaskRef};
use crate::reference::reference;
use crate::settings::Settings;
use crate::shares::share_out;
use crate::space::SearchSpace;
use crate::strategy::{MIN_FIELD, Strategy, strategy};
use crate::tally::Tally;
use crate::task::{SearchState, TaskSearch};
use crate::units::{Unit, Units};
use crate::view::View;

/// How many known candidates race again together with new ones. A guess: times of different races
/// do not compare, so the best must be among them, and one of two may have been lucky.
const CHAMPIONS: usize = 2;

/// What a finalist costs at least, in runs. A guess: its check and the last one go over all memory
/// several times, and a few runs are timed.
const RUNS_OF_FINALIST: f64 = 13.0;

/// What the first round of a search asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overview {
    /// Tasks.
    pub tasks: u32,
    /// Of which something is known.
    pub known: u32,
    /// Candidates that are considered.
    pub candidates: u32,
    /// Translation units that are to be built.
    pub units: u32,
}

impl Overview {
    /// The sum of two.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            tasks: self.tasks + other.tasks,
            known: self.known + other.known,
            candidates: self.candidates + other.candidates,
            units: self.units + other.units,
        }
    }
}

/// The search in one variant.
pub struct Search {
    space: Arc<dyn SearchSpace>,
    variant: usize,
    settings: Settings,
    strategy: &'static Strategy,
    known: Arc<KnownOutcomes>,
    similar: Similar,
    /// `tasks[spec][point]`.
    tasks: Vec<Vec<TaskSearch>>,
    /// Indices of specs, the heaviest first.
    order: Vec<usize>,
    units: Units,
    /// What every Measure item needs besides, on a GPU.
    tools: Option<Digest>,
}

impl Search {
    /// Lays out the search. `known` may hold records of any tasks; tasks of which nothing is known
    /// begin with what is `similar`.
    pub fn new(
        space: Arc<dyn SearchSpace>,
        variant: usize,
        settings: Settings,
        known: Arc<KnownOutcomes>,
        similar: Similar,
    ) -> Self {
        let strategy = strategy(settings.mode, settings.gpu);
        let (tasks, order) = share_out(&space.variants()[variant].specs, &settings, strategy);
        let tools = space.tools(variant);
        Self { space, variant, settings, strategy, known, similar, tasks, order, units: Units::default(), tools }
    }

    /// What the first round asks for. Valid after the first [`Self::advance`].
    pub fn overview(&self) -> Overview {
        let all = || self.tasks.iter().flatten();
        let known = all().filter(|t| self.known.get(&t.key).is_some_and(|k| !k.is_empty())).count();
        let candidates: usize = all().map(|t| t.considered.len()).sum();
        Overview {
            tasks: all().count() as u32,
            known: known as u32,
            candidates: candidates as u32,
            units: self.units.len() as u32,
        }
    }

    /// Milliseconds of measuring that may still come.
    pub fn remaining_ms(&self) -> u64 {
        let open = |t: &&TaskSearch| t.state != SearchState::Decided && t.considered.len() != 1;
        self.tasks.iter().flatten().filter(open).map(|t| t.share.budget_ms).sum()
    }

    /// A Build item ended: with the object, with the compiler's refusal, or given up.
    pub fn built(&mut self, unit: Digest, end: Option<Result<Digest, String>>, cost: Cost) {
        self.units.end(unit, end, cost);
    }

    /// A Measure item ended: with outcomes, or given up.
    pub fn measured(&mut self, task: TaskRef, end: Option<Vec<(CandidateId, Outcome)>>, cost: Cost) {
        self.task_mut(task).end_race(end, cost);
    }

    /// Whether every task has its winner.
    pub fn is_done(&self) -> bool {
        self.tasks.iter().flatten().all(|t| t.state == SearchState::Decided)
    }

    /// Who is to race in the model: for every task, its winner and those that were nearly as fast.
    pub fn finalists(&self) -> Vec<Finalists> {
        let outlines = &self.space.variants()[self.variant].specs;
        let mut all = Vec::new();
        for (spec, tasks) in self.tasks.iter().enumerate() {
            for (point, task) in tasks.iter().enumerate() {
                let Some(winner) = &task.winner else { continue };
                let here = TaskRef { variant: self.variant, spec, point };
                let timed = if task.is_measured() && task.share.heavy { task.timed() } else { Vec::new() };
                all.push(Finalists::choose(here, &outlines[spec].tasks[point], winner, &timed));
            }
        }
        all
    }

    /// How the candidates that were to be measured fared.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        self.tasks.iter().flatten().filter(|t| t.is_measured()).for_each(|t| t.count(&mut tally));
        tally
    }

    /// Goes as far as the outcomes allow and returns what is needed to go on.
    pub fn advance(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        for spec in self.order.clone() {
            for point in 0..self.tasks[spec].len() {
                let here = TaskRef { variant: self.variant, spec, point };
                let represented = self.view(here).representative();
                if represented.is_some_and(|task| task.state != SearchState::Decided) {
                    break;
                }
                if self.task(here).state == SearchState::Waiting {
                    self.begin(here, &mut actions);
                }
                self.go_on(here, &mut actions);
                if self.task(here).state != SearchState::Decided {
                    break;
                }
            }
        }
        actions
    }

    fn task(&self, here: TaskRef) -> &TaskSearch {
        &self.tasks[here.spec][here.point]
    }

    fn task_mut(&mut self, here: TaskRef) -> &mut TaskSearch {
        &mut self.tasks[here.spec][here.point]
    }

    fn view(&self, here: TaskRef) -> View<'_> {
        View {
            space: &*self.space,
            here,
            tasks: &self.tasks,
            known: &self.known,
            similar: &self.similar,
            mode: self.settings.mode,
            trials: self.settings.trials,
        }
    }

    /// Chooses what to consider, takes what is known, and asks for the units of the rest.
    fn begin(&mut self, here: TaskRef, actions: &mut Vec<Action>) {
        let view = self.view(here);
        let opening = (self.strategy.open)(&view);
        let reference = reference(&view, self.strategy.naive_reference_flops);
        let task = self.task_mut(here);
        (task.reference, task.searched) = (Some(reference), opening.searched);
        self.consider(here, opening.considered);
        self.ask(here, actions);
    }

    /// A task that has begun: as far as it can go.
    fn go_on(&mut self, here: TaskRef, actions: &mut Vec<Action>) {
        loop {
            if self.task(here).state == SearchState::Building {
                self.race(here, actions);
            }
            if self.task(here).state != SearchState::Measuring || !self.task(here).racing.is_empty() {
                return;
            }
            if !self.refine(here) {
                self.decide(here, actions);
                return;
            }
            self.ask(here, actions);
        }
    }

    /// Considers these as well, and takes what is known of them.
    fn consider(&mut self, here: TaskRef, candidates: Vec<CandidateOutline>) {
        let task = &mut self.tasks[here.spec][here.point];
        let known = self.known.get(&task.key);
        for candidate in &candidates {
            let Some(k) = known.and_then(|k| k.get(&candidate.id)) else { continue };
            if task.is_answered_by(&k.outcome, k.budget_ms) {
                task.outcomes.insert(candidate.id, k.outcome.clone());
            }
        }
        task.considered.extend(candidates);
    }

    /// Asks for the units of those of whom nothing is known, and of the best known ones, which race
    /// again with them.
    fn ask(&mut self, here: TaskRef, actions: &mut Vec<Action>) {
        let task = &self.tasks[here.spec][here.point];
        let mut racing = task.unknown();
        let Some(naive) = task.reference.as_ref().filter(|_| task.is_measured() && !racing.is_empty()) else {
            self.task_mut(here).state = SearchState::Measuring;
            return;
        };
        racing.extend(task.best().into_iter().take(CHAMPIONS).cloned());
        let tools = self.tools.map(|unit| (unit, "tools for measuring".to_owned()));
        let kernels = std::iter::once(naive).chain(&racing);
        let kernels = kernels.map(|c| (c.unit, format!("{} for {}", c.family, task.title)));
        for (unit, label) in tools.into_iter().chain(kernels) {
            if self.units.want(unit) {
                actions.push(Action::Build { unit, label });
            }
        }
        let task = self.task_mut(here);
        task.racing = racing;
        task.state = SearchState::Building;
    }

    /// Considers more after the first race, where the strategy has a second one; whether there is
    /// more.
    fn refine(&mut self, here: TaskRef) -> bool {
        let Some(refine) = self.strategy.refine else { return false };
        if !self.task(here).refines || !self.task(here).is_measured() {
            return false;
        }
        let more = refine(&self.view(here));
        let task = self.task_mut(here);
        task.refines = false;
        if more.is_empty() {
            return false;
        }
        task.reopen_race(CHAMPIONS);
        self.consider(here, more);
        true
    }

    /// Once all units of a task have ended, asks for the race.
    fn race(&mut self, here: TaskRef, actions: &mut Vec<Action>) {
        let Some(reference) = self.task(here).reference.clone() else { return };
        let racing = self.task(here).racing.iter().map(|c| &c.unit);
        if !self.tools.iter().chain([&reference.unit]).chain(racing).all(|unit| self.units.has_ended(unit)) {
            return;
        }
        let protocol = self.protocol(here);
        self.task_mut(here).state = SearchState::Measuring;
        let (racing, objects) = self.take_built(here, protocol, actions);
        let tools = self.tools.map(|unit| self.units.object(&unit));
        let (Some(object), false) = (self.units.object(&reference.unit), tools == Some(None)) else {
            let task = self.task_mut(here);
            task.given_up += racing.len() as u32;
            actions.push(Action::Note(format!(
                "{}: the reference kernel or the measuring tools could not be built, so nothing was measured",
                task.title
            )));
            return;
        };
        if racing.is_empty() {
            return;
        }
        let key = self.task(here).key;
        let seed = u64::from_le_bytes(key.0.as_bytes()[..8].try_into().expect("a digest has 32 bytes"));
        let spec = self.space.measure(here, (reference.id, object), &objects, tools.flatten(), protocol, seed);
        self.task_mut(here).racing.clone_from(&racing);
        actions.push(Action::Measure { task: here, spec: Box::new(spec), candidates: racing });
    }

    /// Takes those that are to race: returns the built ones with their objects, and has the
    /// failures of the others recorded.
    fn take_built(
        &mut self,
        here: TaskRef,
        protocol: MeasureProtocol,
        actions: &mut Vec<Action>,
    ) -> (Vec<CandidateOutline>, Vec<(CandidateId, Digest)>) {
        let task = &mut self.tasks[here.spec][here.point];
        let mut failed: BTreeMap<Digest, (String, Vec<CandidateOutline>)> = BTreeMap::new();
        let (mut racing, mut objects) = (Vec::new(), Vec::new());
        for candidate in std::mem::take(&mut task.racing) {
            match self.units.get(&candidate.unit) {
                Unit::Built(object, _) => {
                    objects.push((candidate.id, *object));
                    racing.push(candidate);
                }
                Unit::Failed(log, _) => {
                    task.outcomes.insert(candidate.id, Outcome::BuildFailed { log: log.clone() });
                    failed.entry(candidate.unit).or_insert_with(|| (log.clone(), Vec::new())).1.push(candidate);
                }
                Unit::GivenUp => task.given_up += 1,
                Unit::Wanted => unreachable!("all units have ended"),
            }
        }
        let key = task.key;
        let record = |(unit, (log, candidates))| Action::RecordBuildFailure { key, candidates, unit, log, protocol };
        actions.extend(failed.into_iter().map(record));
        (racing, objects)
    }

    /// How the candidates of a task are measured, with as many finalists as there is time for.
    fn protocol(&self, here: TaskRef) -> MeasureProtocol {
        let task = self.task(here);
        let mut protocol = self.strategy.protocol(self.settings.threads, task.race_ms(), task.footprint);
        if let Some(seconds) = self.expected_seconds(here).filter(|_| self.strategy.fits_race_to_budget) {
            let affordable = task.race_ms() as f64 / (1e3 * seconds * RUNS_OF_FINALIST);
            protocol.race_width = (affordable as u32).clamp(MIN_FIELD as u32, protocol.race_width);
        }
        protocol
    }

    /// What a run of the fastest will take: as an earlier race here or of its representative told,
    /// or as the work grows from the point before.
    fn expected_seconds(&self, here: TaskRef) -> Option<f64> {
        let view = self.view(here);
        let grown = || {
            let outlines = &self.space.variants()[self.variant].specs[here.spec].tasks;
            let seconds = view.smaller()?.best_seconds()?;
            Some(seconds * outlines[here.point].flops / outlines[here.point - 1].flops.max(1.0))
        };
        let represented = || view.representative()?.best_seconds();
        view.task().best_seconds().or_else(represented).or_else(grown)
    }

    /// Selects the winner.
    fn decide(&mut self, here: TaskRef, actions: &mut Vec<Action>) {
        let task = self.task(here);
        let considered: Vec<CandidateId> = task.considered.iter().map(|c| c.id).collect();
        let outcomes: Vec<(CandidateId, Outcome)> =
            considered.iter().filter_map(|id| task.outcomes.get(id).map(|o| (*id, o.clone()))).collect();
        let at_other_points: Vec<CandidateId> =
            self.tasks[here.spec].iter().filter_map(|other| other.winner.as_ref()).map(|w| w.id).collect();
        let selection = self.space.select(here, &considered, &outcomes, &at_other_points);
        let measured = task.is_measured();
        // Nothing was shown to be right: what is right by definition wins, not a guess.
        let winner = if measured && selection.measured + selection.dropped == 0 {
            actions.push(Action::Note(format!(
                "{}: no candidate was shown to be right and timed; the naive kernel is taken",
                task.title
            )));
            self.space.reference(here)
        } else {
            selection.winner.clone()
        };
        if measured {
            actions.push(Action::Decided { table: Box::new(self.table(task, selection)) });
        }
        let task = self.task_mut(here);
        task.winner = Some(winner);
        task.state = SearchState::Decided;
    }

    fn table(&self, task: &TaskSearch, selection: SelectionOutline) -> AutotuneTable {
        let units: BTreeSet<Digest> = task.considered.iter().map(|c| c.unit).collect();
        let mut builds = self.units.cost(&units);
        builds.workers.extend(task.cost.worker.as_deref());
        AutotuneTable {
            title: task.title.clone(),
            rows: selection.rows,
            considered: task.considered.len() as u32,
            built: builds.built,
            measured: selection.measured,
            dropped: selection.dropped,
            build_s: builds.seconds,
            measure_s: task.cost.seconds,
            workers: builds.workers.len() as u32,
        }
    }
}
