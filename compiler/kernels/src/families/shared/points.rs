//! Points, and the arithmetic of sizes.

use aotfarm_protocol::Params;

/// `n / by` rounded up, for positive divisors.
pub const fn div_up(n: i64, by: i64) -> i64 {
    (n + by - 1).div_euclid(by)
}

/// A parameter that the family itself has put there.
pub fn param(params: &Params, name: &str) -> i64 {
    *params.get(name).unwrap_or_else(|| panic!("the point has no parameter {name}: it comes from another family"))
}

/// A point.
pub fn point<const N: usize>(values: [(&str, i64); N]) -> Params {
    values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Bytes of a number of floats, for sizes that the plan has already checked.
pub fn bytes(floats: i64) -> u64 {
    u64::try_from(floats).unwrap_or(0) * 4
}

/// `0..n` cut into the fewest runs of at most `most`, sizes as equal as possible: `(how many,
/// size)`, the larger first.
pub fn even_runs(n: i64, most: i64) -> Vec<(i64, i64)> {
    let count = div_up(n, most);
    let large = div_up(n, count);
    let smaller = count * large - n;
    let mut runs = vec![(count - smaller, large)];
    if smaller > 0 {
        runs.push((smaller, large - 1));
    }
    runs
}

/// Takes the lists in turn, so that every prefix holds the first of each.
pub fn interleave(lists: &[Vec<Params>]) -> Vec<Params> {
    let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
    let mut all: Vec<Params> = Vec::new();
    for k in 0..longest {
        for list in lists {
            if let Some(p) = list.get(k)
                && !all.contains(p)
            {
                all.push(p.clone());
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_everything_evenly() {
        assert_eq!(even_runs(56, 14), [(4, 14)]);
        assert_eq!(even_runs(56, 6), [(6, 6), (4, 5)]);
        assert_eq!(even_runs(7, 14), [(1, 7)]);
        for n in 1..60 {
            for most in 1..20 {
                let runs = even_runs(n, most);
                assert_eq!(runs.iter().map(|(k, size)| k * size).sum::<i64>(), n);
                assert!(runs.iter().all(|(k, size)| *k > 0 && (1..=most).contains(size)), "{n} {most} {runs:?}");
            }
        }
    }

    #[test]
    fn interleaving_takes_one_of_each_and_no_point_twice() {
        let p = |k| point([("k", k)]);
        assert_eq!(interleave(&[vec![p(1), p(2), p(3)], vec![p(2), p(4)]]), [p(1), p(2), p(4), p(3)]);
    }
}
