//! The tar format, and nothing else: blocks, headers and records.

mod fields;
mod foreign;
pub mod header;
pub mod pax;
pub mod read;
mod records;
mod sparse;

pub use fields::Time;
