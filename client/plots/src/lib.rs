//! Plots as inline SVG, and the page that they stand on: one file that loads nothing.
//!
//! Written here because each plot is a page of arithmetic, and bars on a logarithmic axis with names beside them are what
//! general plotting crates do worst. Numbers and names come in, text goes out; no IO.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly"))]

mod page;
mod plot;

pub use page::{document, section, table};
pub use plot::{Area, Bar, Kind, Series, areas, bars, escape, lines, short, stacks};
