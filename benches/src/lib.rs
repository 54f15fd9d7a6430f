//! Datasets, measured tools and the machine's limit, for whole-program scenarios.
//!
//! A figure means something only beside another one taken in the same minute, on the same bytes. So this
//! library makes the bytes from a seed ([`dataset`]), runs every tool as its users run it ([`tools`]),
//! measures each run from outside ([`measure`]), and puts beside them what the processor could do at best
//! ([`limit`]). The program `scenario` ties these together ([`runner`], [`report`]).
//!
//! Invariants: nothing is written outside the cache directory that the caller names; a tool that is
//! missing, fails, or restores something else than it was given appears in the result as such.

pub mod dataset;
pub mod index;
pub mod limit;
pub mod measure;
pub mod report;
pub mod rng;
pub mod runner;
pub mod s3;
pub mod scale;
pub mod tools;
pub mod verify;
pub mod walk;
