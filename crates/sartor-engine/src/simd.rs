//! The fenced room: kernels by instruction set.
