//! The registry from outside: files, SQLite and HTTP on the loopback interface.

mod catalog;
mod harness;
mod http;
mod oci;
mod pull;
