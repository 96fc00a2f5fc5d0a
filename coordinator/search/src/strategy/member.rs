//! The members of a core: tasks that differ from their representative only in fused steps. They
//! race its best.

use super::field::{add, fill_up};
use crate::outline::CandidateOutline;
use crate::task::TaskSearch;
use crate::view::View;

/// How many candidates of its representative a member races at its first point, and at each further
/// one, where runs are longer. A guess, from the time that a member has.
const MEMBER_FIELD: [usize; 2] = [28, 16];

/// What a member begins with.
pub(super) fn open(view: &View<'_>, representative: &TaskSearch) -> Vec<CandidateOutline> {
    let places = MEMBER_FIELD[usize::from(!view.is_first())];
    let mut chosen = Vec::new();
    for fast in view.legal(representative).take(places) {
        add(&mut chosen, fast, places);
    }
    fill_up(view, &mut chosen, &view.guesses());
    chosen
}
