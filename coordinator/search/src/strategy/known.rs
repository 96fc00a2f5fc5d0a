//! Nothing is measured: what is known decides, of the compiler's guesses and of all that an
//! earlier, perhaps wider search tried; without any, the compiler's first guess.

use super::definition::{Opening, Strategy};
use super::{quick_on_cpu, quick_on_gpu};
use crate::view::View;

pub(super) const ON_CPU: Strategy =
    Strategy { measures: false, has_representatives: false, open, refine: None, ..quick_on_cpu::STRATEGY };

pub(super) const ON_GPU: Strategy =
    Strategy { measures: false, has_representatives: false, open, refine: None, ..quick_on_gpu::STRATEGY };

fn open(view: &View<'_>) -> Opening {
    let mut considered = view.guesses();
    for (id, known) in view.known().into_iter().flatten() {
        if considered.iter().all(|c| c.id != *id)
            && let Some(candidate) = view.candidate(known)
        {
            considered.push(candidate);
        }
    }
    Opening::new(considered)
}
