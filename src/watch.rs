//! What is learnt beside the traffic: names, keys of identity providers, breakers and their probes, which
//! server tokens are accepted, how far clocks are apart, passwords that were right, what each caller uses, and which messages came before.

pub mod bodies;
pub mod breaker;
pub mod budget;
mod debts;
pub mod generation;
mod keys;
pub mod names;
pub mod passwords;
mod probe;
pub mod quiet;
pub mod replays;
pub mod rotation;
pub mod skew;
pub mod tokens;
