//! Estimates of whole graphs against arithmetic done by hand and against measured totals.

mod advice;
mod changes;
mod ethos_u;
mod graphs;
mod models;
mod networks;
mod operators;
mod quantized;
mod staircase;
mod table;
