//! Layer 3: talking to substitute servers.
