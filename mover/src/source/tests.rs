mod exclude;
mod order;
mod roots;
mod sources;
mod walk;
