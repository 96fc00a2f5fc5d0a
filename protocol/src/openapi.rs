//! The HTTP API as an OpenAPI 3.1 document, made from the table of endpoints and the schemas of their types.
//! <https://spec.openapis.org/oas/v3.1.1.html>

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::ApiError;
use crate::endpoints::describe::{Description, JSON};
use crate::endpoints::oci::OciErrors;
use crate::endpoints::{Audience, Operation, table};

/// The document.
///
/// Schemas are JSON Schema 2020-12, which is what OpenAPI 3.1 takes as it is.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.meta_schema = None;
        settings.definitions_path = "/components/schemas".into();
    });
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for operation in table() {
        let described = described(&operation, &mut generator);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.as_str().to_lowercase()] = described;
    }
    let mut schemas: Vec<_> = generator.take_definitions(true).into_iter().collect();
    schemas.sort_by(|one, other| one.0.cmp(&other.0));
    let tags: Vec<_> =
        Audience::ALL.iter().map(|audience| json!({ "name": audience.name(), "description": about(*audience) })).collect();
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "aotfarm",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A distributed ahead-of-time compile farm for ML models, with an artifact registry.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "tags": tags,
        "paths": paths,
        "components": { "schemas": Map::from_iter(schemas) },
    })
}

const fn about(audience: Audience) -> &'static str {
    match audience {
        Audience::Client => "People and their tools: jobs and workers.",
        Audience::Worker => "Workers: claim, execute, report.",
        Audience::Registry => "Blobs, and versions of models with their history.",
        Audience::Oci => "The pull half of the OCI distribution specification.",
        Audience::Admin => "Operators.",
    }
}

fn described(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let Description { path, query, body, statuses, answer } = (operation.describe)(generator);
    let text = operation.text.trim();
    let (summary, more) = text.split_once('\n').unwrap_or((text, ""));
    let mut out = json!({ "operationId": operation.name, "tags": [operation.audience.name()], "summary": summary.trim() });
    let more: Vec<_> = more.split_whitespace().collect();
    if !more.is_empty() {
        out["description"] = more.join(" ").into();
    }
    let mut parameters: Vec<_> = names(operation.path).zip(&path).map(|(name, schema)| in_path(name, schema)).collect();
    parameters.extend(query.iter().flat_map(in_query));
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    if let Some((media, schema)) = body {
        out["requestBody"] = json!({ "required": true, "content": content([(media, schema)]) });
    }
    let errors = match operation.audience {
        Audience::Oci => generator.subschema_for::<OciErrors>(),
        _ => generator.subschema_for::<ApiError>(),
    };
    let mut responses = Map::new();
    for status in statuses {
        let mut response = json!({ "description": "Success." });
        if !answer.is_empty() {
            response["content"] = content(answer.clone());
        }
        responses.insert(status.to_string(), response);
    }
    responses.insert("default".to_owned(), json!({ "description": "Refused.", "content": content([(JSON, Some(errors))]) }));
    out["responses"] = responses.into();
    out
}

/// The names of the parameters in a path.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn in_path(name: &str, schema: &Schema) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": schema })
}

/// The properties of a query, which are optional all.
fn in_query(query: &Schema) -> Vec<Value> {
    let Some(properties) = query.get("properties").and_then(Value::as_object) else { return Vec::new() };
    properties.iter().map(|(name, schema)| json!({ "name": name, "in": "query", "schema": schema })).collect()
}

fn content(forms: impl IntoIterator<Item = (&'static str, Option<Schema>)>) -> Value {
    let form = |schema: Option<Schema>| schema.map_or_else(|| json!({}), |schema| json!({ "schema": schema }));
    forms.into_iter().map(|(media, schema)| (media.to_owned(), form(schema))).collect::<Map<_, _>>().into()
}
