//! Scheme `glwe`, public half: what the matcher and the clients may know (DESIGN section 3).
//!
//! Parameters, layouts, masks, packed groups, the messages between matcher and key holders, and the matcher's scan.
//! No type here holds a key, a share or an opened value; those live in `veilmatch-holder`, which this room cannot
//! reach. A matcher sees ciphertexts under secrets that are sums of three parts, of which any one holder lacks one:
//! to the matcher with one holder, a body is an RLWE sample with a ternary secret (docs/security-estimate.md).

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")
)]

mod group;
mod layout;
mod masks;
mod messages;
mod noise;
mod parameters;
mod placement;

pub use group::{
    Bodies, CiphertextError, ColdBodies, PackedGroup, ProbeCiphertext, SegmentedProbe, Segments, body_digest,
    decode_polynomials, encode_polynomials, scan_groups, sum_parts,
};
pub use layout::{Layout, LayoutError, MAX_RANK, SlotPlace};
pub use masks::{MaskSeed, Masks, uniform_polynomial, uniform_residues};
pub use messages::{
    BuildOrder, ClientAnswer, ClientRequest, Evaluation, FromHolder, FromTwin, GroupSums, MAX_ADMISSION, Member,
    PartPayload, ProbeAddend, ProbeShape, Refusal, Stage, ToHolder, ToTwin, Verdict, admission_session, build_session,
    query_session,
};
pub use noise::{Noise, decision_noise, score_noise};
pub use parameters::{GLWE_2048_V1, Parameters, Scales, SealedUse};
pub use placement::{place_gallery, place_probe, scale_part};
