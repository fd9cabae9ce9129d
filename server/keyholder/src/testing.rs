//! Child processes of tests: the test binary runs one of its own tests again, under a limit or until it is killed.

use std::path::Path;
use std::process::{Command, Stdio};

/// Tells a test that it is the child, and where to work.
const FOLDER: &str = "VEILMATCH_TEST_FOLDER";

/// The folder to work in, if this process is a child.
pub(crate) fn child_folder() -> Option<std::path::PathBuf> {
    std::env::var_os(FOLDER).map(Into::into)
}

/// A command that runs the test of this name as a child. The shell ignores the signal of a file that exceeds its limit,
/// so that writing fails with an error as on a full disk.
pub(crate) fn child(test: &str, folder: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact \"$1\" --nocapture --test-threads=1"])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(FOLDER, folder)
        .stdout(Stdio::piped());
    command
}

/// Limits the size of every file that this process writes, or lifts the limit.
pub(crate) fn limit_files(bytes: Option<u64>) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}
