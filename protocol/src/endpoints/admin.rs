//! What operators ask.

use serde::{Deserialize, Serialize};

use super::endpoint::{Audience, Endpoint, Operation, endpoints};

endpoints! { Audience::Admin;
    /// The coordinator is up.
    pub const HEALTH: Endpoint<(), Health> = GET "/v1/health";

    /// This API as an OpenAPI 3.1 document.
    pub const OPENAPI: Endpoint<(), serde_json::Value> = GET "/v1/openapi.json";
}

/// The coordinator is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Health {
    /// Version of the program.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
}
