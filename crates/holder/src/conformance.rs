//! Both schemes under the conformance suite. The parties' functions are run directly, without sessions.

mod glwe;
mod paillier;
