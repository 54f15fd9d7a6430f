//! Carrack's engine.

pub mod clock;
pub mod error;
pub mod store;
