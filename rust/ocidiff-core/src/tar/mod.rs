//! The tar format, and nothing else: blocks, headers and records.

mod fields;
pub mod header;
pub mod pax;
pub mod read;
mod records;

pub use fields::Time;
