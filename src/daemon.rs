//! Layer 5: guix-daemon's helper protocol.
