//! `eval fit-fair`.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use veilmatch_domain::Dimension;
use veilmatch_evaluation::fair::{self, Fitted, Settings, Transform};
use veilmatch_evaluation::groups::Membership;
use veilmatch_evaluation::page::{self, Page};
use veilmatch_evaluation::synthetic::{self, Cause};

use super::{Evaluated, Inputs, MappedBy, Outputs, groups, rate, refused};
use crate::arguments::dimension;
use crate::exit::CliError;
use crate::input::InputError;
use crate::report::{self, Progress};

pub(crate) const EXAMPLES: &str = "\
Examples:
  veilmatch eval fit-fair --embeddings X.npy --labels people.csv --column region \\
      --out region.fair
  veilmatch eval fit-fair --synthetic shared-direction
  veilmatch eval fit-fair --synthetic narrowness --fmr 1e-2 --html fair.html

The map is x -> normalise(A x + b): the means of the groups are moved together,
and directions in which faces vary little count more. How much of each is chosen
on people whom A was not estimated on; all numbers shown are of yet other people.
Apply it with --fair before templates and probes are sealed; nobody's group is
asked for then. The file holds means of groups: fit it on public embeddings.

--synthetic makes three groups of people instead: `shared-direction`, whose
groups share more or less of a direction, and `narrowness`, whose groups vary in
fewer or more dimensions, which such a map evens out in part.";

/// Images of each synthetic person, and how near they are to the person.
const IMAGES: usize = 3;
const LIKENESS: f64 = 0.8;

/// Which synthetic groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Synthetic {
    /// Groups that share more or less of a direction.
    SharedDirection,
    /// Groups that vary in fewer or more dimensions.
    Narrowness,
}

/// Arguments of `eval fit-fair`.
#[derive(Clone, Debug, Args)]
pub struct FitFairArguments {
    /// The embeddings: a matrix of float16 or float32, one unit vector per row
    #[arg(long, value_name = "X.npy", required_unless_present = "synthetic", requires = "labels")]
    pub embeddings: Option<PathBuf>,
    /// Who is in which row and group: a table with the columns `row`, `label` and that of --column
    #[arg(long, value_name = "F.csv", requires = "embeddings")]
    pub labels: Option<PathBuf>,
    /// Scale embeddings of any length to unit length instead of refusing them
    #[arg(long, requires = "embeddings")]
    pub normalize: bool,
    /// The column of the labels' table that holds the group
    #[arg(long, value_name = "NAME", default_value = "group")]
    pub column: String,
    /// Synthetic groups instead of embeddings
    #[arg(long, value_enum, value_name = "KIND", conflicts_with = "embeddings")]
    pub synthetic: Option<Synthetic>,
    /// People in each synthetic group
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(80..=20_000))]
    pub people: u32,
    /// Dimension of synthetic embeddings, 16 to 1024
    #[arg(long, value_name = "D", default_value = "128", value_parser = dimension)]
    pub dim: Dimension,
    /// Groups are compared at the threshold of this overall FMR
    #[arg(long, value_name = "R", default_value = "1e-3", value_parser = rate)]
    pub fmr: f64,
    /// By which share FNMR may rise at that FMR where the strength of the map is chosen, 0 to 1
    #[arg(long, value_name = "R", default_value_t = 0.1)]
    pub fnmr_rise: f64,
    /// The map to write; without it the effect is only shown
    #[arg(long, value_name = "FILE.fair")]
    pub out: Option<PathBuf>,
    /// What to write.
    #[command(flatten)]
    pub outputs: Outputs,
}

pub(super) fn run(arguments: &FitFairArguments, progress: &Progress) -> Result<Evaluated<Fitted>, CliError> {
    let (templates, people, of_row, source) = match (&arguments.embeddings, &arguments.labels, arguments.synthetic) {
        (Some(embeddings), Some(labels), _) => {
            let inputs = Inputs {
                embeddings: embeddings.clone(),
                labels: labels.clone(),
                normalize: arguments.normalize,
                mapped: MappedBy::default(),
            };
            let mut labelled = inputs.read(&[&arguments.column], progress)?;
            let source = inputs.source(&labelled);
            (labelled.templates, labelled.people, labelled.columns.pop().unwrap_or_default(), source)
        }
        (_, _, kind) => {
            let cause = match kind {
                Some(Synthetic::Narrowness) => Cause::Narrowness,
                _ => Cause::SharedDirection,
            };
            let d = arguments.dim.get();
            let groups = cause.groups(arguments.people as usize, d);
            let crowd = synthetic::crowd(&groups, IMAGES, d, LIKENESS, arguments.outputs.seed);
            let names = crowd.groups.iter().map(|g| format!("group {g}")).collect();
            let source = format!(
                "synthetic: three groups of {} people with {IMAGES} images each, {d} dimensions, {}",
                report::count(arguments.people.into()),
                match cause {
                    Cause::SharedDirection => "which share more or less of a direction",
                    Cause::Narrowness => "which vary in fewer or more dimensions",
                }
            );
            (crowd.templates, crowd.people, names, source)
        }
    };
    let membership = Membership::new(&people, &of_row).map_err(refused)?;
    let bootstrap = arguments.outputs.bootstrap();
    let settings = Settings { fmr: arguments.fmr, fnmr_rise: arguments.fnmr_rise, bootstrap };
    let bar = progress.stage("fit", fair::STEPS);
    let result = fair::fit(&templates, &people, &membership, &settings, &|| bar.step()).map_err(refused)?;
    drop(bar);
    if let Some(path) = &arguments.out {
        write(path, &result.transform)?;
    }
    let mut page = Page::default();
    page.fairness(&result);
    arguments.outputs.write(&page, &source)?;
    let text = format!(
        "{source}\nFitted on {} people, shown on {} others: {:.0} % of the centroids removed, whitening {:.2}\n\n\
         Without the map. {}\nWith it. {}\n{}\n",
        report::count(result.fitting_people as u64),
        report::count(result.reported_people as u64),
        100.0 * result.removal,
        result.whitening,
        groups::text(&result.before),
        groups::text(&result.after),
        page::verdict(&result),
    );
    Ok(Evaluated { eval: "fit-fair", result, text, outside_band: 0 })
}

fn write(path: &Path, transform: &Transform) -> Result<(), CliError> {
    let failed = |source| CliError::from(InputError::Open { path: path.into(), source });
    // A map in use is not to be written over: what is enrolled under it could not be found any more.
    let mut file = File::create_new(path).map_err(failed)?;
    file.write_all(&transform.to_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}
