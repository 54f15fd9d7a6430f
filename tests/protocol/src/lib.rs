//! A checkable model of the core of the repository protocol.
//!
//! One old snapshot (session 0, pack 0), one writer (session 1, pack 1) that may reuse pack 0, up to two
//! collectors, forget and clean-up run in every interleaving; a client that stalls is one that is not
//! scheduled. See `docs/design/0002-protocol.md` for what is and what is not covered.

pub mod model;
pub mod rules;
pub mod search;
