//! Depth first: runs of steps that are done for a few images of a batch at a time.
//!
//! A model race also tells how long each step takes for an image of a small batch and of a large
//! one. Where the small batch is the faster, because what a step writes stays in the caches until
//! the next reads it, runs of steps are done for a few images at a time: as [`Segment`]s, which a
//! second model race has to confirm.

use aotfarm_protocol::Segment;

/// Segments must promise, and then save, at least this share of a run. A guess: half a percent is
/// within what a model race can be wrong by.
pub const WORTHWHILE: f64 = 0.01;
/// What a border between segments may cost, as a share of a run: what crosses it goes through
/// memory. Each of these guesses gives segments to try: the first ones follow small differences
/// between the times, some of which are chance, the others keep to large ones. Measured:
/// EfficientNet-B0 in six segments took 4.3 % more (docs/performance.md).
const BORDERS: [f64; 2] = [0.005, 0.03];

/// The ways to cut the model into segments that promise the shortest runs; none when they promise
/// too little. `seconds` are those of each step at each size of the batch, the smallest first; a
/// segment has as many images as one of these sizes. `least` is the smallest batch that may be.
pub fn segmentations(sizes: &[i64], seconds: &[Vec<f64>], image_wise: &[bool], least: i64) -> Vec<Vec<Segment>> {
    let mut all = BORDERS.map(|border| segments(sizes, seconds, image_wise, least, border)).to_vec();
    all.retain(|segments| !segments.is_empty());
    all.dedup();
    all
}

/// The segments that promise the shortest runs when every border costs such a share of a run.
fn segments(sizes: &[i64], seconds: &[Vec<f64>], image_wise: &[bool], least: i64, border: f64) -> Vec<Segment> {
    let Some(largest) = sizes.len().checked_sub(1) else { return Vec::new() };
    let totals: Vec<f64> = seconds.iter().map(|steps| steps.iter().sum()).collect();
    // The share of a run that a step takes for so many images at a time, summed over the sizes: no
    // part is larger than the batch.
    let share = |step: usize, size: usize| -> f64 {
        let at = |batch: usize| {
            let part = size.min(batch);
            seconds[part][step] / sizes[part] as f64 * sizes[batch] as f64 / totals[batch]
        };
        (0..sizes.len()).map(at).sum()
    };
    // Halves of a batch that is just too large for one part are also batches.
    let may = |step: usize, size: usize| size == largest || (image_wise[step] && (sizes[size] + 1) / 2 >= least);
    let border = border * sizes.len() as f64;
    // By size: the cost of the best way up to and with the step, and the size of the step before
    // it.
    let mut ways: Vec<Vec<(f64, usize)>> = Vec::with_capacity(image_wise.len());
    for step in 0..image_wise.len() {
        let way = |size: usize| {
            let from = |before: usize| {
                let so_far = ways.last().map_or(0.0, |costs: &Vec<(f64, usize)>| costs[before].0);
                (so_far + if before == size || step == 0 { 0.0 } else { border }, before)
            };
            let (cost, before) = (0..sizes.len()).map(from).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, largest));
            (if may(step, size) { cost + share(step, size) } else { f64::INFINITY }, before)
        };
        ways.push((0..sizes.len()).map(way).collect());
    }
    let Some(last) = ways.last() else { return Vec::new() };
    let (mut size, cost) =
        last.iter().map(|(cost, _)| *cost).enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((largest, 0.0));
    if cost.is_nan() || cost > (1.0 - WORTHWHILE) * sizes.len() as f64 {
        return Vec::new();
    }
    let mut segments: Vec<Segment> = Vec::new();
    for step in (0..ways.len()).rev() {
        match segments.last_mut() {
            _ if size == largest => {}
            Some(next) if next.steps.start == step + 1 && next.images == sizes[size] => next.steps.start = step,
            _ => segments.push(Segment { steps: step..step + 1, images: sizes[size] }),
        }
        size = ways[step][size].1;
    }
    segments.reverse();
    segments
}

/// Which configuration but the first saves most, and what share of a run of the first, by `seconds`
/// of each step: for each point, for each configuration. The geometric mean over the points.
pub fn fastest(seconds: &[Vec<Vec<f64>>]) -> Option<(usize, f64)> {
    let total = |steps: &Vec<f64>| steps.iter().sum::<f64>();
    let saved = |k: usize| {
        let logs = seconds.iter().map(|all| (total(&all[k]) / total(&all[0])).ln());
        1.0 - (logs.sum::<f64>() / seconds.len() as f64).exp()
    };
    let count = seconds.first().map_or(0, Vec::len);
    (1..count).map(|k| (k, saved(k))).max_by(|a, b| a.1.total_cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_done_for_as_few_images_as_are_fastest() {
        // Seconds of one image at batch 1, 8 and 32.
        let of_image = [[1.0, 1.2, 2.0], [1.0, 1.0, 1.5], [1.0, 1.001, 1.0], [1.0, 0.5, 0.7], [3.0, 1.0, 0.9]];
        let sizes = [1, 8, 32];
        let seconds: Vec<Vec<f64>> = (0..3).map(|k| of_image.iter().map(|step| step[k] * sizes[k] as f64).collect()).collect();
        let chosen = |image_wise: [bool; 5], least| -> Vec<_> {
            segments(&sizes, &seconds, &image_wise, least, BORDERS[0]).into_iter().map(|s| (s.steps, s.images)).collect()
        };
        // The third is as fast one by one as by eight, and a border would cost something wherever
        // it is; the last is the fastest for the whole batch.
        assert_eq!(chosen([true; 5], 1), [(0..3, 1), (3..4, 8)]);
        assert_eq!(chosen([true, false, true, true, true], 1), [(0..1, 1), (3..4, 8)]);
        assert_eq!(chosen([true; 5], 2), [(0..4, 8)], "one image is less than the smallest batch");
        assert_eq!(chosen([false; 5], 1), []);
        let equal: Vec<Vec<f64>> = sizes.map(|n| vec![n as f64; 5]).to_vec();
        assert_eq!(segments(&sizes, &equal, &[true; 5], 1, 0.0), []);
        let hardly: Vec<Vec<f64>> = sizes.map(|n| vec![n as f64 * if n == 1 { 0.995 } else { 1.0 }; 5]).to_vec();
        assert_eq!(
            segments(&sizes, &hardly, &[true; 5], 1, 0.0),
            [],
            "half a percent is within what a model race can be wrong by"
        );
        assert_eq!(segments(&[], &[], &[], 1, 0.0), []);
        // Where borders cost more, there are fewer.
        let of = |steps, images| Segment { steps, images };
        let tried = segmentations(&sizes, &seconds, &[true; 5], 1);
        assert_eq!(tried, [vec![of(0..3, 1), of(3..4, 8)], vec![of(0..5, 8)]]);
    }

    #[test]
    fn what_segments_save_is_a_share_of_whole_runs() {
        let seconds = [vec![vec![1.0, 1.0], vec![1.0, 0.6]], vec![vec![5.0, 3.0], vec![4.0, 1.0]]];
        let (k, saved) = fastest(&seconds).unwrap();
        assert!(k == 1 && (saved - (1.0 - (0.8f64 * 0.625).sqrt())).abs() < 1e-12);
        let with_better = seconds.map(|all| [all, vec![vec![0.5, 0.5]]].concat());
        assert_eq!(fastest(&with_better).unwrap().0, 2);
        assert_eq!(fastest(&[]), None);
    }
}
