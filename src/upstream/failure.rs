//! Why a site gave no answer: a closed list of causes, and the refusal each becomes.

use std::io;

use pingora::tls::{CertificateError, RusTlsError};

use crate::policy::Refusal;
use crate::policy::site::Site;

/// What went wrong between us and a site. The cause stands in the record of the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Its name has no address yet.
    Dns,
    /// Nobody listens at its address.
    ConnectRefused,
    /// No connection came about in time.
    ConnectTimeout,
    /// No connection came about for another reason.
    Connect,
    /// This machine has no file, port or memory left for a connection: nothing is known of the site.
    Exhausted,
    /// Its certificate is not vouched for by an authority we trust.
    TlsUntrusted,
    /// Its certificate is for another name.
    TlsName,
    /// Its certificate is not valid any more, or not yet.
    TlsExpired,
    /// What answers there does not speak TLS as we do.
    TlsProtocol,
    /// The TLS handshake took too long.
    TlsTimeout,
    /// The connection ended before the answer began, or in the middle of it.
    Reset,
    /// It said nothing for too long.
    Silent,
    /// What it said is no answer.
    Invalid,
}

impl Failure {
    /// As it stands in the record.
    pub(crate) fn cause(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::Connect => "connect_failed",
            Self::Exhausted => "exhausted",
            Self::TlsUntrusted => "tls_untrusted",
            Self::TlsName => "tls_name",
            Self::TlsExpired => "tls_expired",
            Self::TlsProtocol => "tls_protocol",
            Self::TlsTimeout => "tls_timeout",
            Self::Reset => "reset",
            Self::Silent => "silent",
            Self::Invalid => "invalid_answer",
        }
    }

    /// What the caller is told.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::Dns
            | Self::ConnectRefused
            | Self::Connect
            | Self::Exhausted
            | Self::TlsUntrusted
            | Self::TlsName
            | Self::TlsExpired
            | Self::TlsProtocol
            | Self::Reset => Refusal::SiteUnreachable,
            Self::ConnectTimeout | Self::TlsTimeout | Self::Silent => Refusal::SiteTimeout,
            Self::Invalid => Refusal::SiteInvalidAnswer,
        }
    }

    /// What the operator is told: what happened, and what to change.
    pub(crate) fn advice(self, site: &Site) -> String {
        let (name, host) = (&site.name, &site.authority);
        match self {
            Self::Dns => format!(
                "the host name of site {name}, {host}, has no address: correct its url:, or this machine's DNS"
            ),
            Self::ConnectRefused => format!(
                "nobody listens at {host}, the address of site {name}: start it, or correct its url:"
            ),
            Self::ConnectTimeout => format!(
                "no connection to site {name} at {host} within timeouts.connect: let this machine through the firewall, or correct its url:"
            ),
            Self::Connect => format!(
                "no connection to site {name} at {host}: see that this machine has a route to it"
            ),
            Self::Exhausted => format!(
                "this machine has no file or port left for a connection to site {name}: raise its limit of open files (LimitNOFILE, --ulimit nofile), or lower limits.connections"
            ),
            Self::TlsUntrusted => format!(
                "the certificate of site {name} is not signed by an authority this machine trusts: set ca: for the site, or install the authority here"
            ),
            Self::TlsName => format!(
                "the certificate of site {name} is for another name than {host}: write the host name that it is for in url:"
            ),
            Self::TlsExpired => format!(
                "the certificate of site {name} has expired or is not valid yet: have it renewed, and look at this machine's clock"
            ),
            Self::TlsProtocol => format!(
                "what answers at {host} does not speak TLS as site {name} should: correct the port or the scheme of its url:"
            ),
            Self::TlsTimeout => format!(
                "the TLS handshake with site {name} at {host} took longer than timeouts.tls: correct the port or the scheme of its url:, or raise that"
            ),
            Self::Reset => format!(
                "site {name} ends connections without an answer: look at what runs there, and at proxies on the way"
            ),
            Self::Silent => format!(
                "site {name} does not answer in time: look at what runs there, or raise its timeouts.response"
            ),
            Self::Invalid => format!(
                "what site {name} at {host} answers is not HTTP/1.1: look at what runs there, and at proxies on the way"
            ),
        }
    }

    /// Whether a new connection may fare better. Nothing was sent.
    pub(crate) fn is_worth_another_connection(self) -> bool {
        matches!(
            self,
            Self::ConnectRefused | Self::ConnectTimeout | Self::Connect
        )
    }

    /// Of a connection that did not come about.
    pub(super) fn of_connecting(error: &io::Error) -> Self {
        use io::ErrorKind;
        // ENFILE, EMFILE and ENOBUFS, which have no kind of their own.
        const SPENT: [i32; 3] = [23, 24, 105];
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::ConnectRefused,
            ErrorKind::TimedOut => Self::ConnectTimeout,
            ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse | ErrorKind::OutOfMemory => {
                Self::Exhausted
            }
            _ if error
                .raw_os_error()
                .is_some_and(|code| SPENT.contains(&code)) =>
            {
                Self::Exhausted
            }
            _ => Self::Connect,
        }
    }

    /// Of a TLS handshake that did not come about.
    pub(super) fn of_handshake(error: &io::Error) -> Self {
        let fault = error.get_ref().and_then(|fault| fault.downcast_ref());
        match fault {
            Some(RusTlsError::InvalidCertificate(fault)) => match fault {
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Self::TlsName,
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::TlsExpired,
                _ => Self::TlsUntrusted,
            },
            // Whoever hangs up in the middle of a handshake wants another one, or none.
            _ => Self::TlsProtocol,
        }
    }
}
