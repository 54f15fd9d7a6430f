//! What is told of directories that are not walked, or not all of them.

use std::io;

use super::{Node, Outcome};
use crate::{
    error::Error,
    limits,
    source::{Problem, show_path, walk::WalkEvent},
};

/// Its entries, or the rest of them, are not known.
pub(super) fn directory_problem(node: &Node, error: io::Error) -> WalkEvent {
    let path = node.directory.path();
    let error = Error::io(error, format!("cannot read the directory /{}", show_path(path)));
    WalkEvent::Problem(Problem::new(path, "directory", error))
}

/// What was asked for below something that is walked as it is, and is no directory.
pub(super) fn way_problem(path: Vec<u8>) -> WalkEvent {
    let error =
        Error::invalid(format!("/{} is no directory, and a path below it was named", show_path(&path)))
            .with_hint("if it is a link, name the path that it leads to instead");
    WalkEvent::Problem(Problem::new(path, "path", error))
}

/// Nothing below it is looked at.
pub(super) fn path_problem(path: Vec<u8>) -> WalkEvent {
    let most = limits::SOURCE_PATH_LIMIT;
    let error =
        Error::invalid(format!("a path of {} bytes is longer than the {most} that are kept", path.len()))
            .with_hint("name a directory below it as a source of its own, through a mount of it if need be");
    WalkEvent::Problem(Problem::new(path, "path", error))
}

/// Instead of what would be found if somebody still waited for it.
pub(super) fn given_up_outcome() -> Outcome {
    let error = Error::cancelled("the walk was given up");
    let events = vec![WalkEvent::Problem(Problem::new(Vec::new(), "directory", error))];
    Outcome { events, directories: Vec::new(), batches: 1 }
}

/// Instead of what a thread would have found.
pub(super) fn broken_outcome() -> Outcome {
    let error = Error::internal("a thread that reads directories broke off; part of a directory is missing");
    let events = vec![WalkEvent::Problem(Problem::new(Vec::new(), "directory", error))];
    Outcome { events, directories: Vec::new(), batches: 1 }
}
