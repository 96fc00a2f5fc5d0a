//! An operation of the API as a value: a server registers its route from it, a client builds its requests from it.

use std::fmt::Write as _;
use std::marker::PhantomData;

use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::request::{Body, Path, PathParameters, Query, Request, ZstdFrames};
use super::response::Response;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Audience {
    /// People and their tools, about jobs and workers.
    Client,
    /// Workers.
    Worker,
    /// Whoever stores or fetches blobs and versions.
    Registry,
    /// Standard tools that copy images: the pull half of the OCI distribution specification.
    Oci,
    /// Operators.
    Admin,
}

impl Audience {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Client, Self::Worker, Self::Registry, Self::Oci, Self::Admin];

    /// One lower-case word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Worker => "worker",
            Self::Registry => "registry",
            Self::Oci => "oci",
            Self::Admin => "admin",
        }
    }
}

/// An operation without its types: a row of the table.
#[derive(Debug, Clone)]
pub struct Operation {
    /// A name that no other has: `client.job`.
    pub name: String,
    /// Who asks.
    pub audience: Audience,
    /// HTTP method.
    pub method: Method,
    /// Path, with `{name}` for each parameter.
    pub path: &'static str,
    /// What it does, for users of the API: the first line is a summary.
    pub text: &'static str,
    /// Request and answer for the OpenAPI document.
    #[cfg(feature = "openapi")]
    pub(crate) describe: fn(&mut schemars::SchemaGenerator) -> super::describe::Description,
}

/// An operation of the HTTP API: where it is, what it takes and what it answers.
#[derive(Debug)]
pub struct Endpoint<Q, R> {
    name: &'static str,
    audience: Audience,
    method: Method,
    path: &'static str,
    text: &'static str,
    types: PhantomData<fn(Q) -> R>,
}

impl<Q: Request, R: Response> Endpoint<Q, R> {
    /// An endpoint; refused by the compiler, when it is a constant, if the path has not as many parameters as the request.
    pub const fn new(audience: Audience, name: &'static str, method: Method, path: &'static str, text: &'static str) -> Self {
        assert!(parameters(path) == Q::Path::COUNT, "the path has not as many parameters as the request");
        Self { name, audience, method, path, text, types: PhantomData }
    }

    /// HTTP method.
    pub fn method(&self) -> Method {
        self.method.clone()
    }

    /// Path, with `{name}` for each parameter.
    pub const fn path(&self) -> &'static str {
        self.path
    }

    /// Its row in the table.
    pub fn operation(&self) -> Operation {
        Operation {
            name: format!("{}.{}", self.audience.name(), self.name.to_lowercase()),
            audience: self.audience,
            method: self.method(),
            path: self.path,
            text: self.text,
            #[cfg(feature = "openapi")]
            describe: super::describe::describe::<Q, R>,
        }
    }

    fn call(&self, path: Q::Path, query: Option<String>, body: Option<Vec<u8>>) -> Call<R> {
        let mut target = fill(self.path, &path.texts());
        if let Some(query) = query.filter(|query| !query.is_empty()) {
            target = format!("{target}?{query}");
        }
        Call { method: self.method(), target, body, response: PhantomData }
    }
}

/// A request that is ready to be sent to any coordinator.
#[derive(Debug, Clone)]
pub struct Call<R> {
    /// HTTP method.
    pub method: Method,
    /// Path and query, escaped; begins with `/`.
    pub target: String,
    /// JSON body, if the endpoint takes one.
    pub body: Option<Vec<u8>>,
    response: PhantomData<fn() -> R>,
}

impl<R: Response> Endpoint<(), R> {
    /// A request.
    pub fn request(&self) -> Call<R> {
        self.call((), None, None)
    }
}

impl<P: PathParameters, R: Response> Endpoint<Path<P>, R> {
    /// A request for what `path` names.
    pub fn request(&self, path: P) -> Call<R> {
        self.call(path, None, None)
    }
}

impl<Q, R: Response> Endpoint<Query<Q>, R>
where
    Query<Q>: Request<Path = ()>,
    Q: Serialize,
{
    /// A request.
    pub fn request(&self, query: &Q) -> Call<R> {
        self.call((), Some(query_text(query)), None)
    }
}

impl<B, R: Response> Endpoint<Body<B>, R>
where
    Body<B>: Request<Path = ()>,
    B: Serialize,
{
    /// A request.
    pub fn request(&self, body: &B) -> Call<R> {
        self.call((), None, Some(json(body)))
    }
}

impl<P: PathParameters, Q, R: Response> Endpoint<(Path<P>, Query<Q>), R>
where
    (Path<P>, Query<Q>): Request<Path = P>,
    Q: Serialize,
{
    /// A request about what `path` names.
    pub fn request(&self, path: P, query: &Q) -> Call<R> {
        self.call(path, Some(query_text(query)), None)
    }
}

impl<P: PathParameters, B, R: Response> Endpoint<(Path<P>, Body<B>), R>
where
    (Path<P>, Body<B>): Request<Path = P>,
    B: Serialize,
{
    /// A request about what `path` names.
    pub fn request(&self, path: P, body: &B) -> Call<R> {
        self.call(path, None, Some(json(body)))
    }
}

impl<P: PathParameters, R: Response> Endpoint<(Path<P>, ZstdFrames), R> {
    /// A request about what `path` names; its body is the sender's to add.
    pub fn request(&self, path: P) -> Call<R> {
        self.call(path, None, None)
    }
}

/// All but letters, digits and what RFC 3986 allows in a segment of a path and we use in names and digests.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':').remove(b'@');

/// The parameters in a path template.
const fn parameters(path: &str) -> usize {
    let (bytes, mut at, mut count) = (path.as_bytes(), 0, 0);
    while at < bytes.len() {
        if bytes[at] == b'{' {
            count += 1;
        }
        at += 1;
    }
    count
}

/// Puts escaped texts in place of the parameters of a path.
fn fill(template: &str, texts: &[String]) -> String {
    let mut texts = texts.iter();
    let mut filled = String::with_capacity(template.len());
    for part in template.split('/').skip(1) {
        let text = if part.starts_with('{') { texts.next() } else { None };
        let written = match text {
            Some(text) => write!(filled, "/{}", utf8_percent_encode(text, SEGMENT)),
            None => write!(filled, "/{part}"),
        };
        written.expect("writing to a string does not fail");
    }
    filled
}

fn query_text<Q: Serialize>(query: &Q) -> String {
    serde_urlencoded::to_string(query).expect("a query is a struct of plain values")
}

fn json<B: Serialize>(body: &B) -> Vec<u8> {
    serde_json::to_vec(body).expect("the maps of a request have only string keys")
}

/// Defines endpoints, and the table of them.
///
/// `/// Text.` `pub const NAME: Endpoint<Request, Response> = METHOD "/path";`
macro_rules! endpoints {
    ($audience:expr; $($(#[doc = $text:literal])+ pub const $name:ident: Endpoint<$request:ty, $response:ty> = $method:ident $path:literal;)+) => {
        $(
            $(#[doc = $text])+
            pub const $name: Endpoint<$request, $response> =
                Endpoint::new($audience, stringify!($name), ::http::Method::$method, $path, concat!($($text, "\n"),+));
        )+

        /// The endpoints of this module.
        pub(super) fn table() -> Vec<Operation> {
            vec![$($name.operation()),+]
        }
    };
}
pub(super) use endpoints;
