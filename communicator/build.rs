//! Makes Rust of the protocol files. They are read by protox, which is written in Rust: no `protoc` need be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    #[cfg(feature = "grpc")]
    {
        let files = ["proto/page_api.proto", "proto/write.proto"];
        for file in files {
            println!("cargo:rerun-if-changed={file}");
        }
        let set = protox::compile(files, ["proto"])?;
        // Page images as slices of what was received, not as copies.
        tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    }
    Ok(())
}
