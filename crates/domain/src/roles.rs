//! What a client may do.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;

/// Most collections that one client can be limited to by name.
pub const MAX_CLIENT_COLLECTIONS: usize = 64;

/// One thing that a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Enrol subjects.
    Enroll,
    /// Ask `verify`.
    Verify,
    /// Ask `exists`, `matches` and `best`.
    Identify,
    /// Erase subjects.
    Erase,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Enroll => "enroll",
            Role::Verify => "verify",
            Role::Identify => "identify",
            Role::Erase => "erase",
        })
    }
}

/// What a client may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Roles {
    /// [`Role::Enroll`].
    pub enroll: bool,
    /// [`Role::Verify`].
    pub verify: bool,
    /// [`Role::Identify`].
    pub identify: bool,
    /// [`Role::Erase`].
    pub erase: bool,
}

impl Roles {
    /// Everything.
    pub const ALL: Roles = Roles { enroll: true, verify: true, identify: true, erase: true };

    /// Whether a role is among them.
    #[must_use]
    pub fn has(self, role: Role) -> bool {
        match role {
            Role::Enroll => self.enroll,
            Role::Verify => self.verify,
            Role::Identify => self.identify,
            Role::Erase => self.erase,
        }
    }
}
