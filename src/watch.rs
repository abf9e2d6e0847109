//! What is learnt beside the traffic: names, breakers and their probes, passwords that
//! were right, and what each caller uses.

pub mod breaker;
pub mod budget;
mod debts;
pub mod generation;
pub mod names;
pub mod passwords;
mod probe;
pub mod quiet;
