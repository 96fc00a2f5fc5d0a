//! What candidates are checked against before they are timed.

use crate::outline::CandidateOutline;
use crate::view::View;

/// The naive candidate where it is fast enough: at the first point always, at others up to `most`
/// operations. Else the fastest that passed the check at the first point, of another family than
/// the winner's if there is one: equal mistakes of two families are unlikely.
pub(crate) fn reference(view: &View<'_>, most: f64) -> CandidateOutline {
    let naive = view.naive();
    let here = view.here;
    let flops = view.space.variants()[here.variant].specs[here.spec].tasks[here.point].flops;
    if view.is_first() || flops <= most {
        return naive;
    }
    let first = &view.tasks[here.spec][0];
    let winner = first.winner.as_ref().map(|w| w.family.as_str());
    let ranked = first.best();
    let is_other = |c: &&&CandidateOutline| Some(c.family.as_str()) != winner && c.family != naive.family;
    // A vendor's library may be among the fastest, and has no code that could be the reference.
    let legal = |c: &&CandidateOutline| view.space.candidate(here, &c.family, &c.params);
    let checked = ranked.iter().filter(is_other).find_map(legal).or_else(|| ranked.iter().find_map(legal));
    checked.unwrap_or(naive)
}
