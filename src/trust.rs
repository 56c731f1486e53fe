//! Layer 2: is this narinfo vouched for? Pure.
