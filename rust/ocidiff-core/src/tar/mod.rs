//! The tar format, and nothing else: blocks, headers and records.

pub mod header;
pub mod pax;
