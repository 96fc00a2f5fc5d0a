//! Newtype ids. Ids that name content are digests, ids that name an event are UUIDv7 (sortable by time).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Digest;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = <$inner as FromStr>::Err;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }
    };
}

id! {
    /// A user's request.
    JobId(Uuid)
}
id! {
    /// One registration of a worker process.
    WorkerId(Uuid)
}
id! {
    /// The key of a work item: the digest of all that can change its result.
    WorkItemId(Digest)
}
id! {
    /// The key of a TuningTask: fused operator, sizes, dtype, layouts and target.
    TaskKey(Digest)
}
id! {
    /// The digest of a candidate: its task, family@version, parameters and rendered source.
    CandidateId(Digest)
}
