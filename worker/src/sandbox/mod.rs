//! Every process that the worker starts begins here: compilers, and the children in which code runs
//! that nobody vouches for.
//!
//! | part | what |
//! |---|---|
//! | `process` | any [`Program`], in a process group of its own and with limits |
//! | `child` | this program started again with a hidden subcommand, see [`crate::child`]: what it is told and answers |
//! | `report` | what is told of failures, in few words |
//!
//! Invariant: nothing else in the worker starts a process (`clippy.toml` names this room), so that
//! whatever is to confine children has one place.

mod child;
mod process;
mod report;

pub use child::ChildProgram;
pub(crate) use child::{ChildError, GRACE, ServingChild, write_job};
pub(crate) use process::{Ending, Limits, ProcessError, Program, run};
pub(crate) use report::{chain, shorten};
