//! Routes made from the endpoints of the protocol: a handler is a function from the typed request to the typed answer.

use aotfarm_protocol::ApiError;
use aotfarm_protocol::endpoints::{
    Body, Endpoint, Operation, Path, PathParameters, Query, Request as Asked, Response as Answered,
};
use axum::Router;
use axum::extract::{FromRequest as _, FromRequestParts, Request, State};
use axum::handler::Handler;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{Failure, Json};

/// Routes over a state of type `S`, one for each endpoint.
#[derive(Debug)]
pub struct Routes<S> {
    router: Router<S>,
    operations: Vec<Operation>,
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self { router: Router::new(), operations: Vec::new() }
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// Answers an endpoint with what `handler` makes of the state and the request, as JSON.
    ///
    /// # Panics
    /// If the endpoint has a route already.
    #[must_use]
    pub fn on<Q, R, F, A>(self, endpoint: &Endpoint<Q, R>, handler: F) -> Self
    where
        Q: Extract + 'static,
        R: Answered + Serialize + 'static,
        F: Fn(S, Q::Input) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Result<R, Failure>> + Send,
    {
        self.raw(endpoint, async move |State(state): State<S>, request: Request| {
            let input = match Q::extract(request).await {
                Ok(input) => input,
                Err(refusal) => return refusal,
            };
            handler(state, input).await.map(Json).into_response()
        })
    }

    /// Answers an endpoint whose request or answer is more than JSON with a handler of axum, which may take its path as [`At`].
    ///
    /// # Panics
    /// If the endpoint has a route already.
    #[must_use]
    pub fn raw<Q: Asked, R: Answered, T: 'static>(mut self, endpoint: &Endpoint<Q, R>, handler: impl Handler<T, S>) -> Self {
        let method = MethodFilter::try_from(endpoint.method()).expect("endpoints have methods that axum knows");
        self.router = self.router.route(endpoint.path(), on(method, handler));
        self.operations.push(endpoint.operation());
        self
    }

    /// The endpoints that have a route.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The routes over `state`.
    pub fn with_state(self, state: S) -> Router {
        self.router.with_state(state)
    }
}

/// The parameters of a path.
#[derive(Debug)]
pub struct At<P>(pub P);

impl<P: PathParameters, S: Send + Sync> FromRequestParts<S> for At<P> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        P::read(&texts(parts).await?).map(Self).map_err(refused)
    }
}

/// A request that can be taken out of HTTP. A malformed query or body is told before a parameter that names nothing.
pub trait Extract: Asked<Input: Send> {
    /// Takes it out.
    ///
    /// # Errors
    /// What is answered to a request that is malformed.
    fn extract(request: Request) -> impl Future<Output = Result<Self::Input, Response>> + Send;
}

impl Extract for () {
    async fn extract(_: Request) -> Result<(), Response> {
        Ok(())
    }
}

impl<P: PathParameters + Send> Extract for Path<P> {
    async fn extract(request: Request) -> Result<P, Response> {
        P::read(&texts(&mut request.into_parts().0).await?).map_err(refused)
    }
}

impl<Q: DeserializeOwned + Send> Extract for Query<Q>
where
    Self: Asked<Input = Q>,
{
    async fn extract(request: Request) -> Result<Q, Response> {
        query(&mut request.into_parts().0).await
    }
}

impl<B: DeserializeOwned + Send> Extract for Body<B>
where
    Self: Asked<Input = B>,
{
    async fn extract(request: Request) -> Result<B, Response> {
        body(request).await
    }
}

impl<P: PathParameters + Send, Q: DeserializeOwned + Send> Extract for (Path<P>, Query<Q>)
where
    Self: Asked<Input = (P, Q)>,
{
    async fn extract(request: Request) -> Result<(P, Q), Response> {
        let mut parts = request.into_parts().0;
        let texts = texts(&mut parts).await?;
        let query = query(&mut parts).await?;
        Ok((P::read(&texts).map_err(refused)?, query))
    }
}

impl<P: PathParameters + Send, B: DeserializeOwned + Send> Extract for (Path<P>, Body<B>)
where
    Self: Asked<Input = (P, B)>,
{
    async fn extract(request: Request) -> Result<(P, B), Response> {
        let (mut parts, bytes) = request.into_parts();
        let texts = texts(&mut parts).await?;
        let body = body(Request::from_parts(parts, bytes)).await?;
        Ok((P::read(&texts).map_err(refused)?, body))
    }
}

/// The texts of the parameters, no longer escaped.
async fn texts(parts: &mut Parts) -> Result<Vec<String>, Response> {
    let texts = axum::extract::Path::from_request_parts(parts, &()).await.map_err(IntoResponse::into_response)?;
    Ok(texts.0)
}

fn refused(error: ApiError) -> Response {
    Failure::from(error).into_response()
}

async fn query<Q: DeserializeOwned>(parts: &mut Parts) -> Result<Q, Response> {
    let query = axum::extract::Query::from_request_parts(parts, &()).await.map_err(IntoResponse::into_response)?;
    Ok(query.0)
}

async fn body<B: DeserializeOwned>(request: Request) -> Result<B, Response> {
    let Json(body) = Json::from_request(request, &()).await.map_err(IntoResponse::into_response)?;
    Ok(body)
}
