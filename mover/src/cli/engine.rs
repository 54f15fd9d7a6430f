//! The one place where the command line meets the engine's functions.
