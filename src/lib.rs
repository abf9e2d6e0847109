//! countersign, a signing reverse proxy for the MindTouch API (NICE CXone Expert).
//!
//! It learns who is calling, decides whether the request may pass and as which user, signs it,
//! forwards it, and cleans the answer. The map, in reading order:
//!
//! - [`signing`]: mints the token the site believes, in either dialect.
//! - [`policy`]: the whole admission, in one function over slices of one head.
//! - [`rewrite`]: what crosses, as edits: the lists of both directions, and answers of our own.
//! - [`jose`]: signed tokens and the keys that verify them, read strictly.
//! - [`config`]: proxy.yaml becomes settings and a policy, or every problem at once.
//! - [`telemetry`]: the access record, the counters, the log that never blocks traffic.
//! - [`client`]: a small HTTP client, for what the gateway itself asks.
//! - [`watch`]: what is learnt beside the traffic: names, keys, breakers, budgets; a generation holds all of it.
//! - [`wire`]: bytes of connections: strict, one reader, no policy.
//! - [`upstream`]: connections to sites, pooled for each user.
//! - [`gateway`]: one exchange from head to record: admit, send, relay, answer.
//! - [`server`]: listens, serves, and stops.
//! - [`cli`]: the command line, one file per command.
//!
//! The emulated MindTouch site is a crate of its own, `emulator/`: it imports nothing of this one, and
//! only [`cli`] names it here.
//!
//! Imports run one way only:
//!
//! ```text
//! signing <- policy <- rewrite | telemetry | jose <- watch <- wire <- upstream <- gateway <- server <- cli <- main
//! ```
//!
//! `config` stands beside `watch`, and meets neither `wire` nor `gateway`; `client` imports nothing. `signing`, `policy` and
//! `rewrite` are the core: no engine, no runtime, no serialization, no clock, no environment, no file,
//! no `async`. A test enforces this.

pub mod cli;
pub mod client;
pub mod config;
pub mod gateway;
pub mod jose;
pub mod policy;
pub mod rewrite;
pub mod server;
pub mod signing;
pub mod telemetry;
pub mod upstream;
pub mod watch;
pub mod wire;
