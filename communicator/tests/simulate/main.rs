//! Scheduling by LSN against simulated page servers.

mod command;
