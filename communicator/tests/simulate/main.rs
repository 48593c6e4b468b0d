//! Scheduling by LSN against simulated page servers: worked cases, properties, and teeth.

mod cases;
mod command;
mod properties;
mod support;
mod teeth;
