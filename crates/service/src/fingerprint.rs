//! Digests as people compare them.

/// 160 bits of a digest: ten groups of four hexadecimal digits. Spaces and case do not count when they are compared.
#[must_use]
pub fn fingerprint(digest: &[u8; 32]) -> String {
    let pairs = digest.as_chunks::<2>().0;
    let groups: Vec<String> = pairs.iter().take(10).map(|[a, b]| format!("{a:02x}{b:02x}")).collect();
    groups.join(" ")
}

/// Whether a text is the fingerprint of a digest.
#[must_use]
pub fn is_fingerprint_of(text: &str, digest: &[u8; 32]) -> bool {
    let digits = |text: &str| -> String {
        text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()).collect()
    };
    digits(text) == digits(&fingerprint(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_counts_and_its_spelling_does_not() {
        let digest: [u8; 32] = std::array::from_fn(|i| 0xa0 + i as u8);
        let text = fingerprint(&digest);
        assert_eq!(text, "a0a1 a2a3 a4a5 a6a7 a8a9 aaab acad aeaf b0b1 b2b3");
        assert!(is_fingerprint_of(&text, &digest));
        assert!(is_fingerprint_of(&text.to_uppercase().replace(' ', ""), &digest));
        for bad in ["", "a0a1", &text[..48], &format!("{text}b4")] {
            assert!(!is_fingerprint_of(bad, &digest), "{bad}");
        }
        let mut other = digest;
        other[19] ^= 1;
        assert!(!is_fingerprint_of(&text, &other));
    }
}
