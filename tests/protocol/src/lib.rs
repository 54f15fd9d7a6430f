//! Checkable models of the repository protocol: what its rules say, in every interleaving of clients and network.
//!
//! A client that stalls is one that is not scheduled. There is no clock. See `docs/design/0002-protocol.md` for what
//! is covered and what is not.

pub mod commit;
pub mod loss;
pub mod repack;
pub mod rules;
pub mod scenarios;
pub mod search;
