//! All parties together, one binary.

mod bad_input;
mod cheating_client;
mod cheating_holder;
mod cheating_matcher;
mod cheats;
mod faults;
mod flow;
mod gallery;
mod lost_holder;
mod norm;
mod paillier;
mod preselection;
mod restarts;
mod rules;
mod supersession;
mod view;
mod work;
