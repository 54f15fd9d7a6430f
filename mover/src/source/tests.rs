mod exclude;
mod order;
mod sources;
mod walk;
