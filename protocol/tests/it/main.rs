//! Tests of the protocol's surface.

mod endpoints;
mod openapi;
