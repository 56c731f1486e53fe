//! Layer 4: the use cases.
