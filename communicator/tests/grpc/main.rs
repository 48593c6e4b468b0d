//! The page service over gRPC, at servers that do as they are told, over real sockets.

mod answers;
mod connections;
mod processes;
mod support;
mod waiting;
mod writes;
