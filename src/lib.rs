//! countersign, a signing reverse proxy for the MindTouch API (NICE CXone Expert).
//!
//! It learns who is calling, decides whether the request may pass and as which user, signs it,
//! forwards it, and cleans the answer. The map, in reading order:
//!
//! - [`signing`]: mints the token the site believes, in either dialect.
//! - [`scrub`]: what must not cross: credentials upward, sessions and token traces downward.
//! - [`policy`]: the whole admission, in one function.
//! - [`config`]: proxy.yaml becomes settings and a policy, or every problem at once.
//! - [`telemetry`]: the access record, the counters, the log that never holds up traffic.
//! - [`watch`]: what is learnt beside the traffic: names, breakers, budgets.
//! - [`proxy`]: the gateway as the engine sees it, a few lines a phase.
//! - [`server`]: listens, serves, and stops.
//! - [`cli`]: the command line, one file per command.
//!
//! Imports run one way only:
//!
//! ```text
//! signing, scrub  <-  policy  <-  config | telemetry  <-  watch  <-  proxy  <-  server  <-  cli  <-  main
//! ```
//!
//! `config` and `proxy` never meet. `signing`, `scrub` and `policy` are the core: no engine, no
//! runtime, no serialization, no clock, no environment, no file, no `async`. A test enforces this.
//!
//! [`countersign_emulator`], a small MindTouch site to develop against, is a crate of its own: it uses
//! nothing of this one, and only [`cli`] uses it.

pub mod cli;
pub mod config;
pub mod policy;
pub mod proxy;
pub mod scrub;
pub mod server;
pub mod signing;
pub mod telemetry;
pub mod watch;
