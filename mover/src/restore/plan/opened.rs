//! The target as a restore finds it.

use crate::{
    error::Result,
    restore::{Existing, RestoreOptions, Selection},
    target::{
        Protection,
        tree::{TargetOptions, TargetTree},
    },
};

/// The target, open.
#[derive(Debug)]
pub(super) struct Opened {
    /// What is restored to; none in a dry run.
    pub(super) tree: Option<TargetTree>,
    /// What a dry run looks at; none if there is nothing.
    pub(super) looked_at: Option<TargetTree>,
    /// It was empty.
    pub(super) fresh: bool,
    /// It holds nothing that is anybody's, and gets the attributes of what is restored to it.
    pub(super) unused: bool,
}

impl Opened {
    /// Opens the target, making it if something is to be restored to it.
    pub(super) fn at(options: &RestoreOptions) -> Result<Self> {
        let replace = options.existing != Existing::Keep;
        let wish = TargetOptions { replace, replace_trees: options.delete };
        let mut tree = if options.dry_run {
            TargetTree::open_existing(&options.target, wish)?
        } else {
            Some(TargetTree::open(&options.target, wish)?)
        };
        let (mut fresh, mut unused) = (true, true);
        if let Some(tree) = &mut tree {
            (fresh, unused) = (tree.is_empty()?, options.take_over || tree.is_unused()?);
            if fresh {
                tree.replace_nothing();
            }
            if options.delete && options.selection.has_patterns() {
                tree.protect(Box::new(options.selection.clone()));
            }
        }
        let (tree, looked_at) = if options.dry_run { (None, tree) } else { (tree, None) };
        Ok(Self { tree, looked_at, fresh, unused })
    }
}

impl Protection for Selection {
    /// What the patterns do not select is not this restore's to remove.
    fn protects(&self, path: &[u8]) -> bool {
        !self.wants(path)
    }
}
