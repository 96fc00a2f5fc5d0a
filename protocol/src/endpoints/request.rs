//! What a request consists of: parameters in the path, a query, a body.

use std::fmt::Display;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::schema::Schema;
use crate::{ApiError, Digest, ErrorCode, JobId, WorkItemId, WorkerId};

/// The parameters in a path: one [`Segment`], or two as a tuple.
#[derive(Debug)]
pub struct Path<P>(PhantomData<fn() -> P>);

/// A query string.
#[derive(Debug)]
pub struct Query<Q>(PhantomData<fn() -> Q>);

/// A JSON body.
#[derive(Debug)]
pub struct Body<B>(PhantomData<fn() -> B>);

/// A body of zstd frames, each of which declares the size of its content.
#[derive(Debug, Clone, Copy)]
pub struct ZstdFrames;

/// What a request consists of: `()`, [`Path`], [`Query`], [`Body`], or a pair that begins with a [`Path`].
pub trait Request {
    /// The parameters in the path; `()` without any.
    type Path: PathParameters;
    /// The query; `()` without one.
    type Query: Schema;
    /// The JSON body; `()` without one.
    type Body: Schema;
    /// What a handler is given of it.
    type Input;
    /// Whether it has a query.
    const HAS_QUERY: bool = false;
    /// Media type of the body, if it has one.
    const MEDIA: Option<&'static str> = None;
}

/// Media type of a JSON body.
const JSON: Option<&str> = Some("application/json");

impl Request for () {
    type Path = ();
    type Query = ();
    type Body = ();
    type Input = ();
}

impl<P: PathParameters> Request for Path<P> {
    type Path = P;
    type Query = ();
    type Body = ();
    type Input = P;
}

impl<Q: Serialize + DeserializeOwned + Schema> Request for Query<Q> {
    type Path = ();
    type Query = Q;
    type Body = ();
    type Input = Q;
    const HAS_QUERY: bool = true;
}

impl<B: Serialize + DeserializeOwned + Schema> Request for Body<B> {
    type Path = ();
    type Query = ();
    type Body = B;
    type Input = B;
    const MEDIA: Option<&'static str> = JSON;
}

impl<P: PathParameters, Q: Serialize + DeserializeOwned + Schema> Request for (Path<P>, Query<Q>) {
    type Path = P;
    type Query = Q;
    type Body = ();
    type Input = (P, Q);
    const HAS_QUERY: bool = true;
}

impl<P: PathParameters, B: Serialize + DeserializeOwned + Schema> Request for (Path<P>, Body<B>) {
    type Path = P;
    type Query = ();
    type Body = B;
    type Input = (P, B);
    const MEDIA: Option<&'static str> = JSON;
}

impl<P: PathParameters> Request for (Path<P>, ZstdFrames) {
    type Path = P;
    type Query = ();
    type Body = ();
    type Input = P;
    const MEDIA: Option<&'static str> = Some("application/zstd");
}

/// A parameter in a path, between two slashes.
pub trait Segment: Display + Schema + Sized {
    /// Reads it from its text, which is no longer escaped.
    ///
    /// # Errors
    /// What a client is told about a text that is none.
    fn read(text: &str) -> Result<Self, ApiError>;
}

/// The parameters of a path, in their order.
pub trait PathParameters: Sized {
    /// How many.
    const COUNT: usize;
    /// Their texts, not escaped.
    fn texts(self) -> Vec<String>;
    /// Reads them from their texts, of which there are [`Self::COUNT`].
    ///
    /// # Errors
    /// As [`Segment::read`].
    fn read(texts: &[String]) -> Result<Self, ApiError>;
    /// The schema of each.
    #[cfg(feature = "openapi")]
    fn schemas(generator: &mut schemars::SchemaGenerator) -> Vec<schemars::Schema>;
}

impl PathParameters for () {
    const COUNT: usize = 0;

    fn texts(self) -> Vec<String> {
        Vec::new()
    }

    fn read(_: &[String]) -> Result<Self, ApiError> {
        Ok(())
    }

    #[cfg(feature = "openapi")]
    fn schemas(_: &mut schemars::SchemaGenerator) -> Vec<schemars::Schema> {
        Vec::new()
    }
}

impl<S: Segment> PathParameters for S {
    const COUNT: usize = 1;

    fn texts(self) -> Vec<String> {
        vec![self.to_string()]
    }

    fn read(texts: &[String]) -> Result<Self, ApiError> {
        S::read(text(texts, 0))
    }

    #[cfg(feature = "openapi")]
    fn schemas(generator: &mut schemars::SchemaGenerator) -> Vec<schemars::Schema> {
        vec![generator.subschema_for::<S>()]
    }
}

impl<A: Segment, B: Segment> PathParameters for (A, B) {
    const COUNT: usize = 2;

    fn texts(self) -> Vec<String> {
        vec![self.0.to_string(), self.1.to_string()]
    }

    fn read(texts: &[String]) -> Result<Self, ApiError> {
        Ok((A::read(text(texts, 0))?, B::read(text(texts, 1))?))
    }

    #[cfg(feature = "openapi")]
    fn schemas(generator: &mut schemars::SchemaGenerator) -> Vec<schemars::Schema> {
        vec![generator.subschema_for::<A>(), generator.subschema_for::<B>()]
    }
}

fn text(texts: &[String], at: usize) -> &str {
    texts.get(at).map_or("", String::as_str)
}

/// The error for a text that names nothing.
fn nothing(text: &str, what: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("`{}` is not the {what}", text.escape_default()))
}

impl Segment for JobId {
    fn read(text: &str) -> Result<Self, ApiError> {
        text.parse().map_err(|_| nothing(text, "id of a job").hint("`aotfarm jobs` lists them"))
    }
}

impl Segment for WorkerId {
    fn read(text: &str) -> Result<Self, ApiError> {
        text.parse().map_err(|_| nothing(text, "id of a worker"))
    }
}

impl Segment for WorkItemId {
    fn read(text: &str) -> Result<Self, ApiError> {
        text.parse().map_err(|_| nothing(text, "key of a work item"))
    }
}

impl Segment for Digest {
    fn read(text: &str) -> Result<Self, ApiError> {
        text.parse().map_err(|e: crate::DigestError| ApiError::new(ErrorCode::BadRequest, e.to_string()))
    }
}

/// A name: whether it can be one is the handler's to say.
impl Segment for String {
    fn read(text: &str) -> Result<Self, ApiError> {
        Ok(text.to_owned())
    }
}
