//! `veilmatch dealer`: the ceremony of the scheme `paillier`. One process makes the key, seals a share to each holder's card and forgets
//! everything (DESIGN 4).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use serde::Serialize;
use veilmatch_domain::{Explain, Party, Status};
use veilmatch_keyholder::card::{fingerprint as card_fingerprint, read_card};
use veilmatch_keyholder::share::seal_share;
use veilmatch_paillier::KeySize;
use veilmatch_secret::os_entropy;
use veilmatch_service::fingerprint;
use veilmatch_threshold::{Dealer, Dealt};
use veilmatch_transport::{write_new_private, write_public};

use crate::exit::CliError;
use crate::local::DeploymentError;
use crate::report::{self, Progress, Report};

pub(crate) const EXAMPLES: &str = "\
Examples:
  veilmatch dealer --cards k0.card k1.card k2.card --out ceremony
  veilmatch dealer --bits 3072 --cards k0.card k1.card k2.card --out ceremony

Compare the fingerprints of the cards with the key holders first: a share is
sealed to whatever key its card has. Then paillier.pub goes to the matcher and
its twin, each .share to its key holder (veilmatch-keyholder install-share), and
the fingerprint of the public key to all of them over a second channel.

Whoever can read this process's memory, or what the machine swaps out or dumps
of it, can decrypt everything under the key: run it on a machine without a
network and without swap, with all three key holders watching, and switch the
machine off afterwards. The process forgets the primes and the shares, and
writes nothing that is secret but the sealed shares.";

/// Arguments of `dealer`.
#[derive(Clone, Debug, Args)]
pub struct DealerArguments {
    /// Bits of the modulus: 2048 (112 bits of security; seconds) or 3072 (128 bits; up to minutes)
    #[arg(long, value_name = "N", default_value = "2048", value_parser = key_size)]
    pub bits: KeySize,
    /// The cards of the three key holders
    #[arg(long, num_args = 3, required = true, value_names = ["K0.card", "K1.card", "K2.card"])]
    pub cards: Vec<PathBuf>,
    /// Folder of the results; made if it is not there. No file in it is overwritten
    #[arg(long, value_name = "FOLDER")]
    pub out: PathBuf,
    /// Write one JSON object to standard output and nothing else
    #[arg(long)]
    pub json: bool,
}

/// 2048 or 3072.
pub(crate) fn key_size(text: &str) -> Result<KeySize, String> {
    let known = KeySize::ALL.into_iter().find(|size| size.bits().to_string() == text);
    known.ok_or_else(|| String::from("must be 2048 or 3072"))
}

/// The cards are not those of the three holders.
#[derive(Debug, thiserror::Error)]
#[error("the cards must be those of K0, K1 and K2 in this order, with three different keys")]
struct WrongCards;

impl Explain for WrongCards {
    fn code(&self) -> &'static str {
        "wrong-cards"
    }
    fn status(&self) -> Status {
        Status::InvalidArgument
    }
    fn advice(&self) -> &'static str {
        "fetch each card from its own key holder, and compare the fingerprints"
    }
}

/// A result of an earlier ceremony would be overwritten.
#[derive(Debug, thiserror::Error)]
#[error("{} exists already", .0.display())]
struct Exists(PathBuf);

impl Explain for Exists {
    fn code(&self) -> &'static str {
        "file-exists"
    }
    fn status(&self) -> Status {
        Status::AlreadyExists
    }
    fn advice(&self) -> &'static str {
        "choose another folder with --out: a ceremony makes another key each time"
    }
}

#[derive(Serialize)]
struct Made {
    parameters: &'static str,
    fingerprint: String,
    public_key: String,
    shares: Vec<Share>,
}

#[derive(Serialize)]
struct Share {
    holder: String,
    file: String,
    card: String,
}

impl Report for Made {
    fn outside_band(&self) -> u64 {
        0
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self) -> String {
        let rows: Vec<Vec<String>> =
            self.shares.iter().map(|s| vec![s.holder.clone(), s.file.clone(), s.card.clone()]).collect();
        let table = report::table(&["key holder", "share, sealed to its card", "fingerprint of the card"], &[], &rows);
        format!(
            "{table}\n\npublic key   {} ({}), for the matcher and its twin\nfingerprint  {}\n\n\
             At each key holder, while it does not run:\n  veilmatch-keyholder install-share kN.share --fingerprint \"{}\"\n\
             Until a moment ago this process held the primes and all shares: whoever could read its memory, or what the\n\
             machine swapped out or dumped of it, can decrypt everything under this key. It has forgotten them.\n",
            self.public_key, self.parameters, self.fingerprint, self.fingerprint
        )
    }
}

/// Holds the ceremony.
///
/// # Errors
/// [`CliError`]; what was written so far stays, and a ceremony is held again in another folder.
pub fn run(arguments: &DealerArguments, json: bool, progress: &Progress) -> Result<(), CliError> {
    let mut cards = Vec::new();
    for (path, party) in arguments.cards.iter().zip(Party::ALL) {
        let card = read_card(path).map_err(|e| CliError::Arguments(Box::new(e)))?;
        let repeated = cards.iter().any(|other: &veilmatch_holder::HolderCard| other.encryption == card.encryption);
        if card.party != party || repeated {
            return Err(CliError::Arguments(Box::new(WrongCards)));
        }
        cards.push(card);
    }
    std::fs::create_dir_all(&arguments.out)
        .map_err(|e| CliError::protocol(DeploymentError::Folder { path: arguments.out.clone(), kind: e.kind() }))?;
    let path = |name: &str| arguments.out.join(name);
    let names = Party::ALL.map(|party| format!("k{}.share", party.index()));
    for name in names.iter().map(String::as_str).chain(["paillier.pub"]) {
        if path(name).exists() {
            return Err(CliError::Arguments(Box::new(Exists(path(name)))));
        }
    }
    let dealt = deal(arguments.bits, progress)?;
    let mut shares = Vec::new();
    for ((share, card), name) in dealt.shares.iter().zip(&cards).zip(&names) {
        let sealed = seal_share(share, card, os_entropy().as_mut()).map_err(CliError::protocol)?;
        write_new_private(&path(name), &sealed).map_err(CliError::protocol)?;
        let (holder, file) = (card.party.to_string(), path(name).display().to_string());
        shares.push(Share { holder, file, card: card_fingerprint(card) });
    }
    write_public_key(&path("paillier.pub"), &dealt)?;
    let made = Made {
        parameters: dealt.key.size().parameters(),
        fingerprint: fingerprint(&dealt.key.digest().0),
        public_key: path("paillier.pub").display().to_string(),
        shares,
    };
    // From here on the text is true.
    drop(dealt);
    report::write(&made, json, &mut std::io::stdout().lock()).map_err(CliError::Output)
}

/// Writes the public half.
///
/// # Errors
/// [`CliError`].
pub(crate) fn write_public_key(path: &Path, dealt: &Dealt) -> Result<(), CliError> {
    write_public(path, &dealt.key.to_bytes()).map_err(CliError::protocol)
}

/// Searches the primes and makes the key; says on standard error how it goes. Takes seconds at 2,048 bits, up to minutes at 3,072.
///
/// # Errors
/// [`CliError`].
pub fn deal(size: KeySize, progress: &Progress) -> Result<Dealt, CliError> {
    let bar = progress.search("prime search", "candidates tested");
    let tested = AtomicU64::new(0);
    let dealt = Dealer::new(size).deal(
        &|step| {
            bar.reach(tested.fetch_add(1, Ordering::Relaxed) as usize + 1);
            if step.found {
                // Where there is no terminal, this is all that is said.
                let _ = writeln!(std::io::stderr(), "prime search: found a prime of {} bits", size.bits() / 2);
            }
        },
        os_entropy().as_mut(),
    );
    dealt.map_err(CliError::protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!((key_size("2048"), key_size("3072")), (Ok(KeySize::Bits2048), Ok(KeySize::Bits3072)));
        for bad in ["", "1024", "2048 ", "4096"] {
            assert!(key_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cards_of_others_or_twice_the_same_are_refused_before_anything_is_made() {
        use veilmatch_keyholder::{card::write_card, keyfile::HolderKeys};
        let folder = tempfile::tempdir().unwrap();
        let paths = Party::ALL.map(|party| {
            let path = folder.path().join(format!("k{}.card", party.index()));
            write_card(&path, &HolderKeys::random(party, &mut *os_entropy()).card()).unwrap();
            path
        });
        let [k0, k1, k2] = paths;
        for cards in [[&k1, &k0, &k2], [&k0, &k0, &k2], [&k0, &k1, &k1]] {
            let cards = cards.map(Clone::clone).to_vec();
            let out = folder.path().join("out");
            let arguments = DealerArguments { bits: KeySize::Bits2048, cards, out: out.clone(), json: false };
            let error = run(&arguments, false, &Progress::hidden()).unwrap_err();
            assert_eq!((error.reason(), error.exit_code(), out.exists()), ("wrong-cards", 2, false));
        }
        let out = folder.path().join("used");
        std::fs::create_dir(&out).unwrap();
        std::fs::write(out.join("k2.share"), b"of an earlier ceremony").unwrap();
        let cards = vec![k0, k1, k2];
        let arguments = DealerArguments { bits: KeySize::Bits2048, cards, out: out.clone(), json: false };
        let error = run(&arguments, false, &Progress::hidden()).unwrap_err();
        assert_eq!((error.reason(), error.exit_code()), ("file-exists", 2));
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1);
    }
}
