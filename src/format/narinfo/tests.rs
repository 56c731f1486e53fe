//! Tests of parsing and printing.
