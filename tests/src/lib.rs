//! Harness of the scenario tests: real servers, a network between them that can be disturbed, real file systems, and
//! trees with everything that a file system can keep.

pub mod bucket;
pub mod damage;
pub mod disk;
pub mod draw;
pub mod engine;
pub mod gate;
pub mod handbook;
pub mod hostile;
pub mod http;
pub mod images;
pub mod liar;
pub mod minio;
pub mod place;
pub mod program;
pub mod proxy;
pub mod server;
pub mod simulation;
pub mod stage;
pub mod stalled;
pub mod terminal;
pub mod trees;
