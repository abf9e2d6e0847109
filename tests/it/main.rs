//! The gateway tested from outside: real sockets on both sides, ports chosen by the system, and a
//! site that verifies tokens with code of its own.

#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    unreachable_pub,
    reason = "a test that cannot go on has failed; tables are read in one piece; nothing imports a test"
)]

mod harness;

mod acting;
mod admission;
mod breaker;
mod browser;
mod callers;
mod certified;
mod check;
mod clients;
mod commands;
mod config;
mod cors;
mod demo;
mod documents;
mod errors;
mod faults;
mod fuzz;
mod hostile;
mod http2;
mod https;
mod hygiene;
mod jwt;
mod keys;
mod leaks;
mod limits;
mod logging;
mod machine;
mod metrics;
mod minting;
mod proxies;
mod records;
mod reference;
mod relay;
mod reload;
mod rotation;
mod stopping;
mod terminal;
mod tidy;
mod tls;
mod webhooks;
mod weight;
