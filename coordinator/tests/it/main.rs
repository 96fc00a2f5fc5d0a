//! The coordinator through its HTTP API, with a scripted compiler, a scripted worker and a clock that tests move.

mod api;
mod farm;
mod flow;
mod leases;
mod resume;
