//! `veilmatch allow-restore`: a key holder that has lost everything may be made again from the two others.

use clap::Args;
use serde::Serialize;
use veilmatch_domain::Party;
use veilmatch_sealed::Administration;
use veilmatch_secret::Digest;

use super::{Answer, At, Output, Session, finish};
use crate::exit::{CliError, Verdict};

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch allow-restore --holder k1 --fingerprint 3f0c…64 digits… --at k0
  veilmatch allow-restore --holder k1 --fingerprint 3f0c…64 digits… --at k2

The fingerprint is what `veilmatch-keyholder restore` prints on the new machine:
have it read to you by telephone, by somebody you know. Both other key holders
must allow it; each answers once, within an hour.";

/// Arguments of `allow-restore`.
#[derive(Clone, Debug, Args)]
pub struct AllowRestoreArguments {
    /// The key holder that is made again
    #[arg(long, value_enum, value_name = "HOLDER")]
    pub holder: LostHolder,
    /// The fingerprint of the fresh key on its new machine, 64 hexadecimal digits
    #[arg(long, value_name = "HEX", value_parser = fingerprint)]
    pub fingerprint: [u8; 32],
    /// The parties.
    #[command(flatten)]
    pub at: At,
    /// The report.
    #[command(flatten)]
    pub output: Output,
}

/// The key holders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LostHolder {
    /// Key holder 0.
    K0,
    /// Key holder 1.
    K1,
    /// Key holder 2.
    K2,
}

impl LostHolder {
    fn party(self) -> Party {
        match self {
            Self::K0 => Party::K0,
            Self::K1 => Party::K1,
            Self::K2 => Party::K2,
        }
    }
}

fn fingerprint(text: &str) -> Result<[u8; 32], String> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    let only_digits = text.chars().all(|c| c.is_ascii_hexdigit() || c == ' ' || c == '-');
    let bytes: Vec<u8> =
        digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    match <[u8; 32]>::try_from(bytes) {
        Ok(bytes) if only_digits && digits.len() == 64 => Ok(bytes),
        _ => Err(String::from("not 64 hexadecimal digits")),
    }
}

#[derive(Serialize)]
struct Allowed {
    holder: String,
    at: Vec<String>,
}

impl Answer for Allowed {
    fn text(&self) -> String {
        format!("{} may be made again; allowed at {} for an hour, once\n", self.holder, self.at.join(", "))
    }
}

pub(super) async fn run(session: &Session<'_>, arguments: &AllowRestoreArguments) -> Result<Verdict, CliError> {
    let party = arguments.holder.party();
    let action = Administration::AllowRestore { party, key_fingerprint: Digest(arguments.fingerprint) };
    // The lost holder is not there to be asked.
    let at: Vec<Party> = arguments.at.holders().into_iter().filter(|holder| *holder != party).collect();
    session.profile()?.operator()?.at_holders(&at, &action).await?;
    let allowed = Allowed { holder: party.to_string(), at: at.iter().map(Party::to_string).collect() };
    finish(&allowed, arguments.output.json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_in_groups_and_nothing_else_is() {
        let text = "00ff".repeat(16);
        let expected: Vec<u8> = [0, 255].repeat(16);
        assert_eq!(fingerprint(&text).unwrap().to_vec(), expected);
        assert_eq!(fingerprint(&["00ff"; 16].join(" ")).unwrap().to_vec(), expected);
        for bad in [&text[..63], "", &format!("{text}0"), &text.replace('0', "g")] {
            assert!(fingerprint(bad).is_err(), "{bad}");
        }
    }
}
