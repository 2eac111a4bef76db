//! Plain, safe loops: the oracle that every fast kernel is tested against.
