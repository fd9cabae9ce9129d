//! Numbers that people know from papers: the authors' own, on their hardware, never measured here.

/// What a paper reports about searching a gallery.
#[derive(Clone, Copy, Debug)]
pub(super) struct Published {
    pub(super) system: &'static str,
    pub(super) source: &'static str,
    pub(super) hardware: &'static str,
    /// What is protected and how, in a few words.
    pub(super) setting: &'static str,
    pub(super) templates: f64,
    pub(super) seconds: f64,
}

impl Published {
    pub(super) fn us_per_template(&self) -> f64 {
        self.seconds * 1e6 / self.templates
    }
}

const NOT_GIVEN: &str = "see the source";

/// Searches, the slowest per template first.
pub(super) const SEARCHES: [Published; 6] = [
    Published {
        system: "PFIP",
        source: "arXiv 2507.02414 (within 300 ms)",
        hardware: NOT_GIVEN,
        setting: "homomorphic, one key server",
        templates: 1e3,
        seconds: 0.3,
    },
    Published {
        system: "Blind-Match",
        source: "2024",
        hardware: NOT_GIVEN,
        setting: "homomorphic, 128-d",
        templates: 6144.0,
        seconds: 0.74,
    },
    Published {
        system: "Bassit et al.",
        source: "T-BIOM 2025",
        hardware: "64 CPUs",
        setting: "fully encrypted, 512-d",
        templates: 1e6,
        seconds: 9.23,
    },
    Published {
        system: "HERS",
        source: "TBIOM 2022",
        hardware: NOT_GIVEN,
        setting: "homomorphic",
        templates: 1e8,
        seconds: 500.0,
    },
    Published {
        system: "IDFace",
        source: "ICCV 2025, arXiv 2507.12050 (two times its plaintext)",
        hardware: NOT_GIVEN,
        setting: "encrypted templates",
        templates: 1e6,
        seconds: 0.126,
    },
    Published {
        system: "Bloemen et al., iris",
        source: "4.3 billion iris comparisons per second; system of arXiv 2405.04463",
        hardware: "24 H100 GPUs",
        setting: "iris codes, three parties, secret shared",
        templates: 4.3e9,
        seconds: 1.0,
    },
];

/// Memory of an index: system, source, bytes per template.
pub(super) const INDEXES: [(&str, &str, f64); 3] = [
    ("HyDia (more than)", "PoPETs 2025: over 33 GB for a million", 33e3),
    ("Boddeti", "BFV, 2018: 16 KB per template", 16_384.0),
    ("successor of HyDia (less than)", "arXiv 2604.00546: under 11 GB for a million", 11e3),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_are_sorted_and_have_their_sources() {
        assert!(SEARCHES.windows(2).all(|w| w[0].us_per_template() > w[1].us_per_template()));
        assert!(SEARCHES.iter().all(|p| !p.source.is_empty() && !p.hardware.is_empty() && !p.setting.is_empty()));
    }
}
