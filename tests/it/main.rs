//! The gateway tested from outside: real sockets on both sides, ports chosen by the system, and a
//! site that verifies tokens with code of its own.

mod harness;

mod admission;
mod cors;
mod faults;
mod hostile;
mod hygiene;
mod limits;
mod stopping;
