//! The three key holders and the parts of a secret that each of them knows (DESIGN 3.1).

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;

/// A key holder: K0, K1 or K2. Indices are taken modulo 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub enum Party {
    /// Holder 0.
    K0,
    /// Holder 1.
    K1,
    /// Holder 2.
    K2,
}

impl Party {
    /// All holders in order.
    pub const ALL: [Party; 3] = [Party::K0, Party::K1, Party::K2];

    /// 0, 1 or 2.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The holder with this index modulo 3.
    #[must_use]
    pub const fn from_index(index: usize) -> Party {
        match index % 3 {
            0 => Party::K0,
            1 => Party::K1,
            _ => Party::K2,
        }
    }

    /// K_{i+1}.
    #[must_use]
    pub const fn next(self) -> Party {
        Party::from_index(self.index() + 1)
    }

    /// K_{i-1}.
    #[must_use]
    pub const fn previous(self) -> Party {
        Party::from_index(self.index() + 2)
    }

    /// The two other holders: next, previous.
    #[must_use]
    pub const fn peers(self) -> [Party; 2] {
        [self.next(), self.previous()]
    }

    /// The parts that this holder knows: i and i+1.
    #[must_use]
    pub const fn parts(self) -> [Part; 2] {
        [Part::from_index(self.index()), Part::from_index(self.index() + 1)]
    }

    /// The one part that this holder does not know: i+2.
    #[must_use]
    pub const fn missing_part(self) -> Part {
        Part::from_index(self.index() + 2)
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "K{}", self.index())
    }
}

/// Part i of a replicated secret (s = s^(0)+s^(1)+s^(2)); it belongs to K_i and K_{i-1}.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Part(u8);

impl Part {
    /// All parts in order.
    pub const ALL: [Part; 3] = [Part(0), Part(1), Part(2)];

    /// The part with this index modulo 3.
    #[must_use]
    pub const fn from_index(index: usize) -> Part {
        Part((index % 3) as u8)
    }

    /// 0, 1 or 2.
    #[must_use]
    pub const fn index(self) -> usize {
        (self.0 % 3) as usize
    }

    /// The holders that know this part: K_i, who sends it, and K_{i-1}, who sends its digest.
    #[must_use]
    pub const fn holders(self) -> [Party; 2] {
        let owner = Party::from_index(self.index());
        [owner, owner.previous()]
    }

    /// The one holder that does not know this part: K_{i+1}.
    #[must_use]
    pub const fn outsider(self) -> Party {
        Party::from_index(self.index() + 1)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "part {}", self.index())
    }
}

/// Whom a protocol error points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Suspect {
    /// The client that signed the request.
    Client,
    /// The matcher.
    Matcher,
    /// One holder.
    Holder(Party),
    /// Two holders whose copies differ; the mismatch cannot tell them apart. Stored in index order.
    Pair(Party, Party),
    /// The matcher's twin: the second evaluator of the scheme `paillier`.
    Twin,
}

impl Suspect {
    /// A pair of holders, in index order.
    #[must_use]
    pub fn pair(a: Party, b: Party) -> Suspect {
        if a <= b { Suspect::Pair(a, b) } else { Suspect::Pair(b, a) }
    }

    /// The pair that both know `part`.
    #[must_use]
    pub fn holders_of(part: Part) -> Suspect {
        let [a, b] = part.holders();
        Suspect::pair(a, b)
    }

    /// Whether `party` is among the suspects.
    #[must_use]
    pub fn includes(&self, party: Party) -> bool {
        match *self {
            Suspect::Holder(p) => p == party,
            Suspect::Pair(a, b) => a == party || b == party,
            Suspect::Client | Suspect::Matcher | Suspect::Twin => false,
        }
    }
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Suspect::Client => f.write_str("the client"),
            Suspect::Matcher => f.write_str("the matcher"),
            Suspect::Holder(p) => write!(f, "key holder {p}"),
            Suspect::Pair(a, b) => write!(f, "key holder {a} or {b}"),
            Suspect::Twin => f.write_str("the twin"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_belongs_to_the_two_holders_that_list_it() {
        for party in Party::ALL {
            for part in Part::ALL {
                assert_eq!(party.parts().contains(&part), part.holders().contains(&party));
            }
            assert_eq!(party.missing_part().outsider(), party);
            assert_eq!(party.next().previous(), party);
        }
    }

    #[test]
    fn a_pair_has_one_spelling() {
        assert_eq!(Suspect::pair(Party::K2, Party::K0), Suspect::pair(Party::K0, Party::K2));
        assert_eq!(Suspect::pair(Party::K2, Party::K0).to_string(), "key holder K0 or K2");
    }
}
