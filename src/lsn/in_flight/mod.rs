//! Requests in flight: which exclude each other, which must wait, and which reads may share one answer.
//!
//! | file | role |
//! |---|---|
//! | `key` | what a request touches, and how: R4's conflict matrix |
//! | `table` | holders and waiters of each key, first come first served |
//! | `index` | their numbers by key |
//! | `join` | when a read may take the answer of another: R11 |

mod index;
mod join;
mod key;
mod table;

pub use join::{may_join, Old};
pub use key::{Access, Key, Mode, MutationOrder};
pub(super) use table::{Acquired, Table};
