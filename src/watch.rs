//! What is learnt beside the traffic: names, breakers and their probes, what each caller uses, and
//! which messages came before.

pub mod bodies;
pub mod breaker;
pub mod budget;
pub mod generation;
pub mod names;
mod probe;
pub mod quiet;
pub mod replays;
