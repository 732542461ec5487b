//! Compiles `proto/plat/v1/*.proto` with protox (no protoc): types, clients and servers, and the descriptor set that
//! reflection serves and the tests walk.

use prost::Message;
use std::{env, error::Error, fs, path::Path};

const PROTOS: [&str; 4] = ["plat/v1/types.proto", "plat/v1/node.proto", "plat/v1/grid.proto", "plat/v1/admin.proto"];

/// Messages that may carry secrets: their `Debug` is written by hand in `src/redact.rs`.
const SECRET: [&str; 12] = [
    "EnrollRequest",
    "LoginRequest",
    "CreateTokenResponse",
    "RequestRequest",
    "InstanceView",
    "InstanceBody",
    "InstanceStatus",
    "SharedInstance",
    "RunResult",
    "ChildRequest",
    "PublishShared",
    "Child",
];

fn main() -> Result<(), Box<dyn Error>> {
    for proto in PROTOS {
        println!("cargo::rerun-if-changed=../{proto}");
    }
    let descriptors = protox::compile(PROTOS, [".."])?;
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("plat.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .skip_debug(SECRET.map(|message| format!(".plat.v1.{message}")))
        .compile_fds(descriptors)?;
    Ok(())
}
