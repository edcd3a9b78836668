//! Writes the Rust messages of `broker.proto`: `proto_rust DESCRIPTOR_SET OUT_FILE`.
//!
//! The descriptor set comes from the protoc inside the pinned grpcio-tools, so no build of the crate needs a protoc.

use std::error::Error;
use std::path::Path;

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(descriptors), Some(out)) = (args.next(), args.next()) else {
        return Err("usage: proto_rust DESCRIPTOR_SET OUT_FILE".into());
    };
    let set = prost_types::FileDescriptorSet::decode(std::fs::read(&descriptors)?.as_slice())?;
    let dir = std::env::temp_dir().join(format!("proto_rust-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    prost_build::Config::new().out_dir(&dir).compile_fds(set)?;
    std::fs::copy(dir.join("telemetry_broker.v1.rs"), Path::new(&out))?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
