//! `countersign emulate`: a small MindTouch site on this machine.

use std::net::SocketAddr;

use clap::Args;
use tracing::info;

use super::{Log, Outcome, complain, runtime, told_to_stop};
use countersign_emulator::{Emulator, Options};

/// Run an emulated MindTouch site, for development without one.
///
/// It verifies tokens as the site does, keeps its pages in memory, and plays faults on demand
/// (?emulate.status=503, ?emulate.delay=2000). Its token and its secret are printed in the
/// documentation: it is for development only.
#[derive(Args, Debug)]
pub struct Emulate {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8088")]
    listen: SocketAddr,
    /// How far its clock is off, in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0,
        allow_hyphen_values = true
    )]
    clock_skew: i64,
    #[command(flatten)]
    log: Log,
}

impl Emulate {
    pub(super) fn run(self) -> std::io::Result<Outcome> {
        // Until the command has ended, however it does.
        let _log = self.log.install()?;
        let options = Options {
            listen: self.listen,
            clock_skew_seconds: self.clock_skew,
            ..Options::default()
        };
        runtime()?.block_on(async {
            let stop = told_to_stop();
            let emulator = match Emulator::bind(options).await {
                Ok(emulator) => emulator,
                Err(error) => {
                    complain(format_args!(
                        "cannot listen on {}: {error}; choose another address with --listen",
                        self.listen
                    ));
                    return Ok(Outcome::Bad);
                }
            };
            info!(address = %emulator.local_addr(), "emulated site listening");
            emulator.serve(stop).await;
            Ok(Outcome::Good)
        })
    }
}
