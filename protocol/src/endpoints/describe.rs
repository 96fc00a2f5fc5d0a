//! Request and answer of an endpoint as JSON schemas.

use schemars::{Schema, SchemaGenerator};

use super::request::{PathParameters, Request};
use super::response::Response;

/// What the OpenAPI document says about the types of an endpoint.
pub(crate) struct Description {
    /// The schema of each parameter in the path.
    pub(crate) path: Vec<Schema>,
    /// The schema of the query, an object.
    pub(crate) query: Option<Schema>,
    /// Media type of the request's body, and its schema where it is JSON.
    pub(crate) body: Option<(&'static str, Option<Schema>)>,
    /// The statuses of the answer that is not an error.
    pub(crate) statuses: &'static [u16],
    /// Media types of the answer's body, with the schema where it is JSON.
    pub(crate) answer: Vec<(&'static str, Option<Schema>)>,
}

/// Media type of JSON.
pub(crate) const JSON: &str = "application/json";

/// Describes the types of an endpoint.
pub(crate) fn describe<Q: Request, R: Response>(generator: &mut SchemaGenerator) -> Description {
    let body = Q::MEDIA.map(|media| (media, (media == JSON).then(|| generator.subschema_for::<Q::Body>())));
    let answer = R::MEDIA.iter().map(|media| (*media, (*media == JSON).then(|| generator.subschema_for::<R::Json>())));
    let answer = answer.collect();
    Description {
        path: Q::Path::schemas(generator),
        // Its properties become parameters, so it is written out here and is no type of its own.
        query: Q::HAS_QUERY.then(|| <Q::Query as schemars::JsonSchema>::json_schema(generator)),
        body,
        statuses: R::STATUSES,
        answer,
    }
}
