//! The first steps of a new holder: its keys, and the card that it hands to the others.

use veilmatch_domain::{Explain, Party, Status};
use veilmatch_holder::HolderCard;
use veilmatch_secret::os_entropy;

use crate::card::{CardError, write_card};
use crate::config::Config;
use crate::keyfile::{Cost, HolderKeys, KeyFileError, Unlock};

/// Why there is no key file or card now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The key file.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The card.
    #[error(transparent)]
    Card(#[from] CardError),
    /// The key file is another holder's.
    #[error("the key file is that of key holder {found}; this is key holder {expected}")]
    OtherParty {
        /// Of the configuration.
        expected: Party,
        /// Of the key file.
        found: Party,
    },
}

impl Explain for SetupError {
    fn code(&self) -> &'static str {
        match self {
            Self::Keys(e) => e.code(),
            Self::Card(e) => e.code(),
            Self::OtherParty { .. } => "other-party",
        }
    }
    fn status(&self) -> Status {
        match self {
            Self::Keys(e) => e.status(),
            Self::Card(e) => e.status(),
            Self::OtherParty { .. } => Status::FailedPrecondition,
        }
    }
    fn advice(&self) -> &'static str {
        match self {
            Self::Keys(e) => e.advice(),
            Self::Card(e) => e.advice(),
            Self::OtherParty { .. } => "correct `party` or `keys.file` in the configuration",
        }
    }
}

/// Draws this holder's keys, and writes key file and card to where the configuration says. `cost` is for passphrases.
///
/// # Errors
/// [`SetupError`]; a key file that is there already is not overwritten, and neither is another card.
pub fn init(config: &Config, unlock: &Unlock, cost: Cost) -> Result<HolderCard, SetupError> {
    let mut entropy = os_entropy();
    let keys = HolderKeys::random(config.party, entropy.as_mut());
    keys.create(&config.key_file, unlock, cost, entropy.as_mut())?;
    write_own_card(config, keys.card())
}

/// Writes the card of the key file that is there, for example if it was lost.
///
/// # Errors
/// [`SetupError`]; another card is not overwritten.
pub fn rewrite_card(config: &Config, unlock: &Unlock) -> Result<HolderCard, SetupError> {
    let keys = HolderKeys::open(&config.key_file, unlock)?;
    if keys.party != config.party {
        return Err(SetupError::OtherParty { expected: config.party, found: keys.party });
    }
    write_own_card(config, keys.card())
}

fn write_own_card(config: &Config, card: HolderCard) -> Result<HolderCard, SetupError> {
    let [k0, k1, k2] = &config.cards;
    let path = match config.party {
        Party::K0 => k0,
        Party::K1 => k1,
        Party::K2 => k2,
    };
    write_card(path, &card)?;
    Ok(card)
}
