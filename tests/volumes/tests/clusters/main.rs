//! Carrack in real clusters. Each test has clusters of its own and waits most of the time, so they run beside each other.

mod faults;
mod journey;
mod matrix;
