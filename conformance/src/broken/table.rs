/// A bug, and what the kit has to make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bug {
    /// The name in the URL `broken:NAME`.
    pub name: &'static str,
    /// The id of the case that must catch it; others may.
    pub case: &'static str,
    /// Words of the report of that case.
    pub words: &'static str,
    /// Whether the store is a client-side one.
    pub client: bool,
}

/// Every bug.
pub const BUGS: &[Bug] = &[];
