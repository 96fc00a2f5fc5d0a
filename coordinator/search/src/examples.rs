//! Tasks and candidates for unit tests.

use std::collections::BTreeMap;

use aotfarm_protocol::{CandidateId, Digest, TaskKey};

use crate::outline::{CandidateOutline, TaskOutline, TaskRef};

/// A candidate of one family with three parameters.
pub(crate) fn candidate(n: i64, [mr, split]: [i64; 2]) -> CandidateOutline {
    CandidateOutline {
        id: CandidateId(Digest::of(n.to_le_bytes())),
        family: "fast@1".to_owned(),
        params: [("n", n), ("mr", mr), ("split", split)].map(|(name, value)| (name.to_owned(), value)).into(),
        unit: Digest::of(n.to_le_bytes()),
    }
}

pub(crate) fn task(spec: usize) -> TaskRef {
    TaskRef { variant: 0, spec, point: 0 }
}

pub(crate) fn outline(spec: usize) -> TaskOutline {
    TaskOutline {
        key: TaskKey(Digest::of(spec.to_le_bytes())),
        core: None,
        likeness: None,
        title: format!("task {spec}"),
        point: at(1),
        calls: 1,
        flops: 1.0,
        allowed: 1e-5,
        footprint: 0,
    }
}

pub(crate) fn at(batch: i64) -> BTreeMap<String, i64> {
    BTreeMap::from([("batch".to_owned(), batch)])
}
