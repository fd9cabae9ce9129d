//! All parties together, one binary.

mod flow;
