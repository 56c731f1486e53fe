//! Layer 3: the store on disk.
