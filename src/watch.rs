//! What is learnt beside the traffic: names, breakers and their probes, and what each caller uses.

pub mod breaker;
pub mod budget;
pub mod generation;
pub mod names;
mod probe;
pub mod quiet;
