//! A repository with an object of every kind, every damage that can be done to one, and what every verb does then.

pub mod harm;
pub mod restored;
pub mod scene;
pub mod support;
pub mod verbs;
