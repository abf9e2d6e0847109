//! What is learnt beside the traffic: names, keys of identity providers, breakers and their probes, what
//! each caller uses, and which messages came before.

pub mod bodies;
pub mod breaker;
pub mod budget;
pub mod generation;
mod keys;
pub mod names;
mod probe;
pub mod quiet;
pub mod replays;
pub mod tokens;
