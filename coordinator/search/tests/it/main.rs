//! The search, over a scripted search space.

mod recorded;
mod search;
