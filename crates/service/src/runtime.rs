//! The threads of a service's network.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Processors for each thread of the network.
const PROCESSORS: usize = 4;

/// A runtime for the network and for the task that owns a service's state: one thread for every four processors, at least
/// one. Few threads, because a message passes several tasks on its way and a task on the same thread is not woken by the
/// operating system: with one thread instead of two an `identify` takes a fifth less of all parties' processor time. Long
/// computations are not done here but on pools of their own.
///
/// # Errors
/// The operating system gives no threads.
pub fn start_runtime() -> io::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Builder::new_multi_thread().worker_threads(processors.div_ceil(PROCESSORS)).enable_all().build()
}
