//! Makes Rust of the protocol files: `proto DIRECTORY-OF-PROTO-FILES DIRECTORY-FOR-RUST`. They are read by protox, which is
//! written in Rust: no `protoc` need be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [from, to] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "two directories")?;
    let set = protox::compile(["page_api.proto", "write.proto"], [from])?;
    tonic_prost_build::configure()
        // Page images as slices of what was received, not as copies.
        .bytes(".")
        .codec_path("crate::wire::codec::WholeCodec")
        // The client makes its connections itself; without this the stubs need no network.
        .build_transport(false)
        .out_dir(to)
        .compile_fds(set)?;
    Ok(())
}
