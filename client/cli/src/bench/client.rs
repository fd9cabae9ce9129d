//! `veilmatch bench client`: the capture device's part, on one core.

use std::hint::black_box;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use veilmatch_domain::{
    ClientId, CollectionId, Decision, Dimension, Purpose, Query, SubjectId, TemplateVersion, Threshold, Timestamp,
};
use veilmatch_holder::HolderSecretKey;
use veilmatch_sdk::Client;
use veilmatch_sealed::{Associated, ClientSigningKey, seal};
use veilmatch_secret::{Label, os_entropy};

use super::spread::Spread;
use crate::arguments::dimension;
use crate::exit::CliError;
use crate::report::{self, Progress, Report};
use crate::synthetic;

pub(super) const EXAMPLES: &str = "\
Examples:
  veilmatch bench client
  veilmatch bench client --dim 256 --repeat 1000 --json > client.json";

/// Different vectors that are sealed in turns.
const VECTORS: usize = 32;

/// Arguments of `bench client`.
#[derive(Clone, Debug, Args)]
pub struct ClientArguments {
    /// Dimension of the embeddings, 16 to 1024
    #[arg(long, value_name = "D", default_value = "512", value_parser = dimension)]
    pub dim: Dimension,
    /// How many templates
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(9..=1_000_000))]
    pub repeat: u32,
    /// Write one JSON object to standard output and nothing else
    #[arg(long)]
    pub json: bool,
}

/// Microseconds of the steps, each measured by itself.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ClientReport {
    bench: &'static str,
    dim: usize,
    repeat: usize,
    /// Quantise, split, encapsulate to three holders, encrypt, sign.
    seal_us: Spread,
    /// The signature alone, which sealing contains.
    sign_us: Spread,
    /// A sealed template as bytes.
    encode_us: Spread,
    /// A whole request: a sealed, signed and encoded probe with its query.
    ask_us: Spread,
    template_bytes: usize,
    request_bytes: usize,
}

impl Report for ClientReport {
    fn outside_band(&self) -> u64 {
        0
    }

    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self) -> String {
        let rows = [
            ("seal a template, signature included", self.seal_us),
            ("  of that, sign", self.sign_us),
            ("encode a template", self.encode_us),
            ("a whole query: seal, sign, encode", self.ask_us),
        ]
        .map(|(name, spread)| vec![name.to_owned(), spread.text(1), format!("{:.1}", spread.max)]);
        let table = report::table(&["on one core", "µs: median (quartiles)", "largest"], &[1, 2], &rows);
        format!(
            "{} dimensions, {} templates. A sealed template takes {}, a query {}.\n\n{table}\n",
            self.dim,
            self.repeat,
            report::bytes(self.template_bytes as u64),
            report::bytes(self.request_bytes as u64),
        )
    }
}

/// Measures.
///
/// # Errors
/// [`CliError`] if sealing fails, which keys that were just drawn rule out.
pub(super) fn measure(arguments: &ClientArguments, progress: &Progress) -> Result<ClientReport, CliError> {
    let mut entropy = os_entropy();
    let signer = ClientSigningKey::random(entropy.as_mut());
    let keys = [(); 3].map(|()| HolderSecretKey::random(entropy.as_mut()).public_key().clone());
    let id = ClientId::new("bench").map_err(CliError::protocol)?;
    let collection = CollectionId::new("bench").map_err(CliError::protocol)?;
    let subject = SubjectId::new("person-0").map_err(CliError::protocol)?;
    let threshold = Threshold::new(0.427).map_err(CliError::protocol)?;
    let now = Timestamp(1_800_000_000);
    let mut client = Client::new(id.clone(), TemplateVersion(1), keys.clone(), os_entropy());
    let vectors: Vec<_> = synthetic::people(VECTORS, 1, arguments.dim, 1)?.into_iter().flatten().collect();
    let repeat = arguments.repeat as usize;
    let bar = progress.stage("seal", repeat);
    let mut times = [(); 4].map(|()| Vec::with_capacity(repeat));
    let (mut template_bytes, mut request_bytes) = (0, 0);
    for (number, vector) in (0u64..).zip(vectors.iter().cycle().take(repeat)) {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&number.to_le_bytes());
        let associated = Associated {
            client: id.clone(),
            collection: collection.clone(),
            purpose: Purpose::Enrol { subject: subject.clone() },
            dimension: arguments.dim,
            template_version: TemplateVersion(1),
            nonce,
            expires: now,
        };
        let [sealing, signing, encoding, asking] = &mut times;
        let begun = Instant::now();
        let sealed = seal(vector, associated, &keys, &signer, entropy.as_mut());
        sealing.push(begun.elapsed());
        let (sealed, _) = sealed.map_err(CliError::protocol)?;
        let begun = Instant::now();
        black_box(signer.sign(&Label::new("veilmatch/bench").number(number)));
        signing.push(begun.elapsed());
        let begun = Instant::now();
        let bytes = black_box(sealed.to_bytes());
        encoding.push(begun.elapsed());
        let query = Query::new(Decision::Best, threshold);
        let begun = Instant::now();
        let asked = client.ask(&collection, vector, query, now);
        asking.push(begun.elapsed());
        let (request, _) = asked.map_err(CliError::protocol)?;
        (template_bytes, request_bytes) = (bytes.len(), request.len());
        bar.step();
    }
    let [seal_us, sign_us, encode_us, ask_us] =
        times.map(|t| Spread::of(t.into_iter().map(|time: std::time::Duration| time.as_secs_f64() * 1e6)));
    let dim = arguments.dim.get();
    Ok(ClientReport {
        bench: "client",
        dim,
        repeat,
        seal_us,
        sign_us,
        encode_us,
        ask_us,
        template_bytes,
        request_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_format_and_every_step_takes_time() {
        let dim = Dimension::new(64).unwrap();
        let report = measure(&ClientArguments { dim, repeat: 9, json: true }, &Progress::hidden()).unwrap();
        // What everybody may read of it comes on top: names, purpose, nonce, expiry.
        let names = report.template_bytes - veilmatch_sealed::sealed_bytes(dim);
        assert!((40..120).contains(&names), "{names}");
        assert!(report.request_bytes > report.template_bytes / 2);
        assert!(report.sign_us.min > 0.0 && report.seal_us.median > report.sign_us.median, "{report:?}");
    }
}
