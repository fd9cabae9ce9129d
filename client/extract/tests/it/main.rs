//! The whole way from a photo to a template: on drawn faces anywhere, on real ones where `VEILMATCH_DATA` is set.

mod drawn;
mod real;
mod runtimes;

use std::path::PathBuf;

/// The folder of data sets; without it the test says its name and that it was left out.
fn data(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("VEILMATCH_DATA").filter(|value| !value.is_empty()).map(PathBuf::from);
    if folder.is_none() {
        left_out(test, "VEILMATCH_DATA is not set");
    }
    folder
}

#[expect(clippy::print_stderr, reason = "a test that did not look at anything must not look like one that did")]
fn left_out(test: &str, why: &str) {
    eprintln!("LEFT OUT: {test}: {why}");
}
