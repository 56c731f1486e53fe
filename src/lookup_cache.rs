//! Layer 3: answers remembered in SQLite.
