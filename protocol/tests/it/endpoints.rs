use std::collections::BTreeSet;

use aotfarm_protocol::endpoints::{client, registry, table, worker};
use aotfarm_protocol::{
    Digest, ErrorCode, EventsQuery, Heartbeat, JobId, JobsQuery, Reference, ResolveQuery, TagRequest, WorkerId,
};
use uuid::Uuid;

#[test]
fn names_and_places_are_unique() {
    let table = table();
    let names: BTreeSet<_> = table.iter().map(|operation| &operation.name).collect();
    let places: BTreeSet<_> = table.iter().map(|operation| (operation.path, operation.method.as_str())).collect();
    assert_eq!((names.len(), places.len()), (table.len(), table.len()));
    assert!(table.iter().all(|operation| operation.path.starts_with('/')));
}

#[test]
fn requests_are_built_from_typed_values() {
    let job = JobId(Uuid::nil());
    let call = client::EVENTS.request(job, &EventsQuery { after: 7, wait_ms: 100 });
    assert_eq!(call.target, "/v1/jobs/00000000-0000-0000-0000-000000000000/events?after=7&wait_ms=100");
    assert_eq!((call.method.as_str(), call.body), ("GET", None));
    assert_eq!(client::JOBS.request(&JobsQuery { limit: Some(5) }).target, "/v1/jobs?limit=5");
    assert_eq!(client::JOBS.request(&JobsQuery::default()).target, "/v1/jobs");
    let beat = worker::HEARTBEAT.request(WorkerId(Uuid::nil()), &Heartbeat { leases: vec![] });
    assert_eq!((beat.method.as_str(), beat.body.as_deref()), ("POST", Some(&b"{\"leases\":[]}"[..])));
    let digest = Digest::of("x");
    assert_eq!(registry::BLOB.request(digest).target, format!("/v1/blobs/{digest}"));
}

#[test]
fn what_comes_from_users_is_escaped() {
    let tag = |name: &str, tag: &str| registry::TAG.request((name.to_owned(), tag.to_owned()), &TagRequest { version: 1 }).target;
    assert_eq!(tag("m", "prod"), "/v1/models/m/tags/prod");
    assert_eq!(tag("a/b?c", "d#e%f ä"), "/v1/models/a%2Fb%3Fc/tags/d%23e%25f%20%C3%A4");
    let reference: Reference = "m@prod/cpu-x86_64-v3".parse().unwrap();
    assert_eq!(registry::RESOLVE.request(&(&reference).into()).target, "/v1/resolve?ref=m%40prod%2Fcpu-x86_64-v3");
    let odd = ResolveQuery { reference: Some("a&ref=b".to_owned()) };
    assert_eq!(registry::RESOLVE.request(&odd).target, "/v1/resolve?ref=a%26ref%3Db");
}

#[test]
fn a_query_without_a_reference_or_with_another_text_is_refused() {
    let refused = |reference: Option<&str>| ResolveQuery { reference: reference.map(str::to_owned) }.reference().unwrap_err();
    assert_eq!(refused(None).message, "the query has no `ref`");
    assert_eq!(refused(Some("../x")).code, ErrorCode::BadRequest);
}
