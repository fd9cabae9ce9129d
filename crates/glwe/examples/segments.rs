//! What a preselection saves the matcher's scan (docs/performance.md): groups in one segment and in two, scanned whole, and
//! in two stages with a few candidate groups. All are timed in turns; medians.
//!
//! `cargo run --release -p veilmatch-glwe --example segments -- [TEMPLATES] [M] [REPEAT]`, by default 100000, 192 and 9. The
//! dimension is 512; without huge pages, so that ratios count and not times.

use std::error::Error;
use std::time::Instant;

use veilmatch_domain::{Dimension, Epoch, GroupId, Revision};
use veilmatch_glwe::{
    Bodies, GLWE_2048_V1, Layout, MaskSeed, PackedGroup, Parameters, ProbeCiphertext, SegmentedProbe, Stage,
    uniform_residues,
};
use veilmatch_secret::Stream;

const P: Parameters = GLWE_2048_V1;
const DIMENSION: usize = 512;

fn group(number: u64, hot: Option<usize>) -> Result<PackedGroup, Box<dyn Error>> {
    let (layout, dimension) = (Layout::new(4, 16)?, Dimension::new(DIMENSION)?);
    let count = layout.blocks(dimension) * layout.rank() * P.degree;
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    let natural = uniform_residues(&P, &mut Stream::public(seed), count);
    let (bodies, cold) = Bodies::segmented(&P, layout, dimension, hot, &natural)?;
    Ok(PackedGroup { group: GroupId(number), revision: Revision(0), epoch: Epoch(0), layout, bodies, cold })
}

#[expect(clippy::print_stdout, reason = "the report")]
fn main() -> Result<(), Box<dyn Error>> {
    let numbers = std::env::args().skip(1).map(|n| n.parse()).collect::<Result<Vec<usize>, _>>()?;
    let get = |place: usize, otherwise: usize| numbers.get(place).copied().unwrap_or(otherwise);
    let (templates, m, repeat) = (get(0, 100_000), get(1, 192), get(2, 9));
    let ring = P.ring();
    let (layout, dimension) = (Layout::new(4, 16)?, Dimension::new(DIMENSION)?);
    let groups = templates.div_ceil(layout.capacity(&P)) as u64;
    let whole = (0..groups).map(|number| group(number, None)).collect::<Result<Vec<_>, _>>()?;
    let cut = (0..groups).map(|number| group(number, Some(m / layout.beta()))).collect::<Result<Vec<_>, _>>()?;
    let masks = MaskSeed([7; 32]).expand(&P, Layout::new(layout.beta(), 1)?, dimension);
    let bodies = MaskSeed([8; 32]).expand(&P, Layout::new(layout.beta(), 1)?, dimension).values;
    let probe = ProbeCiphertext::new(masks, bodies);
    let prepared = SegmentedProbe::new(&P, &ring, &probe, whole.iter().chain(&cut))?;

    let candidates = [0, 1, groups.div_ceil(8) as usize, groups.div_ceil(2) as usize];
    let mut names = vec![String::from("one segment, whole"), String::from("two segments, whole")];
    names.extend(candidates.map(|count| format!("two stages, {count} of {groups} groups finished")));
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); names.len()];
    let all: Vec<&PackedGroup> = whole.iter().collect();
    let segmented: Vec<&PackedGroup> = cut.iter().collect();
    for turn in 0..=repeat {
        for place in 0..names.len() {
            let place = (place + turn) % names.len();
            let begun = Instant::now();
            match place {
                0 => drop(prepared.scan(&P, &ring, Stage::Whole, &all)?),
                1 => drop(prepared.scan(&P, &ring, Stage::Whole, &segmented)?),
                place => {
                    drop(prepared.scan(&P, &ring, Stage::Coarse, &segmented)?);
                    let finished = segmented.get(..candidates[place - 2]).unwrap_or_default();
                    drop(prepared.scan(&P, &ring, Stage::Rest, finished)?);
                }
            }
            // The first turn touches everything.
            if turn > 0 {
                times[place].push(begun.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    let medians: Vec<f64> = times
        .iter_mut()
        .map(|of| {
            of.sort_by(f64::total_cmp);
            of[of.len() / 2]
        })
        .collect();
    println!("{templates} templates of {DIMENSION}, m = {m}, {} threads", rayon::current_num_threads());
    for (name, median) in names.iter().zip(&medians) {
        println!("{name:<44} {median:>8.1} ms  {:.2}", median / medians[0]);
    }
    Ok(())
}
