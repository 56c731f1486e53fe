//! What the shared options are about. Every command accepts all of them, so that an alias or a script
//! can always give the same ones; its help shows those that change what it does.

/// What a shared option is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OptionGroup {
    /// Which store.
    Store,
    /// Whose signatures are trusted.
    Trust,
    /// Which servers, and how they are reached.
    Servers,
    /// How lookups use the lookup cache.
    Lookups,
    /// How items are downloaded and unpacked.
    Downloads,
    /// How progress is shown.
    Progress,
    /// Whether data is JSON.
    Json,
    /// Which settings file is read, and how much is printed.
    General,
}

impl OptionGroup {
    /// All groups, for commands that use every setting.
    pub(crate) const ALL: &'static [Self] = &[
        Self::Store,
        Self::Trust,
        Self::Servers,
        Self::Lookups,
        Self::Downloads,
        Self::Progress,
        Self::Json,
        Self::General,
    ];

    /// The heading of the group in help.
    #[must_use]
    pub(crate) const fn heading(self) -> &'static str {
        match self {
            Self::Store => "Store options",
            Self::Trust => "Trust options",
            Self::Servers => "Server options",
            Self::Lookups => "Lookup options",
            Self::Downloads => "Download options",
            Self::Progress | Self::Json | Self::General => "General options",
        }
    }
}
