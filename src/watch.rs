//! What is learnt beside the traffic: names, keys of identity providers, breakers and their probes, and
//! what each caller uses.

pub mod breaker;
pub mod budget;
pub mod generation;
mod keys;
pub mod names;
mod probe;
pub mod quiet;
pub mod tokens;
