//! The command line as types. Numbers are checked against their range here, so nothing behind has to.

use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use veilmatch_domain::{CollectionId, Dimension, Explain as _, SchemeName, Threshold, UnknownScheme};
use veilmatch_paillier::KeySize;

use crate::bench::Bench;
use crate::calibrate::{self, CalibrateArguments};
use crate::dealer::{self, DealerArguments};
use crate::engine::Scheme;
use crate::eval::Evaluation;
use crate::network::Network;
use crate::photos::PhotoOptions;
use crate::photos::cast::DRAWN_GALLERY;
use crate::photos::inspect::{self, InspectArguments};
use crate::photos::models::Models;
use crate::rotation::RotationCommand;

const EXIT_CODES: &str = "\
Exit codes:
  0  done; yes; every decision outside the noise band equals the plaintext one
  1  no: nobody matches; or a decision differs outside the band
  2  bad input: arguments, profile or files
  3  a party refused, deviated or was not there, or the report could not be
     written";

const DEMO_EXAMPLES: &str = "\
Examples:
  veilmatch demo
  veilmatch demo --gallery 200 --dim 128 --probes 10
  veilmatch demo --embeddings templates.npy --labels labels.csv --gallery 2000
  veilmatch demo --images
  veilmatch demo --images photos/ --gallery 50
  veilmatch demo --scheme paillier --gallery 40
  veilmatch demo --json | python3 -m json.tool

labels.csv has the columns `row,label`; rows count from 0. A person's first row
is enrolled, the second is a mated probe; people who are not enrolled are
non-mated probes.

--images draws faces and reads them with two tiny models that are part of the
program; with a folder, each folder in it is a person and holds photos: the last
accepted one is a mated probe, the others are fused and enrolled.";

const UP_EXAMPLES: &str = "\
Examples:
  veilmatch up
  veilmatch up --dir vm --collection staff --dim 256
  veilmatch up --dir vm --base-port 9440 --json
  veilmatch up --dir vm --scheme paillier --collection vault --dim 128

It runs until Ctrl-C or SIGTERM, and starts again what ends by itself. The
folder's veilmatch.toml is a profile: export VEILMATCH_PROFILE=FOLDER/veilmatch.toml";

const PKI_EXAMPLES: &str = "\
Examples:
  veilmatch pki init --dir ca
  veilmatch pki issue --dir ca --for k0 --host k0.example.org --cert k0.crt --key k0.key
  veilmatch pki issue --dir ca --for client:gate-7 --cert gate-7.crt --key gate-7.key
  veilmatch pki issue --dir ca --for operator:ann --days 30 --cert ann.crt --key ann.key";

/// Face matching in which probe and gallery stay encrypted.
#[derive(Debug, Parser)]
#[command(name = "veilmatch", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// For commands that ask a deployment: where it is reached and with which keys. By default VEILMATCH_PROFILE, else
    /// ./veilmatch.toml, else ~/.config/veilmatch/client.toml
    #[arg(long, global = true, value_name = "FILE.toml")]
    pub profile: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Play the whole protocol with all its servers on this machine: ceremony, enrol, verify, identify, erase
    ///
    /// Every decision is compared with the plaintext one. Client, matcher and three key holders exchange serialised
    /// bytes and nothing else.
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArguments),
    /// Start a whole deployment on this machine and keep it running: matcher and three key holders, mutual TLS
    ///
    /// The first start makes certificates, keys and configuration files in the folder, holds the key ceremony and
    /// registers a client; later starts use what is there. For development and tests: all parties run under one user.
    #[command(after_help = UP_EXAMPLES)]
    Up(UpArguments),
    /// Make a threshold key of the scheme `paillier`: a public key, and a sealed share for each key holder
    #[command(after_help = dealer::EXAMPLES)]
    Dealer(DealerArguments),
    /// Certificates of a deployment: an authority, and certificates for parties, clients and operators
    Pki {
        /// What to make.
        #[command(subcommand)]
        what: Pki,
    },
    /// Run one party of a deployment; `veilmatch up` starts these
    #[command(hide = true)]
    Serve(ServeArguments),
    /// Measure on this machine
    Bench {
        /// What.
        #[command(subcommand)]
        what: Bench,
    },
    /// Public rotations, which gather what tells people apart in the first coordinates
    Rotation {
        /// What to do.
        #[command(subcommand)]
        what: RotationCommand,
    },
    /// Measure whether a coarse first stage would pay, on labelled embeddings
    ///
    /// Thresholds are chosen on one half of the people and reported on the other. A first stage is an opening: it shows the
    /// matcher a set of candidates. This command only measures; searches have one stage.
    #[command(after_help = calibrate::EXAMPLES)]
    Calibrate(CalibrateArguments),
    /// Look at a photo: which faces are found, how good they are, whether they would be accepted
    #[command(after_help = inspect::EXAMPLES)]
    Inspect(InspectArguments),
    /// Models that turn photos into templates: list, check, install and download them
    Models {
        /// What to do.
        #[command(subcommand)]
        what: Models,
    },
    /// The commands that ask a deployment.
    #[command(flatten)]
    Network(Network),
    /// Measure accuracy, encrypted beside plaintext
    Eval {
        /// On what.
        #[command(subcommand)]
        what: Evaluation,
    },
}

/// Arguments of `up`.
#[derive(Clone, Debug, Args)]
pub struct UpArguments {
    /// The deployment's folder; made if it is not there
    #[arg(long, value_name = "FOLDER", default_value = "veilmatch-local")]
    pub dir: PathBuf,
    /// First of ten ports in a row on 127.0.0.1, for a new deployment
    #[arg(long, value_name = "PORT", default_value_t = 7440, value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    pub base_port: u16,
    /// Scheme of that collection: `glwe`, or `paillier`, for which the twin runs too. The first time, the dealer's ceremony is held in
    /// this process: seconds at 2048 bits, up to minutes at 3072
    #[arg(long, value_name = "NAME", default_value_t = SchemeName::Glwe)]
    pub scheme: SchemeName,
    /// Bits of the key of the scheme `paillier` if there is none yet: 2048 or 3072
    #[arg(long, value_name = "N", default_value = "2048", value_parser = dealer::key_size)]
    pub key_bits: KeySize,
    /// Create this collection if it is not there, with the standard policy
    #[arg(long, value_name = "NAME")]
    pub collection: Option<CollectionId>,
    /// Bind that collection to this embedder: its name in `veilmatch models list`, or its digest
    #[arg(long, value_name = "NAME", requires = "collection")]
    pub model: Option<String>,
    /// Dimension of that collection, 16 to 1024
    #[arg(long, value_name = "D", default_value = "512", value_parser = dimension, requires = "collection")]
    pub dim: Dimension,
    /// Write one JSON object to standard output once everything runs
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArguments {
    /// Which party
    #[arg(value_enum)]
    pub party: ServeParty,
    /// Its configuration file
    #[arg(long, value_name = "FILE.toml")]
    pub config: PathBuf,
}

/// The parties that have a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ServeParty {
    /// Key holder 0.
    K0,
    /// Key holder 1.
    K1,
    /// Key holder 2.
    K2,
    /// The matcher.
    Matcher,
    /// The matcher's twin.
    Twin,
}

/// What `pki` makes.
#[derive(Debug, Subcommand)]
pub enum Pki {
    /// Make an authority: ca.crt and ca.key
    #[command(after_help = PKI_EXAMPLES)]
    Init {
        /// Where
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        dir: PathBuf,
        /// Its name in the certificate
        #[arg(long, value_name = "TEXT", default_value = "veilmatch authority")]
        name: String,
        /// Write one JSON object to standard output and nothing else
        #[arg(long)]
        json: bool,
    },
    /// Issue a certificate
    #[command(after_help = PKI_EXAMPLES)]
    Issue {
        /// The folder of the authority
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        dir: PathBuf,
        /// For whom: k0, k1, k2, matcher, twin, client:ID or operator:NAME
        #[arg(long = "for", value_name = "WHO")]
        subject: String,
        /// Host name or address of a server; may be given several times
        #[arg(long, value_name = "HOST")]
        host: Vec<String>,
        /// Days until it expires, 1 to 3650
        #[arg(long, value_name = "N", default_value_t = 395, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
        /// The certificate to write
        #[arg(long, value_name = "FILE.crt")]
        cert: PathBuf,
        /// The private key to write
        #[arg(long, value_name = "FILE.key")]
        key: PathBuf,
        /// Write one JSON object to standard output and nothing else
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArguments {
    /// How many people to enrol at most [default: 1000; 100 under `paillier`, where a search takes a hundred times as long; 24
    /// drawn faces]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    gallery: Option<u32>,
    /// Under which scheme, and with which key
    #[command(flatten)]
    pub scheme: SchemeArguments,
    /// Dimension of the synthetic embeddings, 16 to 1024
    #[arg(long, value_name = "D", default_value = "512", value_parser = dimension, conflicts_with = "embeddings")]
    pub dim: Dimension,
    /// Real embeddings: a matrix of float16 or float32, one unit vector per row
    #[arg(long, value_name = "F.npy", requires = "labels")]
    pub embeddings: Option<PathBuf>,
    /// Who is in which row: columns `row,label`
    #[arg(long, value_name = "F.csv", requires = "embeddings")]
    pub labels: Option<PathBuf>,
    /// Scale embeddings of any length to unit length instead of refusing them
    #[arg(long, requires = "embeddings")]
    pub normalize: bool,
    /// Begin with pictures: drawn faces, or the photos of a folder of folders, one for each person
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, conflicts_with_all = ["embeddings", "dim"])]
    pub images: Option<Option<PathBuf>>,
    /// How many enrolled people ask, and how many strangers
    #[arg(long, value_name = "K", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub probes: u32,
    /// Cosine from which two faces match, -0.9 to 0.9 [default: 0.427, one false match in 10,000 on LFW; with --images the
    /// model's own]
    #[arg(long, value_name = "T", value_parser = threshold, allow_negative_numbers = true)]
    pub threshold: Option<Threshold>,
    /// Write one JSON object to standard output and nothing else
    #[arg(long)]
    pub json: bool,
    /// How photos become templates.
    #[command(flatten)]
    pub photos: PhotoOptions,
}

impl DemoArguments {
    /// How many people to enrol at most.
    #[must_use]
    pub fn gallery(&self) -> u32 {
        let usual = match (&self.images, self.scheme.chosen()) {
            (Some(None), _) => DRAWN_GALLERY,
            (_, Scheme::Glwe) => 1000,
            _ => 100,
        };
        self.gallery.unwrap_or(usual)
    }
}

/// Under which scheme, and with which key.
#[derive(Clone, Copy, Debug, Args)]
pub struct SchemeArguments {
    /// The scheme of the index: glwe or paillier; under paillier a dealer makes a key first, and there is a twin of the matcher
    #[arg(long, value_name = "SCHEME", default_value = "glwe", value_parser = scheme)]
    scheme: SchemeName,
    /// Bits of the Paillier modulus that a dealer makes for this run: 2048 or 3072
    #[arg(long, value_name = "BITS", default_value = "2048", value_parser = dealer::key_size)]
    key_bits: KeySize,
}

impl Default for SchemeArguments {
    fn default() -> Self {
        Self { scheme: SchemeName::Glwe, key_bits: KeySize::Bits2048 }
    }
}

impl SchemeArguments {
    /// What was chosen.
    #[must_use]
    pub fn chosen(self) -> Scheme {
        match self.scheme {
            SchemeName::Glwe => Scheme::Glwe,
            SchemeName::Paillier => Scheme::Paillier(self.key_bits),
        }
    }
}

fn scheme(text: &str) -> Result<SchemeName, String> {
    text.parse().map_err(|e: UnknownScheme| format!("{e}; {}", e.advice()))
}

pub(crate) fn dimension(text: &str) -> Result<Dimension, String> {
    let number: usize = text.parse().map_err(|_| String::from("not a whole number"))?;
    Dimension::new(number).map_err(|e| e.to_string())
}

pub(crate) fn threshold(text: &str) -> Result<Threshold, String> {
    let number: f64 = text.parse().map_err(|_| String::from("not a number"))?;
    Threshold::new(number).map_err(|e| e.to_string())
}

/// Parses the arguments, the program's name first.
///
/// # Errors
/// clap's, which is also how help and version come back.
pub fn parse(arguments: &[OsString]) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(arguments)
}

/// Whether `--json` is among the arguments, even if the rest of them cannot be parsed.
#[must_use]
pub fn asks_for_json(arguments: &[OsString]) -> bool {
    arguments.iter().skip(1).take_while(|a| *a != "--").any(|a| a == "--json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn demo_has_the_documented_defaults() {
        let Command::Demo(demo) = parse(&words("veilmatch demo")).unwrap().command else { panic!("not a demo") };
        assert_eq!((demo.gallery(), demo.dim.get(), demo.probes, demo.json), (1000, 512, 20, false));
        assert!(demo.threshold.is_none() && demo.images.is_none());
        let Command::Demo(demo) = parse(&words("veilmatch demo --images")).unwrap().command else {
            panic!("not a demo")
        };
        assert_eq!((demo.gallery(), demo.images), (24, Some(None)));
    }

    #[test]
    fn ranges_and_companions_are_checked() {
        for bad in [
            "veilmatch",
            "veilmatch demo --dim 15",
            "veilmatch demo --dim 1025",
            "veilmatch demo --dim many",
            "veilmatch demo --gallery 1",
            "veilmatch demo --probes 0",
            "veilmatch demo --threshold 0.95",
            "veilmatch demo --threshold nan",
            "veilmatch demo --embeddings a.npy",
            "veilmatch demo --labels a.csv",
            "veilmatch demo --embeddings a.npy --labels a.csv --dim 64",
            "veilmatch demo --images photos --embeddings a.npy --labels a.csv",
            "veilmatch demo --images --liveness 1.5",
            "veilmatch inspect",
            "veilmatch inspect a.jpg --gates none",
            "veilmatch inspect a.jpg --runtime tract",
            "veilmatch models add",
            "veilmatch models pull",
            "veilmatch enroll a.jpg",
            "veilmatch enroll --id alice --photos d",
            "veilmatch enroll --id alice --embedding a.npy a.jpg",
            "veilmatch enroll --photos d --list l.csv",
            "veilmatch verify --id alice",
            "veilmatch verify --id alice --embedding a.npy a.jpg",
            "veilmatch identify",
            "veilmatch eval",
            "veilmatch eval pairs --embeddings a.npy",
            "veilmatch eval pairs --embeddings a.npy --pairs b.csv --fmr 1e-3",
            "veilmatch eval pairs --embeddings a.npy --pairs b.csv --labels c.csv --fmr 1",
            "veilmatch eval identification --embeddings a.npy",
            "veilmatch eval groups --embeddings a.npy --labels b.csv --fmr 1e-3 --threshold 0.4",
            "veilmatch eval time --embeddings a.npy --labels b.csv --years 0",
            "veilmatch eval fit-fair --embeddings a.npy",
            "veilmatch eval fit-fair",
            "veilmatch eval fit-fair --synthetic narrowness --embeddings a.npy --labels b.csv",
            "veilmatch eval report --embeddings a.npy --labels b.csv --encrypted-pairs",
            "veilmatch enroll",
            "veilmatch enroll --id alice",
            "veilmatch enroll --embedding a.npy",
            "veilmatch enroll --embeddings a.npy",
            "veilmatch enroll --id alice --embeddings a.npy --labels b.csv",
            "veilmatch enroll --id a/b --embedding a.npy",
            "veilmatch verify --embedding a.npy",
            "veilmatch identify --embedding a.npy --max-matches 65",
            "veilmatch identify --embedding a.npy --mode verify",
            "veilmatch clients add --id gate-7 --key AAAA --roles verify",
            "veilmatch clients revoke --id gate-7 --at k3",
            "veilmatch collections create staff",
            "veilmatch collections create staff --dim 64 --scheme rsa",
            "veilmatch collections create staff --dim 64 --key-bits 1024",
            "veilmatch up --scheme rsa",
            "veilmatch dealer --out c",
            "veilmatch dealer --cards a b --out c",
            "veilmatch dealer --cards a b c --out d --bits 1024",
            "veilmatch bench scan --repeat 8",
            "veilmatch bench scan --probes 1,0",
            "veilmatch bench report",
            "veilmatch calibrate --embeddings a.npy --labels b.csv --m 30",
            "veilmatch calibrate --embeddings a.npy --labels b.csv --hit-rate 1.1",
            "veilmatch rotation fit --out r",
            "veilmatch rotation fit --random --out r",
            "veilmatch rotation fit --embeddings a.npy --random --dim 64 --out r",
            "veilmatch audit show",
            "veilmatch audit show --holder k0 --folder log",
            "veilmatch audit verify --holder k0 --expect 7:00",
            "veilmatch audit verify --expect 7:0000000000000000000000000000000000000000000000000000000000000000",
            "veilmatch audit verify --holder k0 --folder log",
        ] {
            assert_eq!(parse(&words(bad)).unwrap_err().exit_code(), 2, "{bad}");
        }
        for good in [
            "veilmatch demo --dim 16",
            "veilmatch demo --images --json",
            "veilmatch demo --images photos --model mine --runtime rust",
            "veilmatch inspect a.jpg --out b.png --gates strict --json",
            "veilmatch models list --json",
            "veilmatch models verify a b --runtime rust",
            "veilmatch models add a.onnx --manifest b.toml --models d",
            "veilmatch models pull a b",
            "veilmatch enroll --id alice a.jpg b.jpg",
            "veilmatch enroll --photos d --gates off --flip",
            "veilmatch enroll --list l.csv --faces largest",
            "veilmatch verify --id alice a.jpg",
            "veilmatch identify a.jpg --mode exists",
            "veilmatch demo --dim 1024 --threshold -0.2",
            "veilmatch demo --embeddings a.npy --labels a.csv --normalize",
            "veilmatch eval pairs --embeddings a.npy --pairs b.csv",
            "veilmatch eval pairs --embeddings a.npy --pairs b.csv --labels c.csv --fmr 1e-3,1e-4 --html d.html",
            "veilmatch eval identification --embeddings a.npy --labels b.csv --sizes 10,20 --encrypted 5",
            "veilmatch eval groups --embeddings a.npy --labels b.csv --column sex --threshold -0.1 --fair f",
            "veilmatch eval time --embeddings a.npy --labels b.csv --years 1,2",
            "veilmatch eval fit-fair --synthetic narrowness --fmr 0.01",
            "veilmatch eval fit-fair --embeddings a.npy --labels b.csv --out f",
            "veilmatch eval report --embeddings a.npy --labels b.csv --pairs c.csv --encrypted-pairs --html d.html",
            "veilmatch enroll --id alice --embedding a.npy --row 3",
            "veilmatch --profile p.toml enroll --embeddings a.npy --labels b.csv --json",
            "veilmatch verify --id alice --embedding a.npy --threshold -0.2 --profile p.toml",
            "veilmatch identify --embedding a.npy --mode matches --max-matches 64",
            "veilmatch collections create staff --dim 512 --no-best --at k0 --at matcher",
            "veilmatch collections create staff --dim 512 --scheme paillier --key-bits 3072",
            "veilmatch dealer --cards a b c --out d --bits 3072",
            "veilmatch up --scheme paillier --key-bits 3072",
            "veilmatch clients revoke --id gate-7 --at k2",
            "veilmatch audit verify --folder log",
            "veilmatch audit show --holder k0",
            "veilmatch bench scan --gallery 1000000 --threads 2 --probes 1,8,32 --json",
            "veilmatch bench services --queries 3",
            "veilmatch bench report --out r.html --from a.json b.json",
            "veilmatch calibrate --embeddings a.npy --labels b.csv --rotation r --m 32,64",
            "veilmatch rotation fit --random --dim 64 --out r",
            "veilmatch identify --embedding a.npy --rotation r",
        ] {
            assert!(parse(&words(good)).is_ok(), "{good}");
        }
    }

    #[test]
    fn json_is_noticed_in_broken_command_lines() {
        assert!(asks_for_json(&words("veilmatch demo --dim x --json")));
        assert!(!asks_for_json(&words("veilmatch demo -- --json")));
        assert!(!asks_for_json(&words("--json demo")));
    }
}
