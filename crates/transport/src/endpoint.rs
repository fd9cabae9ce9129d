//! Where somebody is reached, as it stands in a configuration file.

use std::fmt;
use std::net::IpAddr;

use veilmatch_domain::{Explain, Status};

/// How the other side is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// By its certificate (mutual TLS).
    Certificates,
    /// By its word. For development on loopback only.
    Plaintext,
}

/// A host and a port: `https://host:port`, or `http://127.0.0.1:port` where plaintext is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    trust: Trust,
    host: String,
    port: u16,
}

/// Why a text is not an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Not `https://host:port` or `http://address:port`.
    #[error("`{text}` is not https://host:port")]
    Form {
        /// What was given.
        text: String,
    },
    /// Plaintext without the explicit permission.
    #[error("`{text}` is plaintext, which is not allowed here")]
    Plaintext {
        /// What was given.
        text: String,
    },
    /// Plaintext to another machine.
    #[error("`{text}` is plaintext to an address that is not loopback")]
    Remote {
        /// What was given.
        text: String,
    },
}

impl Explain for EndpointError {
    fn code(&self) -> &'static str {
        match self {
            Self::Form { .. } => "bad-endpoint",
            Self::Plaintext { .. } | Self::Remote { .. } => "plaintext-endpoint",
        }
    }

    fn status(&self) -> Status {
        Status::InvalidArgument
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::Form { .. } => "write https://host:port, without a path",
            Self::Plaintext { .. } => "use https, or for development on one machine set plaintext = true",
            Self::Remote { .. } => "use https; plaintext works only with 127.0.0.1 or [::1]",
        }
    }
}

impl Endpoint {
    /// Reads an endpoint. `plaintext` is the explicit permission to use `http`.
    ///
    /// # Errors
    /// [`EndpointError`]; plaintext is refused unless permitted and the host is a loopback address (not a name: who knows
    /// what it resolves to).
    pub fn parse(text: &str, plaintext: bool) -> Result<Self, EndpointError> {
        let form = || EndpointError::Form { text: text.chars().take(300).collect() };
        let (trust, rest) = match text.strip_prefix("https://") {
            Some(rest) => (Trust::Certificates, rest),
            None => (Trust::Plaintext, text.strip_prefix("http://").ok_or_else(form)?),
        };
        let (host, port) = rest.rsplit_once(':').ok_or_else(form)?;
        let digits = port.bytes().all(|c| c.is_ascii_digit());
        let port = port.parse().ok().filter(|&port: &u16| digits && port > 0).ok_or_else(form)?;
        let address = match host.strip_prefix('[') {
            Some(inner) => Some(IpAddr::V6(inner.strip_suffix(']').and_then(|a| a.parse().ok()).ok_or_else(form)?)),
            None => host.parse().ok().filter(IpAddr::is_ipv4),
        };
        let name = |label: &str| {
            (1..=63).contains(&label.len()) && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
        };
        if address.is_none() && (host.len() > 253 || !host.split('.').all(name)) {
            return Err(form());
        }
        match (trust, plaintext, address) {
            (Trust::Plaintext, false, _) => Err(EndpointError::Plaintext { text: text.to_owned() }),
            (Trust::Plaintext, true, address) if !address.is_some_and(|a| a.is_loopback()) => {
                Err(EndpointError::Remote { text: text.to_owned() })
            }
            _ => Ok(Self { trust, host: host.to_owned(), port }),
        }
    }

    /// How the server is known.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// The host; an IPv6 address is in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Endpoint {
    /// The text that [`Endpoint::parse`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.trust {
            Trust::Certificates => "https",
            Trust::Plaintext => "http",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_reaches_any_host_and_survives_printing() {
        for text in
            ["https://matcher.example.org:7400", "https://10.0.0.1:1", "https://[fe80::1]:65535", "https://k0:9"]
        {
            let endpoint = Endpoint::parse(text, false).unwrap();
            assert_eq!((endpoint.to_string().as_str(), endpoint.trust()), (text, Trust::Certificates));
        }
    }

    #[test]
    fn plaintext_needs_permission_and_a_loopback_address() {
        for text in ["http://127.0.0.1:7400", "http://[::1]:7400"] {
            assert_eq!(Endpoint::parse(text, true).unwrap().trust(), Trust::Plaintext);
            assert!(matches!(Endpoint::parse(text, false), Err(EndpointError::Plaintext { .. })));
        }
        for text in
            ["http://10.0.0.1:7400", "http://localhost:7400", "http://0.0.0.0:7400", "http://127.0.0.1.evil.org:1"]
        {
            assert!(matches!(Endpoint::parse(text, true), Err(EndpointError::Remote { .. })), "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "matcher:7400",
            "https://matcher",
            "https://:7400",
            "https://matcher:",
            "https://matcher:0",
            "https://matcher:65536",
            "https://matcher:+1",
            "https://matcher:7400/",
            "https://user@matcher:7400",
            "https://a..b:1",
            "https://[::1:1",
            "https://[127.0.0.1]:1",
            "https://::1:1",
            "HTTPS://matcher:1",
            "ftp://matcher:1",
        ] {
            assert!(matches!(Endpoint::parse(text, true), Err(EndpointError::Form { .. })), "{text}");
        }
    }
}
