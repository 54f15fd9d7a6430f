mod exclude;
mod names;
mod order;
mod sources;
mod walk;
