//! Types that have a JSON schema, for the OpenAPI document. Without the feature `openapi` any type will do.

/// A type with a JSON schema.
#[cfg(feature = "openapi")]
pub trait Schema: schemars::JsonSchema {}

#[cfg(feature = "openapi")]
impl<T: schemars::JsonSchema> Schema for T {}

/// A type with a JSON schema.
#[cfg(not(feature = "openapi"))]
pub trait Schema {}

#[cfg(not(feature = "openapi"))]
impl<T> Schema for T {}
