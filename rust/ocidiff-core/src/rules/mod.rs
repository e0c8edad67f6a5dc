//! Rules that several rooms apply and none of them owns.

pub mod xattr;
