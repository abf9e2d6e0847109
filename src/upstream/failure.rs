//! Why a site gave no answer: a closed list of causes, and the refusal each becomes.

use std::io;

use pingora::ErrorType;

use crate::policy::Refusal;

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
    /// Its certificate is not vouched for, or not for this name.
    TlsUntrusted,
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
            Self::TlsUntrusted => "tls_untrusted",
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
            | Self::TlsUntrusted
            | Self::TlsProtocol
            | Self::Reset => Refusal::SiteUnreachable,
            Self::ConnectTimeout | Self::TlsTimeout | Self::Silent => Refusal::SiteTimeout,
            Self::Invalid => Refusal::SiteInvalidAnswer,
        }
    }

    /// Whether a new connection may fare better. Nothing was sent.
    pub(crate) fn is_worth_another_connection(self) -> bool {
        matches!(
            self,
            Self::ConnectRefused | Self::ConnectTimeout | Self::Connect
        )
    }

    /// Of a plain connection that did not come about.
    pub(super) fn of_connecting(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::ConnectRefused,
            io::ErrorKind::TimedOut => Self::ConnectTimeout,
            _ => Self::Connect,
        }
    }

    /// Of a connection that the engine could not make.
    pub(super) fn of_engine(error: &pingora::Error) -> Self {
        match error.etype() {
            ErrorType::ConnectRefused => Self::ConnectRefused,
            ErrorType::ConnectTimedout => Self::ConnectTimeout,
            ErrorType::TLSHandshakeTimedout => Self::TlsTimeout,
            ErrorType::InvalidCert => Self::TlsUntrusted,
            ErrorType::TLSHandshakeFailure => Self::TlsProtocol,
            _ => Self::Connect,
        }
    }
}
