//! Layer 3: compressed bytes to nar bytes.
