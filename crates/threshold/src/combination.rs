//! From contributions to plaintexts.

use rayon::prelude::*;
use veilmatch_domain::Part;
use veilmatch_kernels::montgomery::Modular;
use veilmatch_paillier::{Ciphertext, PartialDecryption, Plaintext, PublicKey};

use crate::ThresholdError;

/// Checks all contributions and multiplies them up: the plaintexts of a batch. Every part must be there exactly once: from two holders,
/// one of them with both of its parts, or from three with one each. Needs public data only. On the current rayon pool.
///
/// # Errors
/// [`ThresholdError`]: a part is missing or came twice; a holder cheated, who is named; the lists do not belong together.
pub fn combine(
    key: &PublicKey,
    ciphertexts: &[Ciphertext],
    contributions: &[PartialDecryption],
    context: &[u8],
) -> Result<Vec<Plaintext>, ThresholdError> {
    let mut seen = [false; 3];
    for contribution in contributions {
        for (index, (seen, part)) in seen.iter_mut().zip(contribution.parts.of(contribution.party)?).enumerate() {
            if *seen && part {
                return Err(ThresholdError::RepeatedPart(Part::from_index(index)));
            }
            *seen |= part;
        }
    }
    if let Some(missing) = seen.iter().position(|seen| !seen) {
        return Err(ThresholdError::MissingPart(Part::from_index(missing)));
    }
    contributions.par_iter().map(|c| c.verify(key, ciphertexts, context)).collect::<Result<Vec<()>, _>>()?;
    (0..ciphertexts.len())
        .into_par_iter()
        .map(|index| {
            let (group, mut work) = (key.group(), key.group().workspace());
            let mut product = group.one().to_vec();
            for contribution in contributions {
                let value = contribution.values.get(index).ok_or(ThresholdError::NotDecrypted { index })?;
                let value = value.to_inner(key, &mut work);
                group.multiply_assign(&mut work, &mut product, &value);
            }
            // Signs go away here; see the soundness of `PartialDecryption`.
            group.square_assign(&mut work, &mut product);
            group.leave(&mut work, &mut product);
            key.open_square(&product).ok_or(ThresholdError::NotDecrypted { index })
        })
        .collect()
}
