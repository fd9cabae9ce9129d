//! A whole deployment in one folder and on one machine: certificates, keys, configuration files, the processes.
//!
//! For development, demonstrations and tests. All parties then run on one machine under one user: whoever owns it
//! could read everything. `docs/operations.md` says how the same files are made at three organisations.

mod deployment;
mod pki;
mod processes;
mod running;
mod serve;

pub use deployment::{Deployment, DeploymentError, Ports};
pub use pki::{issue, pki_init};
pub use processes::{Processes, Role};
pub use running::Running;
pub use serve::serve;
