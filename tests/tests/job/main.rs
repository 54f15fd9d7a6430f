//! `carrack job`, as a pod of the controller runs it: each task with its result, on a directory and on a real S3 service;
//! what is wrong, stopped or killed; what was seen before; volumes that are file systems and devices.
//!
//! Needs the program beside the tests (`cargo build -p carrack-mover`), and root for volumes.

#![expect(clippy::panic, reason = "a test says what it expects by failing")]

mod bad;
mod changes;
mod memory;
mod place;
mod stops;
mod tasks;
mod volumes;
