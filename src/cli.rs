//! Layer 6: people and scripts.
