//! The suite that every implementation runs, and what is special about each.

#[macro_use]
mod suite;

mod files;
mod sqlite;
