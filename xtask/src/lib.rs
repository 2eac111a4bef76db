//! House automation: the checks that no lint can express live in `tests/tidy.rs`.
