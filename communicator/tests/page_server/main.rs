//! Page servers as processes, asked over sockets by the clients that tonic makes of the protocol.
#![cfg(feature = "grpc")]

mod admission;
mod ingest;
mod reads;
mod support;
mod writes;
