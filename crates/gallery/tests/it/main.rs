//! The store of the gallery: one suite for both back ends, damage, a full disk, and kill -9 in a loop.

mod conformance;
mod crash;
mod disk;
mod full;
mod model;
mod steps;
