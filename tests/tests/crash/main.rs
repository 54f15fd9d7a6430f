//! The crash matrix: the real program is killed, or the power fails, at every step of every verb that writes; what is
//! left is whole, the next run succeeds by itself, and nothing stays behind for ever.
//!
//! Needs root, FUSE, MinIO, and the program beside the tests: `cargo build -p carrack-mover` first.
//!
//! CI takes the first and the last step of each verb, and some between, by `CARRACK_DRAW`; of what reads from a service, every
//! request.
//! `CARRACK_CRASH=all` takes every step, and a number that one alone.

#![expect(clippy::print_stdout, reason = "a run says how many crashes it has tried")]

mod ground;
mod judge;
mod memory;
mod mount;
mod reads;
mod repository;
mod restore;
mod service;
mod world;
