//! Tests of the cache as its callers see it.
