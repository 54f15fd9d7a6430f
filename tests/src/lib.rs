//! Harness of the scenario tests: real servers, and a network between them that can be disturbed.

pub mod minio;
pub mod place;
pub mod proxy;
pub mod server;
