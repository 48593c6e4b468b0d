//! The page service `standby`, at servers that break the rules, over real sockets. What a real standby does, and what
//! comes of its death, is shown by extension/test.

mod answers;
mod connections;
mod support;
