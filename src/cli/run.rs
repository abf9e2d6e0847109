//! `countersign run`: the gateway, until it is told to stop.

use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::{ConfigFile, Log, Outcome, complain, runtime, told_to_stop};
use crate::config;
use crate::server::Server;

/// Run the gateway until SIGTERM or SIGINT, then finish what is under way. SIGHUP has it read its file again.
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    log: Log,
}

impl Run {
    pub(super) fn run(self) -> std::io::Result<Outcome> {
        // Until the command has ended, however it does.
        let _log = self.log.install()?;
        let file = self.config.config;
        let read = config::attempt(&file);
        let loaded = match read.outcome {
            Ok(loaded) => loaded,
            Err(unusable) => {
                complain(unusable);
                return Ok(Outcome::Bad);
            }
        };
        for warning in &loaded.warnings {
            warn!(
                place = warning.place,
                line = warning.line,
                "{}",
                warning.text
            );
        }
        raise_file_limit(loaded.settings.connections.connections_max);
        runtime()?.block_on(async {
            let stop = told_to_stop();
            let mut hangups = signal(SignalKind::hangup())?;
            let server = match Server::bind(&loaded.settings, loaded.policy).await {
                Ok(server) => {
                    server.reloading(Arc::new(move || config::attempt(&file)), read.inputs)
                }
                Err(fault) => {
                    complain(fault);
                    return Ok(Outcome::Bad);
                }
            };
            for address in server.addresses() {
                info!(%address, "listening");
            }
            if let Some(address) = server.admin_address() {
                info!(%address, "listening for operators");
            }
            let reloads = server.shared().reloads;
            tokio::spawn(async move {
                while hangups.recv().await.is_some() {
                    reloads.want();
                }
            });
            server.serve(stop).await;
            Ok(Outcome::Good)
        })
    }
}

/// Asks for as many open files as the limit of connections needs: each may hold one to its site.
fn raise_file_limit(connections_max: usize) {
    let wanted = 2 * connections_max as u64 + 256;
    // Where asking is forbidden, what was granted before still holds.
    let granted = rlimit::increase_nofile_limit(wanted)
        .or_else(|_| rlimit::Resource::NOFILE.get_soft())
        .unwrap_or_default();
    if granted < wanted {
        warn!(
            granted,
            wanted,
            "this process may open fewer files than limits.connections needs; raise LimitNOFILE (systemd), --ulimit nofile (Docker) or ulimit -n, or lower the limit"
        );
    }
}
