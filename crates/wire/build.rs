//! Compiles `proto/veilmatch/v1` without a protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const ROOT: &str = "../../proto";
const FILES: [&str; 4] = [
    "veilmatch/v1/types.proto",
    "veilmatch/v1/matcher.proto",
    "veilmatch/v1/twin.proto",
    "veilmatch/v1/keyholder.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={ROOT}/{file}");
    }
    let descriptors = protox::compile(FILES, [ROOT])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("veilmatch.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").emit_rerun_if_changed(false).compile_fds(descriptors)?;
    Ok(())
}
