//! All parties together, one binary.

mod flow;
mod gallery;
