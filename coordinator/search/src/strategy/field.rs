//! The field of a race.

use crate::outline::CandidateOutline;
use crate::view::View;

/// How many candidates race at a point at least, if there are so many: what is legal can depend on
/// the size, and a race of one or two says little. A guess.
pub(crate) const MIN_FIELD: usize = 3;

/// Adds a candidate that is not among those chosen, up to `most`.
pub(super) fn add(chosen: &mut Vec<CandidateOutline>, new: CandidateOutline, most: usize) {
    if chosen.len() < most && chosen.iter().all(|c| c.id != new.id) {
        chosen.push(new);
    }
}

/// Fills the field up to [`MIN_FIELD`] with guesses; the naive candidate is in it only if it is the
/// only one.
pub(super) fn fill_up(view: &View<'_>, chosen: &mut Vec<CandidateOutline>, guesses: &[CandidateOutline]) {
    let naive = view.naive();
    for guess in guesses.iter().filter(|g| g.family != naive.family) {
        add(chosen, guess.clone(), MIN_FIELD);
    }
    if chosen.is_empty() {
        chosen.push(naive);
    }
}
