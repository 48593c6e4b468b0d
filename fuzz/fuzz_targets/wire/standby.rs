//! Of the client of standbys, what has no network in it.

#[path = "../../../communicator/src/service/standby/answer.rs"]
pub mod answer;
#[path = "../../../communicator/src/service/standby/conninfo.rs"]
mod conninfo;

pub use conninfo::ConnInfo;
