//! Tests of reader and writer together, and a table of hostile nars.
