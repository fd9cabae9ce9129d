//! `veilmatch pki`: an authority, and certificates for parties, clients and operators.

use serde::Serialize;
use veilmatch_domain::{ClientId, Explain, Party, Status};
use veilmatch_transport::{Name, NameError, OperatorName};

use crate::arguments::Pki;
use crate::exit::CliError;
use crate::local::{issue, pki_init};
use crate::report::{self, Report};

/// Nobody of this name has a certificate.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not k0, k1, k2, matcher, twin, client:ID or operator:NAME")]
struct UnknownName(String);

impl Explain for UnknownName {
    fn code(&self) -> &'static str {
        "unknown-name"
    }
    fn status(&self) -> Status {
        Status::InvalidArgument
    }
    fn advice(&self) -> &'static str {
        "see veilmatch pki issue --help"
    }
}

#[derive(Serialize)]
struct Made {
    name: String,
    certificate: String,
    key: String,
}

impl Report for Made {
    fn outside_band(&self) -> u64 {
        0
    }
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }
    fn text(&self) -> String {
        format!("{}: certificate {}, private key {} (keep it secret)\n", self.name, self.certificate, self.key)
    }
}

/// Makes what is asked for.
///
/// # Errors
/// [`CliError`].
pub fn run(what: &Pki, json: bool) -> Result<(), CliError> {
    let made = match what {
        Pki::Init { dir, name, .. } => {
            std::fs::create_dir_all(dir).map_err(CliError::Output)?;
            pki_init(dir, name).map_err(CliError::protocol)?;
            let at = |file: &str| dir.join(file).display().to_string();
            Made { name: name.clone(), certificate: at("ca.crt"), key: at("ca.key") }
        }
        Pki::Issue { dir, subject, host, days, cert, key, .. } => {
            let name = name_of(subject)?;
            issue(dir, &name, host, u64::from(*days) * 86_400, cert, key).map_err(CliError::protocol)?;
            Made { name: name.to_string(), certificate: cert.display().to_string(), key: key.display().to_string() }
        }
    };
    report::write(&made, json, &mut std::io::stdout().lock()).map_err(CliError::Output)
}

fn name_of(text: &str) -> Result<Name, CliError> {
    let unknown = || CliError::protocol(UnknownName(text.to_owned()));
    match text.split_once(':') {
        None => match text {
            "k0" => Ok(Name::Holder(Party::K0)),
            "k1" => Ok(Name::Holder(Party::K1)),
            "k2" => Ok(Name::Holder(Party::K2)),
            "matcher" => Ok(Name::Matcher),
            "twin" => Ok(Name::Twin),
            _ => Err(unknown()),
        },
        Some(("client", id)) => Ok(Name::Client(ClientId::new(id).map_err(CliError::protocol)?)),
        Some(("operator", name)) => {
            Ok(Name::Operator(OperatorName::new(name).map_err(|e: NameError| CliError::protocol(e))?))
        }
        Some(_) => Err(unknown()),
    }
}
